"""Load transformers models strictly: missing or mismatched weights are an error and not initialised at random."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from bimodal_cl.errors import UserError, one_line
from bimodal_cl.models.weights.file_names import TRANSFORMERS_WEIGHTS
from bimodal_cl.models.weights.weight_file import read_weight_file

# Buffers that transformers wrote into checkpoints before 4.31.
_POSITION_BUFFERS = "position_ids"


def load_transformers(model_class: Any, folder: Path) -> Any:
    """Load a folder's model in float32 and require that its weights match its configuration exactly.

    Args:
        model_class: a transformers class with ``from_pretrained``.
        folder: a folder written by ``save_pretrained``.

    Raises:
        UserError: the files are damaged, or the weights do not match the folder's ``config.json``.
    """
    try:
        with quiet_transformers():
            model, report = model_class.from_pretrained(
                folder,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are listed in the report
                local_files_only=True,
            )
    except Exception as error:
        weights = next((folder / name for name in TRANSFORMERS_WEIGHTS if (folder / name).is_file()), None)
        if weights is not None and weights.suffix != ".json":
            read_weight_file(weights)  # raises a more precise error if the file is the reason
        raise UserError(f"{folder}: {model_class.__name__} cannot be loaded ({one_line(error)})") from error
    refuse_other_weights(report, str(folder))
    return model


def refuse_other_weights(report: Mapping[str, Any], what: str, headless: bool = False) -> None:
    """Raise an error for mismatches that transformers only reports.

    Args:
        report: the loading info from ``from_pretrained(..., output_loading_info=True)``.
        what: the model, for the message.
        headless: the model is the backbone of a saved model: unexpected heads and a missing pooling layer are allowed.

    Raises:
        UserError: the weights do not match the configuration; the message names some of them.
    """
    problems = []
    kinds = {"missing": "missing_keys", "of another shape": "mismatched_keys", "unexpected": "unexpected_keys"}
    for kind, key in kinds.items():
        names = sorted(each if isinstance(each, str) else each[0] for each in report[key])
        ignored = (_POSITION_BUFFERS, "pooler") if headless else (_POSITION_BUFFERS,)
        names = [name for name in names if not any(word in name for word in ignored)]
        if names and not (headless and kind == "unexpected"):
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            problems.append(f"{len(names)} {kind} ({shown})")
    if problems:
        raise UserError(f"{what}: the weights do not match its config.json: {' and '.join(problems)}")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' log tables and progress bars within the block."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
