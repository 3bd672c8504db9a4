"""A refused setting ends in one line, exit status 2 and no run folder; warnings are one line each."""

import pytest

from bimodal_cl import train
from tests.test_training.processes.launching import start_launcher


@pytest.mark.parametrize(
    ("changes", "environment", "expected"),
    [
        ({"train": {"precision": "fp16"}}, {}, "train.precision=fp16 is not available on the CPU"),
        ({"train": {"global_batch_size": 1}}, {}, "a single pair has no negatives"),
        ({"train": {"global_batch_size": 500}}, {}, "384 images are fewer than one global batch"),
        ({"checkpoint": {"best": "zero_shot/acc1"}}, {}, "needs data.zero_shot"),
        ({"checkpoint": {"best": "retrieval/text_retrieval_median_rank"}}, {}, "smaller is better there"),
        ({}, {"ACCELERATE_MIXED_PRECISION": "bf16"}, "mixed_precision=bf16 differs from train.precision=float32"),
        ({}, {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, "gradient_accumulation_steps=4"),
        ({}, {"ACCELERATE_USE_FSDP": "true"}, "fsdp_version=1 is not supported; use --fsdp_version 2"),
    ],
)
def test_one_line_and_no_folder(changes, environment, expected, run_training, monkeypatch, capsys):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    run = run_training(status=2, **changes)
    line = capsys.readouterr().err
    assert line.startswith("error: ") and expected in line and line.count("\n") == 1
    assert not run.exists()


def test_only_the_first_process_prints_a_refusal(write_config, monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(SystemExit) as exit_:
        train.main(["--config", str(write_config(train={"global_batch_size": 1}))])
    assert exit_.value.code == 2 and capsys.readouterr().err == ""


def test_warnings_are_one_line_each(run_training, capsys):
    run_training(
        loss={"name": "macl", "alpha": 0.0, "alignment": "anchor"},
        train={"num_epochs": None, "num_steps": 2, "log_every": 50},
        optim={"warmup_steps": 9},
    )
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("step ")]
    assert [line.partition(":")[0] for line in lines] == ["warning"] * 3
    assert "optim.warmup_steps=9 is not shorter than the run of 2 steps" in lines[0]
    assert "train.log_every=50: more than the run's 2 steps" in lines[1]
    assert "loss: alpha=0: the temperatures are fixed" in lines[2]


def test_a_refusal_is_the_only_line(run_training, capsys):
    """A run that does not start prints no warnings about its other settings."""
    idle = {"optim": {"warmup_steps": 900, "schedule": "constant", "min_learning_rate": 1e-5}}
    run = run_training(status=2, **idle, checkpoint={"best": "zero_shot/acc1"})
    line = capsys.readouterr().err
    assert line.startswith("error: checkpoint.best") and line.count("\n") == 1
    assert not run.exists()


def test_data_are_not_profiled_and_resumed_at_once(training_error):
    error = training_error("run", "--profile-data", "2", "--resume", "latest")
    assert "--resume has no effect with --profile-data" in error


def test_the_launchers_flags_reach_the_check(write_config, tmp_path):
    """Accelerate passes this flag to no process, so the check reads it from the launcher's command line."""
    flags = ["--gradient_accumulation_steps", "4", "-m", "bimodal_cl.train", "--config", str(write_config())]
    process = start_launcher(1, *flags)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 1
    mistakes = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(mistakes) == 1 and "accelerate launch: gradient_accumulation_steps=4" in mistakes[0]
    assert not (tmp_path / "run").exists()
