"""The walked examples of CONTRIBUTING.md work as they are written.

The code of a new file runs as the module that the file would be, then the tests of the example run.
"""

import inspect
import re
import sys
import types
from functools import partial
from pathlib import Path

import pytest

from bimodal_cl import metrics
from bimodal_cl.cli.sub_commands import Command
from bimodal_cl.losses.module import registry
from bimodal_cl.metrics import retrieval
from data_prep import sources
from data_prep.write_command import WRITE, WriteCommand
from tests.test_docs.pages import ROOT, code_blocks
from tests.test_layout.test_layout import MOST_MODULES

CODE = dict(
    re.match(r"# (\S+\.py)\n(.*)", code, re.DOTALL).groups() for code in code_blocks(ROOT / "CONTRIBUTING.md", "python")
)


@pytest.fixture
def add_file(monkeypatch):
    """Run a block as the new file that it names, and return the module."""

    def add(path):
        assert (ROOT / path).parent.is_dir()
        assert len(list((ROOT / path).parent.glob("*.py"))) < MOST_MODULES, "the example would not fit into its folder"
        assert not (ROOT / path).exists(), "an example that is kept is replaced by another one"
        module = types.ModuleType(path.removesuffix(".py").replace("/", "."))
        module.__package__ = module.__name__.rpartition(".")[0]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(CODE[path], path, "exec"), vars(module))
        assert inspect.getdoc(module)
        return module

    return add


def run_tests(module, request):
    """Call the test functions of a module, with their fixtures and each of their parameters."""
    for name, test in vars(module).items():
        if not name.startswith("test_"):
            continue
        cases = [dict(zip(inspect.signature(test).parameters, case, strict=True)) for case in parameters_of(test)]
        for case in cases or [{}]:
            fixtures = {
                key: request.getfixturevalue(key) for key in inspect.signature(test).parameters if key not in case
            }
            test(**case, **fixtures)


def parameters_of(test):
    return [case for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize" for case in mark.args[1]]


def test_the_loss(add_file, request, monkeypatch):
    loss = add_file("bimodal_cl/losses/tau_cosine.py").TauCosine
    monkeypatch.setitem(registry.LOSS_SETTINGS, "tau_cosine", loss)
    run_tests(add_file("tests/test_losses/by_name/test_tau_cosine.py"), request)


def test_the_source(add_file, request, monkeypatch):
    source = add_file("data_prep/sources/named_images.py")
    monkeypatch.setitem(sources.SOURCES, "named-images", source)
    command = Command(source.SUMMARY, partial(WriteCommand, "named-images"))
    monkeypatch.setitem(WRITE.commands, "named-images", command)  # as SOURCES when it is imported
    run_tests(add_file("tests/test_data_prep/sources/test_named_images.py"), request)


def test_the_metric(add_file, request, monkeypatch):
    exec(CODE["bimodal_cl/metrics/retrieval.py"], vars(retrieval), added := {})
    monkeypatch.setattr(metrics, "mean_reciprocal_rank", added["mean_reciprocal_rank"], raising=False)
    run_tests(add_file("tests/test_metrics/test_mean_reciprocal_rank.py"), request)


def test_the_tower(add_file, request):
    add_file("bimodal_cl/models/towers/patch_mean.py")
    run_tests(add_file("tests/test_models/test_patch_mean.py"), request)


def test_every_block_is_run_here():
    here = Path(__file__).read_text(encoding="utf-8")
    assert [path for path in CODE if f'"{path}"' not in here] == []
