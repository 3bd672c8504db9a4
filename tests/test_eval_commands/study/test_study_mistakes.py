"""Mistakes in a study's file end the command before anything starts, in one line with status 2."""

from __future__ import annotations

import pytest
import yaml

from eval.cli import main
from tests.refusals import read_mistake
from tests.test_eval_commands.study.conftest import STUDY

CLIP = STUDY["methods"]["clip"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metods": {}}, "study.yaml: metods: unknown key; did you mean 'methods'?"),
        ({"final": {"seed": [1]}}, "study.yaml: final.seed: unknown key; did you mean 'seeds'?"),
        ({"final": {"seeds": [1, 1]}}, "study.yaml: final.seeds: a seed is given twice"),
        ({"methods": {"clip": {"gird": {}}}}, "study.yaml: methods.clip.gird: unknown key; did you mean 'grid'?"),
        ({"methods": {"clip": {"grid": {"loss.tau_init": 3}}}}, "loss.tau_init should be a list of values, got 3"),
        ({"methods": {"clip": {"loss": {"tau_init": 1}}}}, "study.yaml: methods.clip.loss: replaces the whole section"),
        ({"methods": {"a vs b": {}}}, "the name 'a vs b' may hold none of"),
        (
            {"methods": {"clip": {**CLIP, "grid": {"loss.tau_inti": [1]}}}},
            "study.yaml: methods.clip: loss.tau_inti: unknown key of loss 'clip'; did you mean 'tau_init'?",
        ),
        ({"methods": {"clip": {"loss": {"name": "clop"}}}}, "study.yaml: methods.clip: loss.name: unknown loss 'clop'"),
        ({"methods": {"clip": {"grid": {"loss.tau_init": [-1]}}}}, "methods.clip: loss.tau_init"),
        ({"axes": {"train.global_batch_size": [1]}}, "methods.clip: train.global_batch_size=1: a single pair"),
        ({"axes": {"train.global_batch_size": 8}}, "train.global_batch_size should be a list of its values"),
        ({"axes": {"train.global_batch_size": [8, 8]}}, "train.global_batch_size has a value twice"),
        ({"axes": {"size": {"small": {"methods": ["clap"]}}}}, "axes.size.small.methods: no method 'clap'"),
        ({"axes": {"size": {"small": {"methods": ["clip"]}}}}, "methods.sogclr: the axes' lists of methods leave it"),
        ({"axes": {"size": {"small": {"grid": {"optim.beta2": 0.9}}}}}, "optim.beta2 should be a list of values"),
        ({"axes": {"size": {"small": {"grid": {"loss.tau_init": [1]}}}}}, "methods.clip: loss.tau_init is in the grid"),
        ({"overrides": {"seed": 1}}, "study.yaml: overrides: seed cannot be set here: tune.seeds and final.seeds"),
        ({"methods": {"clip": {"grid": {"output": ["a"]}}}}, "methods.clip.grid: output cannot be set here"),
        ({"overrides": {"data.val": None}}, "methods.clip: data.val is missing"),
        ({"compare": ["clip vs macl"]}, "compare: 'clip vs macl': no method 'macl'"),
        ({"compare": ["clip@4 vs clip@16"]}, "no '16' among the axes"),
        ({"compare": ["clip"]}, "should be 'METHOD vs METHOD'"),
        ({"test": {"data": "shards/tset"}}, "shards/tset"),
        ({"overrides": {"data.train": "shards/trian"}}, "shards/trian"),
        ({"score": "rsum"}, "score: no score 'rsum'"),
        ({"score": "ema/retrieval/rsum"}, "needs ema.decay"),
        ({"score": "zero_shot/acc1"}, "needs data.zero_shot"),
        ({"score": "retrieval/recall"}, "study.yaml: score: no score 'retrieval/recall'"),
        ({"score": "retrieval/image_retrieval_mean_rank"}, "smaller is better"),
        ({"base": "bsae.yaml"}, "did you mean"),
        ({"extends": "stduy.yaml"}, "stduy.yaml; did you mean"),
        ({"extends": "study.yaml"}, "study.yaml extends study.yaml; one that extends none"),
        ({"extend": "base.yaml"}, "study.yaml: extend: unknown key; did you mean 'extends'?"),
    ],
)
def test_mistakes_are_one_line(changes, message, write_study, capsys, project):
    assert message in read_mistake(capsys, main, "study", str(write_study(**changes)))
    assert not (project / "studies").exists()


def test_a_mistake_in_an_extended_file_is_said_of_it(write_study, capsys, project):
    write_study(methods={"clip": {"gird": {}}})
    (project / "longer.yaml").write_text("extends: study.yaml\noutput: studies/longer\n")
    assert "study.yaml: methods.clip.gird: unknown key" in read_mistake(capsys, main, "study", "longer.yaml")


def test_flags_are_checked(write_study, capsys, project):
    path = str(write_study())
    assert "no method 'clap'" in read_mistake(capsys, main, "study", path, "--only", "clap")
    assert "holds no runs yet" in read_mistake(capsys, main, "study", path, "--render")
    assert "study file not found" in read_mistake(capsys, main, "study", str(project / "stduy.yaml"))


def test_listing_starts_nothing(write_study, capsys, project):
    assert main(["study", str(write_study()), "--list"]) == 0
    shown = capsys.readouterr().out
    assert "0 runs are done, 16 are to do" in shown
    assert "tune clip, global batch size 4, tau_init 0.05, seed 0" in shown
    assert not (project / "studies").exists()


def test_a_study_file_is_yaml(project, capsys):
    (project / "study.yaml").write_text(yaml.safe_dump([1]))
    assert "should be a mapping" in read_mistake(capsys, main, "study", "study.yaml")
