"""The walked examples of CONTRIBUTING.md work as they are written: each block's code runs in the place that it names."""

import importlib
import re
import sys
import types

import pytest
from test_docs.pages import ROOT, code_blocks

from bimodal_cl.losses import family
from data_prep.sources import SOURCES

BLOCKS = dict(
    re.match(r"# (\S+\.py)\n(.*)", code, re.DOTALL).groups() for code in code_blocks(ROOT / "CONTRIBUTING.md", "python")
)


def new_module(monkeypatch, path):
    """Run a block as the module of a new file."""
    assert (ROOT / path).parent.is_dir()
    assert not (ROOT / path).exists()
    module = types.ModuleType(path.removesuffix(".py").replace("/", "."))
    module.__package__ = module.__name__.rpartition(".")[0]
    module.__file__ = str(ROOT / path)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(BLOCKS[path], path, "exec"), vars(module))
    return module
