"""A mistake in YAML or flags gives one line with its source, the dotted key and the nearest valid one."""

import pytest

from bimodal_cl.losses import LOSSES


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"loss": {"name": "isogclr", "roh": 6}}, "loss.roh: unknown key of loss 'isogclr'; did you mean 'rho'?"),
        ({"los": {}}, "los: unknown key; did you mean 'loss'?"),
        ({"optim": {"lerning_rate": 1}}, "optim.lerning_rate: unknown key; did you mean 'learning_rate'?"),
        ({"model": {"name": "RN50", "image_sizes": 3}}, "model.image_sizes: unknown key; did you mean 'image_size'?"),
        ({"loss": {"name": "isogcrl"}}, "loss.name: unknown loss 'isogcrl'; did you mean 'isogclr'?"),
        ({"loss": {"rho": 1}}, f"loss.name is missing; valid: {', '.join(sorted(LOSSES))}"),
        ({"loss": {"name": "macl", "rho": 1}}, "loss.rho: unknown key of loss 'macl'"),
        ({"loss": {"name": "clip", "tau_init": -1}}, "loss.tau_init: input should be greater than 0, got -1"),
        ({"data": {}}, "data.train is missing"),
        ({"train": {}}, "train: give one of num_epochs and num_steps"),
        ({"model": {}}, "model: give model.name, or all of embed_dim, image_size, vision, text"),
        ({"data": {"train": "x", "crop_scale": [0.9, 0.2]}}, "data: crop_scale=[0.9, 0.2] must be"),
        ({"checkpoint": {"best": "retrieval/x"}}, "needs data.val or data.zero_shot"),
    ],
)
def test_yaml_mistakes_name_file_key_and_nearest(write, refusal, changes, expected):
    path = write(**changes)
    line = refusal("--config", path)
    assert line.startswith(f"error: {path}: ")
    assert expected in line


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--loss.roh", "7"], "unknown flag '--loss.roh'; did you mean '--loss.rho'?"),
        (["--loss.rho", "-7"], "--loss.rho: input should be greater than or equal to 0, got '-7'"),
        (["--loss.rho", "much"], "--loss.rho: input should be a valid number"),
        (["--loss.name", "sogcrl"], "--loss.name: unknown loss 'sogcrl'; did you mean 'sogclr'?"),
        (["--loss.tau_base", "0.1"], "--loss.tau_base: unknown key of loss 'isogclr'"),
        (["--train.num_steps", "5"], "give one of num_epochs and num_steps"),
        (["--data.crop_scale", "[0.5, 2]"], "--data.crop_scale: input should be less than or equal to 1, got 2"),
        (["--data.crop_scale", "[0.5, 2"], "--data.crop_scale: '[0.5, 2' is not a valid YAML list or mapping"),
    ],
)
def test_flag_mistakes_name_the_flag(write, refusal, flags, expected):
    assert expected in refusal("--config", write(), *flags)


def test_missing_file_names_the_nearest(tmp_path, write, refusal):
    write()
    line = refusal("--config", str(tmp_path / "rum.yaml"))
    assert line == f"error: config file not found: {tmp_path}/rum.yaml; did you mean '{tmp_path}/run.yaml'?"


def test_broken_yaml_names_the_line(tmp_path, refusal):
    path = tmp_path / "run.yaml"
    path.write_text("output: a\nloss: {name: clip\ntrain: {}\n")
    assert refusal("--config", path).startswith(f"error: {path}:3: not valid YAML")


def test_a_key_given_twice_is_refused(tmp_path, refusal):
    path = tmp_path / "run.yaml"
    path.write_text("output: a\nseed: 1\nseed: 2\n")
    assert "key 'seed' is given twice" in refusal("--config", path)


def test_a_missing_config_flag_is_one_line(refusal):
    assert "--config" in refusal()


def test_missing_data_and_unwritable_output_are_one_line(tmp_path, write, refusal):
    path = write(output=str(tmp_path / "run"), data={"train": str(tmp_path / "nothing")})
    assert str(tmp_path / "nothing") in refusal("--config", path)
    file = tmp_path / "file"
    file.write_text("")
    path = write(output=str(file / "run"))
    assert f"{file}/run cannot be written: {file} is a file" in refusal("--config", path)


def test_a_folder_that_holds_a_run_is_not_written_over(tmp_path, write, refusal):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("")
    path = write(output=str(tmp_path / "run"))
    assert "already holds a run; continue it with --resume latest" in refusal("--config", path)


def test_a_mistake_between_keys_names_the_flags_of_the_section(write, refusal):
    line = refusal("--config", write(), "--loss.tau_min", "0.5", "--loss.tau_max", "0.05")
    assert line.endswith("with --loss.tau_min, --loss.tau_max: loss: tau_min=0.5 must not exceed tau_max=0.05")
