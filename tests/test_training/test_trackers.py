"""Each tracker gets the values of metrics.jsonl, a resumed run goes on in the same one, and none can stop a run."""

import importlib.util

import pytest

from bimodal_cl import train
from bimodal_cl.training import trackers
from tests.test_training import tracked_runs
from tests.test_training.run_files import read_log

STEPS = {"train": {"num_epochs": None, "num_steps": 4, "log_every": 1, "evaluate_every": 2}, "checkpoint": {"every": 2}}
NAMES = ("tensorboard", "wandb", "trackio", "mlflow")
AXIS = {"train": ("event", "step"), "evaluate": ("event", "step", "epoch")}


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    for name, value in {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def broken_tracker(monkeypatch):
    """Put a tracker in TensorBoard's place that fails, at a call of a name, as one does whose server is gone."""
    calls: list[str] = []
    fails_at: dict[str, int] = {}

    class Broken:
        def __init__(self, *_, **__):
            pass

        def __getattr__(self, name):
            def call(*_, **__):
                calls.append(name)
                if calls.count(name) == fails_at.get(name):
                    raise ConnectionError("the server\nis gone")

            return call

    monkeypatch.setitem(trackers.LOGGER_TYPE_TO_CLASS, "tensorboard", Broken)
    return calls, fails_at


def logged_values(run):
    return {
        (f"{line['event']}/{name}", line["step"]): value
        for line in read_log(run)
        if line["event"] in AXIS
        for name, value in line.items()
        if name not in AXIS[line["event"]]
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_tracker_has_the_values_of_the_log_and_a_resumed_run_goes_on_in_it(
    name, run_training, tmp_path, write_config
):
    pytest.importorskip(name, reason=f"the package {name} is not installed")
    run = run_training("run", "--tracking.trackers", name, **STEPS)
    read = getattr(tracked_runs, f"read_{name}")
    values, config, num_runs = read(run)
    assert num_runs == 1
    logged = logged_values(run)
    assert values.keys() == logged.keys()
    assert values == pytest.approx(logged, rel=1e-6, nan_ok=True)
    assert ("evaluate/retrieval/image_retrieval_recall@5", 4) in values
    assert str(config["loss.rho"]) == "1.0"
    assert config["data.train"].endswith("/train")

    assert train.main(["--config", str(run / "config.yaml"), "--resume", "step_00000002"]) == 0
    values, _, num_runs = read(run)
    assert num_runs == 1
    assert values.keys() == logged.keys()
    exact = {key: value for key, value in logged.items() if key[0] == "train/loss"}
    assert {key: values[key] for key in exact} == pytest.approx(exact, rel=1e-6)


def test_several_trackers_get_the_same_values(run_training):
    pytest.importorskip("mlflow", reason="the package mlflow is not installed")
    run = run_training("run", "--tracking.trackers", "tensorboard,mlflow", **STEPS)
    assert tracked_runs.read_tensorboard(run)[0] == pytest.approx(tracked_runs.read_mlflow(run)[0], rel=1e-6)


@pytest.mark.parametrize(
    ("method", "call", "step", "num_logged"),
    [("start", 1, 0, 0), ("store_init_configuration", 1, 0, 0), ("log", 2, 2, 2), ("finish", 1, 4, 6)],
)
def test_a_tracker_that_fails_costs_one_warning(method, call, step, num_logged, run_training, broken_tracker, capsys):
    calls, fails_at = broken_tracker
    fails_at[method] = call
    run = run_training("run", "--tracking.trackers", "tensorboard", **STEPS)
    warned = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert warned == [
        f"warning: tracking.trackers: tensorboard failed at step {step} and gets no more values: the server is gone; "
        f"the run goes on, and {run}/metrics.jsonl has them all"
    ]
    assert [line["step"] for line in read_log(run, "train")] == [1, 2, 3, 4]
    assert calls.count("log") == num_logged


def test_without_trackers_nothing_is_written_for_them(run_training):
    run = run_training("run", **STEPS)
    assert sorted(path.name for path in run.iterdir()) == ["checkpoints", "config.yaml", "metrics.jsonl"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--tracking.trackers", "wanbd"], "--tracking.trackers: unknown tracker 'wanbd'; did you mean 'wandb'?"),
        (["--tracking.trackers", "comet"], "unknown tracker 'comet'; valid: mlflow, tensorboard, trackio, wandb"),
        (["--tracking.trackers", "[wandb, wandb]"], "tracker 'wandb' is given twice"),
        (["--tracking.trackers", "7"], "unknown tracker '7'"),
        (["--tracking.projct", "x"], "did you mean '--tracking.project'?"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(flags, expected, write_config, capsys):
    assert train.main(["--config", str(write_config()), *flags]) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_package_is_refused_with_the_way_to_install_it(name, write_config, capsys, monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked, *rest: None if asked == name else find(asked, *rest))
    assert train.main(["--config", str(write_config()), "--tracking.trackers", name]) == 2
    assert capsys.readouterr().err == (
        f"error: tracking.trackers: {name} needs the package '{name}', which is not installed: pip install {name}, or "
        f"install this project with its extra, '.[{name}]'\n"
    )
    assert not (tmp_path / "run").exists()


def test_names_without_a_tracker_that_shows_them_are_warned_about(run_training, capsys):
    run_training("run", "--tracking.project", "mine", **STEPS)
    assert "warning: tracking.project=mine: no effect, because tracking.trackers is empty" in capsys.readouterr().err
