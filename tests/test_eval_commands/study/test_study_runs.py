"""A study's file becomes runs: Cartesian grids, axes, the order of what is laid over what, names and hashes."""

from __future__ import annotations

from eval.study.runs import expand
from eval.study.settings import read_study
from tests.test_eval_commands.study.conftest import STUDY


def test_every_method_is_run_at_every_combination_and_point(expand_study):
    axes = {"train.global_batch_size": [4, 8], "optim.weight_decay": [0.0, 0.1, 0.2]}
    grid = {"loss.tau_init": [0.05, 0.1], "optim.learning_rate": [1e-3, 1e-2]}
    study = expand_study(axes=axes, methods={"clip": {"grid": grid}, "one": {}}, tune={"seeds": [0, 7]})
    assert len(study.cells) == 2 * 2 * 3
    clip, one = study.cells[0], study.cells[1]
    assert [tuple(each.values()) for each in clip.points] == [(0.05, 1e-3), (0.05, 1e-2), (0.1, 1e-3), (0.1, 1e-2)]
    runs = study.tuning(clip)
    assert len(runs) == 4 * 2
    assert {(each.config.loss.tau_init, each.config.optim.learning_rate, each.seed) for each in runs} == {
        (tau, rate, seed) for tau in (0.05, 0.1) for rate in (1e-3, 1e-2) for seed in (0, 7)
    }
    assert study.tuning(one) == []  # a single point needs no choice
    assert [each.seed for each in study.finals(one, 0)] == [1, 2]
    assert {each.config.train.global_batch_size for each in (study.finals(cell, 0)[0] for cell in study.cells)} == {
        4,
        8,
    }


def test_a_named_axis_holds_several_settings(expand_study):
    axes = {"size": {"small": {"train": {"global_batch_size": 4, "num_steps": 2}}, "large": {}}}
    study = expand_study(axes=axes)
    small, large = (study.finals(each, 0)[0].config.train for each in study.cells[::2])
    assert (small.global_batch_size, small.num_steps) == (4, 2)
    assert (large.global_batch_size, large.num_steps) == (8, 3)
    assert study.cells[0].describe() == "clip, size small"


def test_an_axis_value_has_a_grid_and_methods_of_its_own(expand_study):
    small = {"train.global_batch_size": 4, "grid": {"optim.learning_rate": [1e-3, 1e-2]}, "methods": ["clip"]}
    large = {"train.global_batch_size": 8, "grid": [{"optim.learning_rate": 0.1, "optim.weight_decay": 0.2}]}
    study = expand_study(axes={"size": {"small": small, "large": large}})
    assert [each.key for each in study.cells] == [("clip", "small"), ("clip", "large"), ("sogclr", "large")]
    points = [tuple(point.values()) for point in study.cells[0].points]
    assert points == [(0.05, 1e-3), (0.05, 1e-2), (0.1, 1e-3), (0.1, 1e-2)]
    assert study.cells[2].points[1] == {"loss.tau": 0.1, "optim.learning_rate": 0.1, "optim.weight_decay": 0.2}
    assert [each.config.optim.learning_rate for each in study.tuning(study.cells[0])] == [1e-3, 1e-2] * 2


def test_a_file_extends_another(write_study, project):
    other = project / "other"
    other.mkdir()
    extending = other / "longer.yaml"
    extending.write_text("extends: ../study.yaml\noutput: studies/longer\naxes: {}\noverrides: {train.num_steps: 9}\n")
    write_study(overrides={"optim.weight_decay": 0.3})
    settings = read_study(extending)
    study = expand(settings, extending, project / settings.output)
    config = study.finals(study.cells[0], 0)[0].config
    assert [each.key for each in study.cells] == [("clip",), ("sogclr",)]
    assert (config.train.num_steps, config.train.global_batch_size) == (9, 8)
    assert config.optim.weight_decay != 0.3  # keys are replaced as a whole
    assert str(study.output).endswith("studies/longer")


def test_what_is_laid_over_what(expand_study):
    study = expand_study(
        overrides={"train.num_steps": 5, "loss.tau_min": 0.02, "optim.weight_decay": 0.3},
        methods={
            "clip": {
                "loss": {"name": "clip", "tau_init": 0.2},
                "overrides": {"train.num_steps": 6},
                "grid": {"loss.tau_min": [0.03]},
            }
        },
        final={"seeds": [1], "overrides": {"train.num_steps": 9}},
        tune={"seeds": [3], "overrides": {"optim.weight_decay": 0.4}},
    )
    cell = study.cells[0]
    final = study.finals(cell, 0)[0].config
    assert (final.train.num_steps, final.optim.weight_decay, final.train.global_batch_size) == (9, 0.3, 4)
    assert (final.loss.tau_init, final.loss.tau_min) == (0.2, 0.03)
    assert study.recipes[cell.key, 0, "tune"][0].train.num_steps == 6
    assert study.recipes[cell.key, 0, "tune"][0].optim.weight_decay == 0.4


def test_a_recipe_is_told_by_its_config_and_not_by_seed_folder_or_order(expand_study):
    study = expand_study()
    cell = study.cells[0]
    tune, final = study.tuning(cell), study.finals(cell, 0)
    assert len({each.recipe for each in tune}) == 2
    assert tune[0].recipe == final[0].recipe == final[1].recipe
    assert tune[0].folder != final[0].folder
    longer = expand_study(final={"seeds": [1, 2], "overrides": {"train.num_steps": 4}})
    assert longer.tuning(cell)[0].recipe == tune[0].recipe
    assert longer.finals(cell, 0)[0].recipe != final[0].recipe
    defaults = expand_study(overrides={"optim.beta2": 0.98})  # what it is anyway
    assert defaults.tuning(cell)[0].recipe == tune[0].recipe


def test_folders_have_readable_and_different_names(expand_study):
    study = expand_study()
    runs = [run for cell in study.cells for run in [*study.tuning(cell), *study.finals(cell, 0)]]
    names = {each.folder.name for each in runs}
    assert len(names) == 4 * (2 + 2)
    assert any(each.startswith("clip-global_batch_size=4-tau_init=0.05-") and each.endswith("_s0") for each in names)
    assert {each.folder.parent for each in runs} == {study.output / "runs"}


def test_only_takes_some_methods(expand_study):
    assert {each.method for each in expand_study().only(["sogclr"]).cells} == {"sogclr"}
    assert {each.method for each in expand_study().cells} == set(STUDY["methods"])
