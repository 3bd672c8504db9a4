"""A tiny study: shards of colours, a base config that trains in seconds, and a file that tunes two losses."""

from __future__ import annotations

import pytest
import yaml

from eval.study.runs import expand
from eval.study.settings import read_study
from tests.test_data.tiny_shards import write_manifest, write_tar
from tests.test_eval_commands.conftest import COLOURS, as_png, draw

BASE = {
    "output": "unused",
    "data": {"train": "shards/train", "val": "shards/val", "num_workers": 0},
    "model": {
        "image_size": 16,
        "embed_dim": 8,
        "vision": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text": {"context_length": 12, "width": 32, "heads": 2, "layers": 1},
    },
    "loss": {"name": "clip"},
    "optim": {"learning_rate": 1.0e-3, "warmup_steps": 1},
    "train": {"num_steps": 3, "global_batch_size": 8, "log_every": 1, "evaluate_every": 3},
    "checkpoint": {"keep_last": 1},
}
STUDY = {
    "output": "studies/tiny",
    "base": "base.yaml",
    "score": "retrieval/image_retrieval_recall@5",
    "final": {"seeds": [1, 2]},
    "test": {"data": "shards/test"},
    "axes": {"train.global_batch_size": [4, 8]},
    "methods": {
        "clip": {"loss": {"name": "clip"}, "grid": {"loss.tau_init": [0.05, 0.1]}},
        "sogclr": {"loss": {"name": "sogclr"}, "grid": [{"loss.tau": 0.05}, {"loss.tau": 0.1}]},
    },
}


def write_colours(folder, num_images, first=0):
    members = []
    for row in range(num_images):
        colour = list(COLOURS)[row % len(COLOURS)]
        members += [
            (f"{row:04d}.png", as_png(draw(colour, first + row))),
            (f"{row:04d}.txt", f"{colour} {row}".encode()),
        ]
    write_tar(folder / "00000.tar", members)
    write_manifest(folder, [("00000.tar", num_images, num_images)])


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A working directory with shards for all splits and a base config."""
    for number, (split, size) in enumerate({"train": 32, "val": 12, "test": 12}.items()):
        write_colours(tmp_path / "shards" / split, size, first=100 * number)
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write_study(project):
    """Write a study's file with changes of some of its keys, and return its path."""

    def write(**changes):
        path = project / "study.yaml"
        path.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
        return path

    return write


@pytest.fixture
def expand_study(write_study):
    """Write a study's file, and expand it."""

    def expanded(**changes):
        path = write_study(**changes)
        settings = read_study(path)
        return expand(settings, path, path.parent / settings.output)

    return expanded


def make_outcome(val=0.5, **more):
    """Return what a worker would say of a run with a validation score."""
    return {"val": {STUDY["score"]: val}, "log": {}, "steps": 3, "seconds": 2.0, "resumed": False, **more}
