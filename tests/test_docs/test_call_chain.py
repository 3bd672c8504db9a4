"""The README names the calls from the command to the arithmetic; a run takes exactly these."""

import re
import sys
import traceback
from itertools import groupby
from pathlib import Path

import pytest

from bimodal_cl.losses.margin import torch_kernel
from bimodal_cl.train import main
from data_prep.cli import main as prep
from tests.test_docs.pages import ROOT, read


class Reached(Exception):
    pass


def readme_chain():
    (paragraph,) = re.findall(r"^From the command to the arithmetic.*?\n\n", read(ROOT / "README.md"), re.DOTALL | re.M)
    return re.findall(r"`([\w.]+)`", paragraph)


def test_the_readme_names_the_calls_of_a_step(tmp_path, monkeypatch):
    calls = []

    def stop(*_):
        frames = traceback.extract_stack(sys._getframe(1))
        calls.extend(f.name for f in frames if Path(f.filename).is_relative_to(ROOT / "bimodal_cl"))
        raise Reached

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(torch_kernel, "sum_tiles", stop)
    sizes = {"--num-train": 384, "--num-val": 4, "--num-retrieval": 4, "--images-per-concept": 1}
    words = [str(word) for size in sizes.items() for word in size]
    assert prep(["write", "synthetic", "--to", str(tmp_path / "data"), "--num-workers", "1", *words]) == 0
    settings = ["--data.train", str(tmp_path / "data" / "train"), "--data.val", "null", "--data.num_workers", "0"]
    with pytest.raises(Reached):
        main(["--config", "configs/train/quickstart.yaml", "--output", str(tmp_path / "run"), *settings])
    chain = readme_chain()
    assert [*(name for name, _ in groupby(calls)), "sum_tiles"] == [name.rpartition(".")[2] for name in chain]
    assert len(chain) - 1 <= 6
