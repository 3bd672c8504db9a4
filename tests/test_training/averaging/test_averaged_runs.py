"""A run with averaged weights: its checkpoints, its scores, and what a resume makes of them."""

import math

import pytest
import torch
from safetensors.torch import load_file

from bimodal_cl.models import build_model, load_model
from bimodal_cl.train import set_up
from tests.refusals import refused
from tests.test_training.conftest import SMALL, WITHOUT_DROPOUT
from tests.test_training.processes.launching import launch
from tests.test_training.run_files import assert_equal_runs, assert_equal_tensors, copy_run, read_log, read_losses

ON = {"decay": 0.9}
KEEP_ALL = {"every": 1, "keep_last": 99}
RECALL = "retrieval/image_retrieval_recall@5"
RESNET = {"timm_model_name": "test_resnet", "timm_pool": "avg", "timm_proj": "linear"}


def file_of(run, step, name="ema"):
    return run / "checkpoints" / f"step_{step:08d}" / f"{name}.safetensors"


@pytest.mark.parametrize("vision", [{}, {"vision": RESNET}], ids=["vit", "batch_norms"])
def test_the_saved_average_is_that_of_the_saved_weights(run_training, vision):
    run = run_training(ema=ON, checkpoint=KEEP_ALL, train={"num_epochs": 1}, model=vision, data={"val": None})
    torch.manual_seed(SMALL["seed"])
    average = {name: tensor.double() for name, tensor in build_model(**SMALL["model"] | vision).state_dict().items()}
    frozen = {"logit_scale"}
    for step in range(1, 6):
        decay = min(0.9, (1 + step) / (10 + step))
        weights, saved = load_file(file_of(run, step, "model")), load_file(file_of(run, step))
        assert saved.keys() == weights.keys()
        for name, weight in weights.items():
            if name in frozen or not weight.is_floating_point():
                assert torch.equal(saved[name], weight), name
                continue
            average[name] = decay * average[name] + (1 - decay) * weight.double()
            torch.testing.assert_close(saved[name].double(), average[name], rtol=1e-5, atol=1e-7, msg=name)
    assert any("running_var" in name for name in weights) == bool(vision)


def test_the_training_is_as_without_and_a_resume_as_no_interruption(run_training):
    plain = run_training("plain", checkpoint=KEEP_ALL)
    whole = run_training("whole", ema=ON, checkpoint=KEEP_ALL)
    assert read_losses(plain) == read_losses(whole)
    assert_equal_tensors(file_of(plain, 10, "model"), file_of(whole, 10, "model"))
    assert not file_of(plain, 10).exists()
    for step in (3, 5):
        part = copy_run(whole, f"part_{step}")
        run_training(part.name, "--resume", f"step_{step:08d}", ema=ON, checkpoint=KEEP_ALL)
        assert_equal_runs(whole, part)
        assert_equal_tensors(file_of(whole, 10), file_of(part, 10))


def test_a_run_may_be_resumed_with_the_average_newly_on_or_off(run_training, capsys):
    begun = run_training(checkpoint=KEEP_ALL, data={"val": None})
    run_training("run", "--resume", "step_00000008", ema=ON, checkpoint=KEEP_ALL, data={"val": None})
    said = capsys.readouterr().err
    assert "ema: the checkpoint of step 8 has no average: one starts from its weights" in said
    assert "these keys differ from the run so far: ema.decay" in said
    first, second = (load_file(file_of(begun, step, "model")) for step in (8, 9))
    for name, tensor in load_file(file_of(begun, 9)).items():
        if name != "logit_scale":
            expected = torch.lerp(first[name], second[name], 1 - 10 / 19)  # the warm-up counts steps of the run
            torch.testing.assert_close(tensor, expected, msg=name)
    run_training("run", "--resume", "step_00000009", checkpoint=KEEP_ALL, data={"val": None})
    assert not file_of(begun, 10).exists() and file_of(begun, 10, "model").exists()


def test_both_weights_are_scored_and_the_best_may_be_an_average(run_training):
    best = {"every": 1, "keep_last": 99, "best": f"ema/{RECALL}"}
    run = run_training(ema=ON, checkpoint=best, train={"evaluate_every": 1})
    lines = read_log(run, "evaluate")
    scores = {line["step"]: line[f"ema/{RECALL}"] for line in lines}
    names = {name for name in lines[0] if name.startswith("ema/")}
    assert names == {f"ema/{name}" for name in lines[0] if name.startswith("retrieval/")}
    assert any(line[name] != line[name.removeprefix("ema/")] for line in lines for name in names)
    first = min(step for step, score in scores.items() if score == max(scores.values()))
    assert (run / "checkpoints/best").readlink().name == f"step_{first:08d}"
    alone = run_training("alone", ema=ON | {"evaluate": False}, train={"num_epochs": 1})
    assert not [name for line in read_log(alone) for name in line if name.startswith("ema/")]


@pytest.mark.parametrize(
    ("ema", "best", "message"),
    [
        ({}, f"ema/{RECALL}", "needs ema.decay, and ema.evaluate=true, to be scored"),
        (ON | {"evaluate": False}, f"ema/{RECALL}", "needs ema.decay, and ema.evaluate=true"),
        (ON, "ema/retrieval/image_retrieval_median_rank", "smaller is better there"),
        (ON, "ema/zero_shot/acc1", "needs data.zero_shot to be scored on"),
        (ON, "ema/retrieval/image_retrieval_recall@7", f"did you mean 'ema/{RECALL}'"),
        ({"decay": 1.0}, None, "ema.decay"),
        ({"decay": 0}, None, "ema.decay"),
    ],
)
def test_mistakes_are_named(training_error, ema, best, message):
    assert message in training_error(ema=ema, checkpoint={"best": best})


def test_settings_without_an_average_cause_a_warning(write_config):
    with pytest.warns(UserWarning, match=r"ema\.decay_warmup=false has no effect without ema\.decay"):
        set_up(["--config", str(write_config(ema={"decay_warmup": False})), "--print-config"])


def test_a_damaged_average_is_named(run_training, training_error):
    steps = {"num_steps": 2, "num_epochs": None}
    path = run_training(ema=ON, train=steps) / "checkpoints/latest/ema.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    assert "ema.safetensors: damaged or not a safetensors file" in training_error(
        "run", "--resume", "latest", ema=ON, train=steps
    )
    with refused("ema.safetensors"):
        load_model(path)


def test_two_processes_average_as_one_and_resume_bit_for_bit(run_training, write_config, tmp_path):
    changes = {"ema": ON, "train": {"num_epochs": 1}, "model": WITHOUT_DROPOUT, "checkpoint": {"every": 2}}
    one = run_training("one", **changes)
    config = write_config("two", **changes)
    assert (done := launch(config, 2)).returncode == 0, done.stderr
    first, second = load_file(file_of(one, 5)), load_file(file_of(tmp_path / "two", 5))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-3, atol=1e-5, msg=name)
    part = copy_run(tmp_path / "two", "part")
    flags = ["--resume", "step_00000004", "--output", str(part)]
    assert (done := launch(config, 2, *flags)).returncode == 0, done.stderr
    assert_equal_tensors(file_of(tmp_path / "two", 5), file_of(part, 5))
    scores = [read_log(run, "evaluate")[-1] for run in (tmp_path / "two", part)]
    assert scores[0] == scores[1] and math.isfinite(scores[0][f"ema/{RECALL}"])
