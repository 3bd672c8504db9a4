"""Later config files override earlier ones, among them the loss fragments of ``configs/loss``."""

import warnings
from pathlib import Path

import pytest
import yaml

from bimodal_cl import train
from bimodal_cl.config.yaml_files import load_config, save_config
from bimodal_cl.errors import UserError
from bimodal_cl.losses import LOSSES, build_loss

ROOT = Path(__file__).parents[2]
FRAGMENTS = sorted((ROOT / "configs" / "loss").glob("*.yaml"))
RUN = ROOT / "configs" / "train" / "flickr8k_isogclr.yaml"


def write(folder: Path, name: str, **values: object) -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write(
        tmp_path,
        "run.yaml",
        output="run",
        data={"train": "shards", "num_workers": 3},
        model={"name": "RN50"},
        loss={"name": "isogclr", "rho": 2.0, "tile_size": 64},
        train={"num_epochs": 1},
    )


def refusal(*argv: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert train.main(list(argv)) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    return captured.err.strip()


def test_later_files_win_key_by_key(run, tmp_path):
    second = write(tmp_path, "second.yaml", data={"num_workers": 1, "flip": True}, seed=4)
    third = write(tmp_path, "third.yaml", data={"flip": False}, train={"global_batch_size": 32})
    config = load_config([run, second, third])
    assert (config.data.train[0].folder, config.data.num_workers, config.data.flip) == ("shards", 1, False)
    assert (config.seed, config.train.num_epochs, config.train.global_batch_size) == (4, 1, 32)
    assert config.loss.rho == 2.0


def test_a_later_loss_replaces_the_whole_section(run, tmp_path):
    """A later loss replaces the section even if the name is the same; no key of the first file remains."""
    other = write(tmp_path, "loss.yaml", loss={"name": "clip", "tau_init": 0.05})
    config = load_config([run, other])
    assert (config.loss.name, config.loss.tau_init, config.loss.tile_size) == ("clip", 0.05, "auto")
    same = write(tmp_path, "same.yaml", loss={"name": "isogclr", "gamma": 0.5})
    config = load_config([run, same])
    assert (config.loss.gamma, config.loss.rho, config.loss.tile_size) == (0.5, 6.0, "auto")


def test_flags_win_over_all_files(run, tmp_path):
    other = write(tmp_path, "loss.yaml", loss={"name": "clip", "tau_init": 0.05})
    assert load_config([run, other], {("loss", "tau_init"): "0.2"}).loss.tau_init == 0.2


@pytest.mark.parametrize(
    ("first", "second", "blamed", "expected"),
    [
        ({}, {"loss": {"name": "clip", "rho": 1}}, "second", "loss.rho: unknown key of loss 'clip'"),
        ({"loss": {"name": "quux"}}, {"seed": 1}, "first", "loss.name: unknown loss 'quux'"),
        ({"loss": {"name": "quux"}}, {"loss": {"name": "clap"}}, "second", "unknown loss 'clap'; did you mean 'clip'?"),
        ({}, {"loss": {"rho": 1}}, "second", "loss.name is missing"),
        ({"seed": -1}, {"data": {"flip": True}}, "first", "seed: input should be greater than or equal to 0"),
        ({"data": {"train": "x", "num_workers": -1}}, {"data": {"flip": True}}, "first", "data.num_workers: "),
        ({}, {"data": {"fliip": True}}, "second", "data.fliip: unknown key; did you mean 'flip'?"),
        ({}, {"data": {"crop_scale": [0.5, 2]}}, "second", "data.crop_scale.1: input should be less than"),
        ({}, {"train": {"num_steps": 3}}, "second", "train: give one of num_epochs and num_steps"),
        ({"train": {}}, {"seed": 1}, "first", "train: give one of num_epochs and num_steps"),
    ],
)
def test_mistakes_name_the_file_they_are_in(run, tmp_path, capsys, first, second, blamed, expected):
    paths = {
        "first": write(tmp_path, "first.yaml", **{**yaml.safe_load(run.read_text()), **first}),
        "second": write(tmp_path, "second.yaml", **second),
    }
    line = refusal("--config", str(paths["first"]), "--config", str(paths["second"]), capsys=capsys)
    assert line.startswith(f"error: {paths[blamed]}: ")
    assert expected in line


def test_a_second_file_that_is_missing_or_broken_is_named(run, tmp_path, capsys):
    line = refusal("--config", str(run), "--config", str(tmp_path / "rum.yaml"), capsys=capsys)
    assert line == f"error: config file not found: {tmp_path}/rum.yaml; did you mean '{run}'?"
    (tmp_path / "broken.yaml").write_text("loss: {name: clip\nseed: 1\n")
    line = refusal("--config", str(run), "--config", str(tmp_path / "broken.yaml"), capsys=capsys)
    assert line.startswith(f"error: {tmp_path}/broken.yaml:2: not valid YAML")


def test_a_fragment_alone_is_no_run(capsys):
    line = refusal("--config", str(FRAGMENTS[0]), capsys=capsys)
    assert line.startswith(f"error: {FRAGMENTS[0]}: output is missing")


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.stem)
def test_fragments_hold_a_loss_that_can_be_built(path, tmp_path):
    assert list(yaml.safe_load(path.read_text())) == ["loss"]
    text = path.read_text()
    assert "# Source: " in text
    assert f"--config RUN.yaml --config configs/loss/{path.name}" in text
    config = load_config([RUN, path])
    assert config.model == load_config(RUN).model
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss = build_loss(num_images=4, num_texts=4, **config.loss.model_dump(mode="json"))
    assert loss.settings == config.loss


def test_there_are_fragments_for_every_loss_and_for_fastclip():
    names = {yaml.safe_load(path.read_text())["loss"]["name"] for path in FRAGMENTS}
    assert names == set(LOSSES)
    assert {f"fastclip_v{version}" for version in (1, 2, 3)} <= {path.stem for path in FRAGMENTS}


def test_fragments_through_the_command(capsys):
    fragment = ROOT / "configs" / "loss" / "fastclip_v3.yaml"
    flags = ["--optim.temperature_learning_rate", "2e-4", "--print-config"]
    assert train.main(["--config", str(RUN), "--config", str(fragment), *flags]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["loss"]["name"] == "rgcl_g"
    assert printed["optim"]["temperature_learning_rate"] == 2e-4


def test_a_later_section_that_is_no_mapping_is_refused(run, tmp_path):
    bad = write(tmp_path, "bad.yaml", loss="clip")
    with pytest.raises(UserError, match=r"bad\.yaml: loss: "):
        load_config([run, bad])
    with pytest.raises(UserError, match=r"bad\.yaml: loss: should be a mapping, got 'clip'"):
        load_config([run, bad], {("loss", "rho"): "1"})
