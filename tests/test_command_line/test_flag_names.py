"""Flags under other programs' names are answered with ours, ``-`` equals ``_``, and a warning is one line."""

import importlib
import warnings

import pytest
import yaml

import bimodal_cl
import data_prep.cli
import eval.cli
from bimodal_cl.cli.exit_status import with_exit_status
from bimodal_cl.errors import did_you_mean
from eval.encode import resolve_device
from tests.refusals import read_mistake, refused

WRITE = ["write", "folder", "--images", "x"]


@pytest.mark.parametrize(
    ("main", "argv", "expected"),
    [
        (eval.cli.main, ["retrieval", "run", "--dataset", "x"], "'--dataset'; did you mean '--data'?"),
        (eval.cli.main, ["retrieval", "--model", "run", "--data", "x"], "'--model'; MODEL is given without a flag"),
        (eval.cli.main, ["retrieval", "run", "--jobs", "2"], "did you mean '--num-workers'?"),
        (eval.cli.main, ["retrieval", "run", "--output", "x"], "did you mean '--to'?"),
        (eval.cli.main, ["retrieval", "run", "--amp", "x"], "did you mean '--precision'?"),
        (eval.cli.main, ["retrieval", "run", "--precision", "single"], "'single'; did you mean 'float32'?"),
        (eval.cli.main, ["retrieval", "run", "--precision", "bfloat16"], "'bfloat16'; did you mean 'bf16'?"),
        (eval.cli.main, ["retrieval", "run", "--precision", "amp"], "'amp'; did you mean 'fp16'?"),
        (eval.cli.main, ["retrieval", "run", "-d", "x"], "unknown flag '-d'; valid: --batch-size"),
        (eval.cli.main, ["zero-shot", "run", "--prompts", "x"], "did you mean '--templates'?"),
        (eval.cli.main, ["report", "--run", "x"], "'--run'; RUN is given without a flag"),
        (eval.cli.main, ["retrieval", "run", "--datta", "x"], "did you mean '--data'?"),
        (data_prep.cli.main, [*WRITE, "--output", "y"], "did you mean '--to'?"),
        (data_prep.cli.main, [*WRITE, "--to", "y", "--jobs", "2"], "did you mean '--num-workers'?"),
        (data_prep.cli.main, [*WRITE, "--to", "y", "--force"], "did you mean '--overwrite'?"),
        (data_prep.cli.main, ["write", "folder", "--root", "x", "--to", "y"], "did you mean '--images'?"),
        (data_prep.cli.main, ["index", "x", "--num-processes", "2"], "did you mean '--num-workers'?"),
        (data_prep.cli.main, ["verify", "--input", "x"], "'--input'; DIR is given without a flag"),
    ],
)
def test_other_names_are_answered_with_ours(main, argv, expected, capsys):
    assert expected in read_mistake(capsys, main, *argv)


def test_dash_and_underscore_are_equal_in_flags(tmp_path, capsys):
    argv = ["write", "folder", "--images", str(tmp_path / "none"), "--to", "y", "--shard_size=7", "--num-proc", "1"]
    assert data_prep.cli.main([*argv, "--max_side", "8"]) == 2
    assert "no such folder" in capsys.readouterr().err  # the flags themselves are accepted
    assert eval.cli.main(["retrieval", "run", "--data", "x", "--batch_size", "7", "--print_config"]) == 0
    assert "batch_size: 7" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("main", "argv", "expected"),
    [
        (eval.cli.main, ["retrieval", "m", "--data", "d", "--workers", "3"], {"num_workers": 3}),
        (eval.cli.main, ["zero-shot", "m", "--data", "d", "--precision", "fp32"], {"precision": "float32"}),
        (data_prep.cli.main, [*WRITE, "--to", "y", "--num-proc", "3"], {"num_workers": 3}),
        (data_prep.cli.main, [*WRITE, "--to", "y", "--workers=3"], {"num_workers": 3}),
        (data_prep.cli.main, ["index", "x", "--workers", "3"], {"num_workers": 3}),
        (data_prep.cli.main, ["verify", "x", "--num_proc", "3"], {"num_workers": 3}),
        (data_prep.cli.main, ["write", "hf", "--dataset", "x", "--to", "y", "--config", "c"], {"config_name": "c"}),
    ],
)
def test_spellings_of_before_are_still_read(main, argv, expected, capsys):
    assert main([*argv, "--print-config"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert expected.items() <= shown.items()


@pytest.mark.parametrize(
    "argv",
    [WRITE, ["write", "hf", "--dataset", "x", "--config-name", "c"], ["index", "a.tar", "b.tar"], ["verify", "x"]],
)
def test_what_preparation_prints_gives_the_same_arguments(argv, tmp_path, capsys):
    flags = ["--to", "y", "--num-workers", "3", *(["--repair"] if argv[0] == "verify" else ["--overwrite"])]
    assert data_prep.cli.main([*argv, *flags, "--print-config"]) == 0
    printed = capsys.readouterr().out
    config = tmp_path / "prep.yaml"
    config.write_text(printed)
    command = argv[:2] if argv[0] == "write" else argv[:1]
    assert data_prep.cli.main([*command, "--config", str(config), "--print-config"]) == 0
    assert capsys.readouterr().out == printed
    assert data_prep.cli.main([*command, "--config", str(config), "--to", "z", "--print-config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == {**yaml.safe_load(printed), "to": "z"}


def test_keys_of_before_are_still_read_from_a_file(tmp_path, capsys):
    config = tmp_path / "eval.yaml"
    config.write_text("data: d\nworkers: 3\nprecision: fp32\n")
    assert eval.cli.main(["retrieval", "m", "--config", str(config), "--print-config"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["num_workers"], shown["precision"]) == (3, "float32")


@pytest.mark.parametrize("program", ["bimodal_cl.train", "data_prep.cli", "eval.cli"])
def test_every_program_says_its_version(program, capsys):
    with pytest.raises(SystemExit) as end:
        importlib.import_module(program).main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.split()[1] == bimodal_cl.__version__


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--to", "a", "--to=b"], "warning: --to is given 2 times; the last one counts: b\n"),
        (["--to", "a", "--to", "a"], ""),
        (
            ["--batch-size", "7", "--batch_size", "8"],
            "warning: --batch-size is given 2 times; the last one counts: 8\n",
        ),
        (["--config", "{0}/one.yaml", "--config", "{0}/two.yaml"], "warning: --config is given 2 times"),
    ],
)
def test_a_flag_that_replaces_an_earlier_one_is_named(flags, expected, tmp_path, capsys):
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text("name: set\n")
    flags = [flag.format(tmp_path) for flag in flags]
    assert eval.cli.main(["retrieval", "run", "--data", "x", *flags, "--print-config"]) == 0
    shown = capsys.readouterr().err
    assert shown.startswith(expected) and shown.count("\n") == bool(expected)


@pytest.mark.parametrize(("device", "expected"), [("gpu", "'cuda'"), ("CPU", "'cpu'"), ("cuda0", "'cuda'")])
def test_an_unknown_device_is_answered_with_the_nearest(device, expected):
    with refused(f"^--device {device}: no such device; did you mean {expected}\\?$"):
        resolve_device(device)


@pytest.mark.parametrize(
    ("name", "choices", "expected"),
    [
        ("ViT-B/32", ["ViT-B-32", "ViT-L-14"], "'ViT-B-32'"),
        ("vit_b_32", ["ViT-B-32", "ViT-L-14"], "'ViT-B-32'"),
        ("CLIP", ["clip", "macl"], "'clip'"),
    ],
)
def test_case_and_separators_do_not_hide_the_nearest(name, choices, expected):
    assert did_you_mean(name, choices) == f"; did you mean {expected}?"


def test_a_warning_is_one_line_of_the_main_process(capsys, monkeypatch):
    def command(argv: object) -> None:
        warnings.warn("a setting\nwithout effect", stacklevel=1)

    assert with_exit_status(command)([]) == 0
    assert capsys.readouterr().err == "warning: a setting without effect\n"
    monkeypatch.setenv("RANK", "1")
    assert with_exit_status(command)([]) == 0
    assert capsys.readouterr().err == ""
