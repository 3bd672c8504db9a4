"""A run with sharded tables: two processes save them, resume bit for bit, and one process continues."""

import pytest
import torch
from safetensors.torch import load_file

from bimodal_cl.checkpoint import load_checkpoint, save_checkpoint
from bimodal_cl.errors import UserError
from bimodal_cl.losses import build_loss
from bimodal_cl.losses.tables.anchors import gather_state
from bimodal_cl.run_folder import RunFolder
from tests.test_training.conftest import WITHOUT_DROPOUT
from tests.test_training.processes.launching import launch
from tests.test_training.run_files import assert_equal_runs, copy_run, read_losses


def test_sharded_tables_resume_bit_for_bit_and_on_one_process(write_config, run_training, tmp_path):
    loss = {"name": "isogclr", "rho": 1.0, "tables": "sharded"}
    steps = {"num_epochs": None, "num_steps": 8}
    changes = {"train": steps, "model": WITHOUT_DROPOUT, "checkpoint": {"every": 3, "keep_last": 9}}
    done = launch(write_config("whole", loss=loss, **changes), 2)
    assert done.returncode == 0, done.stderr
    whole = tmp_path / "whole"
    tables = load_file(whole / "checkpoints/latest/loss.safetensors")
    assert tables["image_anchors.log_u"].shape == (384,)
    assert tables["image_anchors.log_u"].isfinite().sum() >= 5 * 72  # an epoch has 5 batches
    part = copy_run(whole, "part")
    done = launch(write_config("part", loss=loss, **changes), 2, "--resume", "step_00000003")
    assert done.returncode == 0, done.stderr
    assert_equal_runs(whole, part)

    alone = copy_run(whole, "alone")
    run_training("alone", "--resume", "step_00000003", loss={**loss, "tables": "replicated"}, **changes)
    assert read_losses(alone) == pytest.approx(read_losses(whole), rel=1e-4)


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
    save = {"save_model": lambda folder: None, "loss_state": gather_state(loss)}
    save_checkpoint(RunFolder(tmp_path), {"step": 1}, keep_last=1, optimizer_state=optimizer.state_dict(), **save)
    load = {"load_model": lambda folder: None, "optimizer": optimizer}
    load_checkpoint(tmp_path / "checkpoints/latest", loss=build_loss("isogclr", num_images=5, num_texts=7), **load)
    unlike = build_loss(**{"name": "isogclr", "num_images": 5, "num_texts": 7, **other})
    with pytest.raises(UserError, match=r"loss\.safetensors: does not fit this config: .*" + message) as refusal:
        load_checkpoint(tmp_path / "checkpoints/latest", loss=unlike, **load)
    assert "\n" not in str(refusal.value)
