"""A run whose tables are shared between two processes: saved by both, resumed bit for bit, continued by one."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from bimodal_cl import train
from bimodal_cl.checkpoint import load_checkpoint, save_checkpoint
from bimodal_cl.errors import UserError
from bimodal_cl.losses import build_loss
from bimodal_cl.losses.tables.anchors import gather_state
from bimodal_cl.run_folder import RunFolder
from tests.test_training.test_processes import launch, losses
from tests.test_training.test_resume import assert_equal_runs

STEPS = {"num_epochs": None, "num_steps": 8, "global_batch_size": 72, "log_every": 1, "device": "cpu"}
VISION = {"patch_size": 16, "width": 32, "layers": 1, "head_width": 16}  # no patch dropout: each rank draws its own


def test_sharded_tables_resume_bit_for_bit_and_on_one_process(write_config, tmp_path):
    loss = {"name": "isogclr", "rho": 1.0, "tables": "sharded"}
    keep_all = {"every": 3, "keep_last": 9}
    changes = {"loss": loss, "train": STEPS, "model": {"vision": VISION}, "checkpoint": keep_all}
    whole, part = write_config("whole", **changes), write_config("part", **changes)
    done = launch(whole, 2)
    assert done.returncode == 0, done.stderr
    tables = load_file(tmp_path / "whole/checkpoints/latest/loss.safetensors")
    assert tables["image_anchors.log_u"].shape == (384,)
    assert tables["image_anchors.log_u"].isfinite().sum() >= 5 * 72  # an epoch has 5 batches
    shutil.copytree(tmp_path / "whole", tmp_path / "part", symlinks=True)
    done = launch(part, 2, "--resume", "step_00000003")
    assert done.returncode == 0, done.stderr
    assert_equal_runs(tmp_path / "whole", tmp_path / "part")

    shutil.copytree(tmp_path / "whole", tmp_path / "alone", symlinks=True)
    alone = write_config("alone", **{**changes, "loss": {**loss, "tables": "replicated"}})
    assert train.main(["--config", str(alone), "--resume", "step_00000003"]) == 0
    assert losses(tmp_path / "alone") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"num_images": 6}, r"image_anchors\.log_u has shape \[5\], this table needs \[6\]"),
        ({"name": "sogclr"}, r"missing \[\], unexpected \['image_anchors\.tau'"),
        ({"name": "macl", "alignment": "anchor"}, r"missing \['image_anchors\.alignment'"),
    ],
)
def test_tables_that_do_not_fit_are_named(tmp_path, other, message):
    loss = build_loss("isogclr", num_images=5, num_texts=7, tables="sharded")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.1)
    save_checkpoint(
        RunFolder(tmp_path),
        {"step": 1},
        save_model=lambda folder: None,
        loss_state=gather_state(loss),
        optimizer=optimizer,
        keep_last=1,
    )
    load = {"load_model": lambda folder: None, "optimizer": optimizer}
    load_checkpoint(tmp_path / "checkpoints/latest", loss=build_loss("isogclr", num_images=5, num_texts=7), **load)
    unlike = build_loss(**{"name": "isogclr", "num_images": 5, "num_texts": 7, **other})
    with pytest.raises(UserError, match=r"loss\.safetensors: does not fit this config: .*" + message) as refusal:
        load_checkpoint(tmp_path / "checkpoints/latest", loss=unlike, **load)
    assert "\n" not in str(refusal.value)
