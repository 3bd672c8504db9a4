"""``package:NAME/PATH`` names a file of an installed package, whose code does not run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bimodal_cl.models import build_model
from bimodal_cl.models.locate.package import resolve_package
from tests.refusals import refused
from tests.test_models.small_models import CAPTIONS, VISION, text_folder

KEY = "model.text.hf_model_name"


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A package ``held_weights`` whose code would fail, with a Hugging Face text model in its folder ``tiny_bert``."""
    folder = tmp_path / "held_weights"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (tmp_path / "one_module.py").write_text("raise RuntimeError('imported')\n")
    text_folder(folder / "tiny_bert", "bert")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_a_file_of_a_package_is_found_and_other_names_stay(package):
    assert resolve_package("package:held_weights/tiny_bert", KEY) == str(package / "tiny_bert")
    assert resolve_package("package:held_weights", KEY) == str(package)
    assert "held_weights" not in sys.modules
    for name in ("roberta-base", "held_weights/tiny_bert", "hf-hub:org/name", str(package)):
        assert resolve_package(name, KEY) == name


def test_a_text_tower_and_its_tokenizer_come_from_a_package(package):
    options = {"hf_pooler_type": "mean_pooler", "hf_proj_type": "linear", "context_length": 12}
    build = [
        build_model(embed_dim=16, vision=VISION, text={**options, "hf_model_name": name, "hf_tokenizer_name": name})
        for name in ("package:held_weights/tiny_bert", str(package / "tiny_bert"))
    ]
    assert build[0].architecture == build[1].architecture
    assert build[0].tokenize(CAPTIONS).equal(build[1].tokenize(CAPTIONS))
    for name, tensor in build[0].text.transformer.state_dict().items():
        assert tensor.equal(build[1].text.transformer.state_dict()[name]), name


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("package:no_such_weights/model", "the Python package 'no_such_weights' is not installed: pip install no-such"),
        ("package:open-clip/x", "'open-clip' is not installed: did you mean 'open_clip'?"),
        ("package:held_weights/tiny_brt", "no such file or folder in .*held_weights; did you mean 'tiny_bert'"),
        ("package:one_module/x", "'one_module' is a single Python file"),
        ("package:held_weights.inner/x", "is not installed: "),
        ("package:", "the Python package '' is not installed: pip install NAME"),
    ],
)
def test_mistakes_are_one_line(package, given, expected):
    with refused(f"^{KEY} '{given}': .*{expected}" if not expected.startswith("no such") else expected):
        resolve_package(given, KEY)
    assert "one_module" not in sys.modules
