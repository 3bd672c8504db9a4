"""Keep what became of every query beside a result, in ``<task>_<dataset>.outcomes.npz``, and read it again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bimodal_cl.files.atomic import open_atomically

if TYPE_CHECKING:
    from bimodal_cl.scoring.outcomes import Outcomes

_KIND, _DATA, _RESULT = "kind", "data_sha256", "metrics_sha256"


def outcomes_path(result: Path) -> Path:
    """Return the file of the outcomes that belong to a result's file."""
    return result.with_suffix(".outcomes.npz")


def write_outcomes(path: Path, result: dict[str, Any], outcomes: Outcomes | None) -> None:
    """Write a result's outcomes beside it, whole or not at all; older ones are removed where there are none now.

    Args:
        path: the result's file; it may be written before or after.
        result: the result.
        outcomes: a few bytes per query.
    """
    target = outcomes_path(path)
    if outcomes is None:
        target.unlink(missing_ok=True)
        return
    texts = {_KIND: outcomes.kind, _DATA: outcomes.data, _RESULT: _hash_metrics(result)}
    arrays: dict[str, Any] = {name: np.array(text) for name, text in texts.items()} | outcomes.compact()
    with open_atomically(target) as file:
        np.savez_compressed(file, **arrays)


def read_outcomes(path: Path, result: dict[str, Any]) -> Outcomes | None:
    """Return the outcomes beside a result's file; None where there are none, or where they are not those of its scores.

    Args:
        path: the result's file.
        result: its content.
    """
    from bimodal_cl.scoring.outcomes import Outcomes

    try:
        with np.load(outcomes_path(path), allow_pickle=False) as file:
            found = dict(file)
        texts = {name: str(found.pop(name)) for name in (_KIND, _DATA, _RESULT)}
    except Exception:  # a damaged archive ends numpy's and zipfile's readers in many ways
        return None
    if texts[_RESULT] != _hash_metrics(result):
        return None
    return Outcomes(texts[_KIND], found, texts[_DATA])


def _hash_metrics(result: dict[str, Any]) -> str:
    """Return what ties the outcomes to their result, so that those of another evaluation are not taken for them."""
    return hashlib.sha256(json.dumps(result["metrics"], sort_keys=True).encode()).hexdigest()
