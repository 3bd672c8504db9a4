"""A run from Python equals that of the command, and one process may train one after another."""

import copy
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState

import bimodal_cl
from bimodal_cl import RunStopped, Trainer, UserError, load_config, make_config, train
from bimodal_cl.training.encoded_batch import EncodedBatch
from tests.test_training.run_files import assert_equal_runs, copy_run, read_losses

FOUR = {"train": {"num_epochs": None, "num_steps": 4, "log_every": 1}, "checkpoint": {"every": 2}}


@pytest.fixture
def values(write_config):
    """Return the values of a small config, nested, with some of them changed."""

    def make(name: str = "run", **changes: dict) -> dict:
        return yaml.safe_load(Path(write_config(name, **{**copy.deepcopy(FOUR), **changes})).read_text())

    return make


def test_a_run_from_python_equals_the_commands(values, write_config, tmp_path):
    assert Trainer(make_config(values("python"))).run() == tmp_path / "python"
    assert train.main(["--config", str(write_config("command", **FOUR))]) == 0
    assert_equal_runs(tmp_path / "python", tmp_path / "command")


def test_runs_of_one_process_have_a_precision_and_a_seed_of_their_own(values):
    first = Trainer(make_config(values("first"))).run()
    rounded = Trainer(make_config(values("rounded", train={**FOUR["train"], "precision": "bf16"}))).run()
    reseeded = Trainer(make_config({**values("reseeded"), "seed": 4})).run()
    again = Trainer(make_config(values("again"))).run()
    assert_equal_runs(first, again)
    assert read_losses(rounded) != read_losses(first) == pytest.approx(read_losses(rounded), rel=0.5)
    assert read_losses(reseeded) != read_losses(first)


def test_a_run_is_continued_bit_for_bit_by_another_trainer(values):
    whole = Trainer(make_config(values("whole")), resume="latest").run()  # there is none yet
    cut = copy_run(whole, "cut")
    shutil.rmtree(cut / "checkpoints" / "step_00000004")
    assert Trainer(make_config(values("cut")), resume="latest").run() == cut
    assert_equal_runs(whole, cut)


@pytest.fixture
def no_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_the_callers_own_accelerator_and_environment_stay_as_they_are(values, monkeypatch, no_accelerator):
    mine = Accelerator(cpu=True, mixed_precision="bf16")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    before = dict(os.environ)
    Trainer(make_config(values())).run()
    assert (mine.mixed_precision, mine.device, mine.num_processes) == ("bf16", torch.device("cpu"), 1)
    assert dict(os.environ) == before


def test_a_run_in_a_thread_reports_its_folder(values):
    folders = []
    trainer = Trainer(make_config(values()))
    thread = threading.Thread(target=lambda: folders.append(trainer.run()))
    thread.start()
    thread.join()
    assert folders == [Path(trainer.config.output)]


def test_a_run_that_a_signal_stops_names_it(values, monkeypatch):
    def backward(self):
        monkeypatch.undo()
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(EncodedBatch, "backward", backward)
    trainer = Trainer(make_config(values()))
    run = trainer.run()
    assert trainer.stopped_by == "SIGTERM" and len(read_losses(run)) == 1
    again = Trainer(trainer.config, resume="latest")
    again.run()
    assert again.stopped_by is None and len(read_losses(run)) == 4


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_either_kind_read_the_data(values, method):
    code = "import multiprocessing, sys, yaml; from bimodal_cl import Trainer, make_config\n"
    code += "if __name__ == '__main__':\n"
    code += f"    multiprocessing.set_start_method({method!r})\n"
    code += "    print(Trainer(make_config(yaml.safe_load(sys.argv[1]))).run())"
    given = values(method, data={"num_workers": 1})
    done = subprocess.run([sys.executable, "-c", code, yaml.safe_dump(given)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == given["output"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"loss": {"name": "isogclr", "roh": 6}},
            "config: loss.roh: unknown key of loss 'isogclr'; did you mean 'rho'?",
        ),
        ({"data": {"train": "nowhere"}}, "nowhere"),
        (
            {"train": {"num_steps": 1, "global_batch_size": 1}},
            "train.global_batch_size=1: a single pair has no negatives",
        ),
        ({"train": {"num_steps": 1, "precision": "fp16"}}, "train.precision=fp16 is not available on the CPU"),
    ],
)
def test_mistakes_are_errors_of_one_line(values, change, line, tmp_path):
    given = values()
    for section, keys in change.items():
        given[section] = keys if section == "loss" else {**given[section], "num_epochs": None, **keys}
    given["data"].pop("num_epochs", None)
    given["train"].pop("num_epochs", None)
    with pytest.raises(UserError) as error:
        Trainer(make_config(given)).run()
    assert line in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_other_things_than_a_config_are_refused(write_config):
    path = write_config("run")
    with pytest.raises(UserError, match=r"Trainer takes a Config, got PosixPath: load_config reads one"):
        Trainer(path)
    with pytest.raises(UserError, match="config: should be a mapping of sections, got str"):
        make_config(str(path))


def test_a_folder_that_holds_a_run_is_refused(values):
    config = make_config(values())
    Trainer(config).run()
    with pytest.raises(UserError, match="already holds a run; continue it with --resume latest"):
        Trainer(config).run()


def test_a_run_that_has_to_stop_says_so(values, monkeypatch):
    from bimodal_cl import trainer

    def fail(*_, **__):
        raise RunStopped("the disk is gone")

    monkeypatch.setattr(trainer, "save_checkpoint", fail)
    with pytest.raises(RunStopped, match="the disk is gone"):
        Trainer(make_config(values())).run()


def test_keys_over_a_file_are_given_with_dots(write_config, tmp_path):
    path = write_config("run")
    assert load_config(path, {"loss.rho": 3, "train.log_every": 2}).loss.rho == 3
    with pytest.raises(UserError, match=r"--loss.roh: unknown key of loss 'isogclr'; did you mean 'rho'\?"):
        load_config(path, {"loss.roh": 3})


def test_importing_the_package_imports_no_torch():
    code = "import sys, bimodal_cl; assert not {'torch', 'pydantic'} & set(sys.modules); bimodal_cl.Trainer"
    code += "; assert 'torch' not in sys.modules; from bimodal_cl import losses"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_has_the_names_it_lists():
    assert all(getattr(bimodal_cl, name) for name in bimodal_cl.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Trianer'"):
        bimodal_cl.Trianer  # noqa: B018
