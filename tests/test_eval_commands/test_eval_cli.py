"""The command line of ``bimodal-eval``: help without torch, one-line errors, arguments from YAML."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import yaml

from eval.cli import COMMANDS, main
from tests.refusals import read_mistake


@pytest.mark.parametrize("argv", [["--help"], ["zero-shot", "--help"], ["retrieval", "--help"]])
def test_help_is_fast_and_needs_no_torch(argv):
    program = (
        "import sys\nfrom eval.cli import main\n"
        f"try:\n    main({argv})\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: bimodal-eval" in done.stdout
    assert "None)" not in done.stdout
    assert time.monotonic() - start < 5  # about 0.2 s; the bound only catches an import of torch on a busy machine


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS.commands)


def test_help_shows_every_default(capsys):
    with pytest.raises(SystemExit):
        main(["linear-probe", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "of the held out images and of the draws (default: 0)" in shown
    assert "in place of all --draws" in shown  # without any shots, nothing is said


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["zero-short"], "unknown COMMAND 'zero-short'; did you mean 'zero-shot'?"),
        (["zero-shot"], "required: MODEL, --data"),
        (["zero-shot", "m", "--dta", "x"], "unknown flag '--dta'; did you mean '--data'?"),
        (["zero-shot", "m", "--data=x", "--batchsize=3"], "unknown flag '--batchsize'; did you mean '--batch-size'?"),
        (["retrieval", "m", "--data", "x", "--batch-size", "0"], "must be an integer of at least 1, got '0'"),
        (["retrieval", "m", "--data", "x", "--precision", "bf61"], "'bf61'; did you mean 'bf16'?"),
        (["retrieval", "m", "--data", "x", "--num-workers", "-1"], "--num-workers"),
    ],
)
def test_mistakes_are_one_line_and_status_2(argv, message, capsys):
    assert message in read_mistake(capsys, main, *argv)


def test_print_config_shows_defaults_flags_and_file(tmp_path, capsys):
    config = tmp_path / "eval.yaml"
    config.write_text("models: [runs/a, runs/b]\ndata: pictures\nbatch_size: 8\nsplit: val\n")
    assert main(["zero-shot", "--config", str(config), "--split", "train", "--print-config"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["models"] == ["runs/a", "runs/b"]
    assert (shown["data"], shown["batch_size"], shown["split"]) == ("pictures", 8, "train")
    assert (shown["precision"], shown["num_workers"]) == ("float32", 0)
    assert "config" not in shown


def test_flags_win_over_the_file_for_positional_arguments_too(tmp_path, capsys):
    config = tmp_path / "eval.yaml"
    config.write_text("models: runs/a\ndata: pictures\n")
    assert main(["zero-shot", "runs/z", "--config", str(config), "--print-config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["models"] == ["runs/z"]


def test_printed_config_reads_back_as_itself(tmp_path, capsys):
    assert main(["retrieval", "m", "--data", "d", "--examples", "3", "--print-config"]) == 0
    printed = capsys.readouterr().out
    config = tmp_path / "eval.yaml"
    config.write_text(printed)
    assert main(["retrieval", "--config", str(config), "--print-config"]) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("batchsize: 3\n", "unknown key 'batchsize' for bimodal-eval retrieval; did you mean 'batch_size'?"),
        ("batch_size: none\n", "batch_size: must be an integer of at least 1, got 'none'"),
        ("precision: float23\n", "unknown precision 'float23'; did you mean 'float32'?"),
        ("batch_size: [1, 2]\n", "batch_size takes one value"),
        ("models: []\n", "models must name at least one"),
        ("workers: two\n", ": workers: must be an integer of at least 0, got 'two'"),
        ("workers: 1\nnum_workers: 2\n", "'workers' and 'num_workers' mean the same; leave one of them out"),
        ("- a\n", "must hold `key: value` lines"),
        ("a: [\n", "not readable as YAML"),
    ],
)
def test_mistakes_in_the_file_name_the_file_and_the_key(content, message, tmp_path, capsys):
    config = tmp_path / "eval.yaml"
    config.write_text(content)
    error = read_mistake(capsys, main, "retrieval", "m", "--data", "d", "--config", config)
    assert message in error and str(config) in error


def test_a_missing_config_file(tmp_path, capsys):
    assert "no.yaml: No such file" in read_mistake(capsys, main, "retrieval", "m", "--config", tmp_path / "no.yaml")


@pytest.mark.parametrize("command", ["zero-shot", "retrieval"])
def test_missing_data_name_the_nearest_folder(command, tmp_path, capsys):
    (tmp_path / "flickr8k" / "test").mkdir(parents=True)
    assert f"no 'flicker8k' in {tmp_path}; did you mean 'flickr8k'?" in read_mistake(
        capsys, main, command, "m", "--data", tmp_path / "flicker8k" / "test"
    )
    (tmp_path / "file").write_text("x")
    found = {"zero-shot": "neither a folder nor a file of .csv", "retrieval": "is a file; name the folder"}[command]
    assert found in read_mistake(capsys, main, command, "m", "--data", tmp_path / "file")
