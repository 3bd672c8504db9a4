"""transformers' loading, made strict: weights that are missing or of another shape are refused, not drawn at random."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from bimodal_cl.errors import UserError, one_line
from bimodal_cl.models.weights.file_names import TRANSFORMERS_WEIGHTS
from bimodal_cl.models.weights.weight_file import read_weight_file

# Buffers of positions, which transformers wrote into checkpoints before 4.31.
_IDLE = "position_ids"


def load_transformers(model_class: Any, folder: Path) -> Any:
    """Load a folder's model in float32, with every weight it has and no other.

    Args:
        model_class: a class of transformers' with ``from_pretrained``.
        folder: what ``save_pretrained`` wrote.

    Raises:
        UserError: the files are damaged, or their tensors are not those of the folder's ``config.json``.
    """
    try:
        with quiet_transformers():
            model, report = model_class.from_pretrained(
                folder,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they come in the report
                local_files_only=True,
            )
    except Exception as error:
        weights = next((folder / name for name in TRANSFORMERS_WEIGHTS if (folder / name).is_file()), None)
        if weights is not None and weights.suffix != ".json":
            read_weight_file(weights)  # says what is wrong with it, if it is the file
        raise UserError(f"{folder}: {model_class.__name__} cannot be loaded ({one_line(error)})") from error
    refuse_other_weights(report, str(folder))
    return model


def refuse_other_weights(report: Mapping[str, Any], what: str, headless: bool = False) -> None:
    """Refuse what transformers only reports of its loading.

    Args:
        report: from ``from_pretrained(..., output_loading_info=True)``.
        what: the model, for the message.
        headless: the model is a part of what was saved: heads over it and pooling under them may differ.

    Raises:
        UserError: the weights are not those of the configuration; the message names some of them.
    """
    problems = []
    kinds = {"missing": "missing_keys", "of another shape": "mismatched_keys", "unexpected": "unexpected_keys"}
    for kind, key in kinds.items():
        names = sorted(each if isinstance(each, str) else each[0] for each in report[key])
        idle = (_IDLE, "pooler") if headless else (_IDLE,)
        names = [name for name in names if not any(word in name for word in idle)]
        if names and not (headless and kind == "unexpected"):
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            problems.append(f"{len(names)} {kind} ({shown})")
    if problems:
        raise UserError(f"{what}: the weights are not those of its config.json: {' and '.join(problems)}")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' tables and progress bars from the terminal; what matters of them is in our message."""
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
