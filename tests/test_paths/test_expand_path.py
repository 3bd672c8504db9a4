"""Expand ``~`` and variables in paths: in a function, in a config and on all three command lines."""

from pathlib import Path

import pytest
import yaml

import data_prep.cli
import eval.cli
from bimodal_cl import train
from bimodal_cl.config.yaml_files import load_config, save_config
from bimodal_cl.files.paths import expand_path
from tests.refusals import read_mistake, refused


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Set a home, a variable and an empty working directory, where a folder named ``~`` would be noticed."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    monkeypatch.delenv("NOWHERE", raising=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("~/runs/a", "{0}/home/runs/a"),
        ("~", "{0}/home"),
        ("$DATA/a", "{0}/data/a"),
        ("${{DATA}}/a", "{0}/data/a"),
        ("a/$DATA", "a/{0}/data"),
        ("local-dir:~/export", "local-dir:{0}/home/export"),
        ("s3://bucket/$DATA/x/", "s3://bucket/{0}/data/x/"),
        ("shards/", "shards/"),
        ("laion2b_s34b_b79k", "laion2b_s34b_b79k"),
        ("a~b/c", "a~b/c"),
        ("price$", "price$"),
        ("train-{{0000..0009}}.tar", "train-{{0000..0009}}.tar"),
        ("pipe:cat $NOWHERE/~", "pipe:cat $NOWHERE/~"),
    ],
)
def test_paths_are_expanded_as_in_a_shell(text, expected, tmp_path):
    assert expand_path(text.format(tmp_path)) == expected.format(tmp_path)


def test_a_path_that_exists_with_its_dollar_is_that_path():
    Path("a$NOWHERE").mkdir()
    assert expand_path("a$NOWHERE") == "a$NOWHERE"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$NOWHERE/a", r"the variable \$NOWHERE is not set"),
        ("a/${NOWHERE}", r"the variable \$NOWHERE is not set"),
        ("~nobody-of-that-name/a", "no user whose home ~nobody-of-that-name"),
        ("", "the path is empty"),
        (" ", "the path is empty"),
        ("local-dir:", "the path is empty"),
    ],
)
def test_paths_that_cannot_be_expanded_are_refused_by_name(text, expected):
    with refused(expected):
        expand_path(text)


CONFIG = {
    "output": "~/run",
    "data": {
        "train": ["$DATA/one", {"folder": "~/two", "repeat": 2}],
        "val": "~/val",
        "zero_shot": "${DATA}/classes",
        "cache_dir": "~/cache",
    },
    "model": {
        "pretrained": "~/weights.pt",
        "embed_dim": 8,
        "image_size": 32,
        "vision": {"timm_model_name": "test_resnet"},
        "text": {"hf_model_name": "$DATA/bert", "hf_tokenizer_name": "~/tokenizer"},
    },
    "loss": {"name": "clip"},
    "train": {"num_epochs": 1},
}


def test_every_path_of_a_config_is_expanded_and_stored_so(tmp_path):
    Path("run.yaml").write_text(yaml.safe_dump(CONFIG))
    config = load_config("run.yaml")
    home, data = f"{tmp_path}/home", f"{tmp_path}/data"
    assert config.output == f"{home}/run"
    assert [one.folder for one in config.data.train] == [f"{data}/one", f"{home}/two"]
    assert (config.data.val, config.data.zero_shot) == (f"{home}/val", f"{data}/classes")
    assert (config.data.cache_dir, config.model.pretrained) == (f"{home}/cache", f"{home}/weights.pt")
    assert config.model.text is not None
    assert config.model.text.hf_model_name == f"{data}/bert"
    assert config.model.text.hf_tokenizer_name == f"{home}/tokenizer"
    save_config(config, Path("saved.yaml"))
    assert "~" not in Path("saved.yaml").read_text() and load_config("saved.yaml") == config


@pytest.mark.parametrize(
    ("flags", "where"),
    [
        (["--data.val", "$NOWHERE/val"], "--data.val"),
        (["--data.train=$NOWHERE/x"], "--data.train"),
        (["--output", "$NOWHERE"], "--output"),
        (["--resume", "$NOWHERE/step"], "argument --resume"),
        (["--config", "$NOWHERE/more.yaml"], "argument --config"),
    ],
)
def test_an_unset_variable_is_named_with_its_flag(flags, where, capsys):
    Path("run.yaml").write_text(yaml.safe_dump(CONFIG))
    line = read_mistake(capsys, train.main, "--config", "run.yaml", *flags)
    assert where in line and "the variable $NOWHERE is not set" in line


def test_an_unset_variable_is_named_with_file_and_key(capsys):
    Path("run.yaml").write_text(yaml.safe_dump({**CONFIG, "output": "$NOWHERE/run"}))
    line = read_mistake(capsys, train.main, "--config", "run.yaml")
    assert line.startswith("error: run.yaml: output: the variable $NOWHERE is not set")


def test_config_files_are_found_in_the_home(tmp_path, capsys):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "run.yaml").write_text(yaml.safe_dump(CONFIG))
    assert train.main(["--config=~/run.yaml", "--print-config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["output"] == f"{tmp_path}/home/run"


def test_prep_writes_to_the_home_and_makes_no_folder_called_tilde(tmp_path, capsys):
    argv = ["write", "synthetic", "--to=~/shapes", "--num-train", "384", "--num-val", "1", "--num-retrieval", "8"]
    assert data_prep.cli.main([*argv, "--images-per-concept", "1"]) == 0
    assert (tmp_path / "home" / "shapes" / "train" / "manifest.json").is_file()
    assert data_prep.cli.main(["index", "~/shapes/train/*.tar", "--to", "$DATA"]) == 0
    assert (tmp_path / "data" / "manifest.json").is_file()
    assert data_prep.cli.main(["verify", "~/shapes/train"]) == 0
    assert not any(Path().iterdir())


@pytest.mark.parametrize(
    ("main", "argv", "where"),
    [
        (data_prep.cli.main, ["index", "$NOWHERE/*.tar"], "argument SHARDS"),
        (data_prep.cli.main, ["verify", "$NOWHERE"], "argument DIR"),
        (data_prep.cli.main, ["write", "folder", "--images", "$NOWHERE", "--to", "x"], "argument --images"),
        (data_prep.cli.main, ["write", "hf", "--dataset", "$NOWHERE", "--to", "x"], "argument --dataset"),
        (eval.cli.main, ["retrieval", "$NOWHERE/run", "--data", "x"], "argument MODEL"),
        (eval.cli.main, ["retrieval", "run", "--data", "$NOWHERE"], "argument --data"),
        (eval.cli.main, ["zero-shot", "run", "--data", "x", "--templates", "$NOWHERE"], "argument --templates"),
        (eval.cli.main, ["report", "$NOWHERE"], "argument RUN"),
        (eval.cli.main, ["temperatures", "x", "--to", "$NOWHERE"], "argument --to"),
    ],
)
def test_other_commands_name_the_argument(main, argv, where, capsys):
    line = read_mistake(capsys, main, *argv)
    assert where in line and "the variable $NOWHERE is not set" in line


def test_the_file_of_arguments_may_hold_such_paths_too(tmp_path, capsys):
    Path("eval.yaml").write_text("models: ['~/run']\ndata: $DATA/val\nto: ~/results\n")
    assert eval.cli.main(["retrieval", "--config", "eval.yaml", "--print-config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["models"], printed["data"]) == ([f"{tmp_path}/home/run"], f"{tmp_path}/data/val")
    assert printed["to"] == f"{tmp_path}/home/results"
    Path("eval.yaml").write_text("data: $NOWHERE/val\n")
    line = read_mistake(capsys, eval.cli.main, "retrieval", "x", "--config", "eval.yaml")
    assert "eval.yaml: data: the variable $NOWHERE is not set" in line


@pytest.mark.parametrize(
    ("main", "argv", "where"),
    [
        (train.main, ["--config", "run.yaml", "--output", ""], "--output: the path is empty"),
        (train.main, ["--config", "run.yaml", "--data.train="], "--data.train: 0.folder: the path is empty"),
        (train.main, ["--config", "run.yaml", "--resume", ""], "argument --resume: the path is empty"),
        (data_prep.cli.main, ["write", "folder", "--images", "here", "--to", ""], "argument --to: the path is empty"),
        (data_prep.cli.main, ["index", ""], "argument SHARDS: the path is empty"),
        (eval.cli.main, ["retrieval", "run", "--data", ""], "argument --data: the path is empty"),
    ],
)
def test_an_empty_path_is_not_the_current_folder(main, argv, where, capsys):
    """A script's ``--to "$FOLDER"`` gives an empty path if FOLDER is empty."""
    Path("run.yaml").write_text(yaml.safe_dump(CONFIG))
    assert where in read_mistake(capsys, main, *argv)
    assert [each.name for each in Path().iterdir()] == ["run.yaml"]
