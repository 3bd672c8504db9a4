"""Weights and tokenizer of a folder that Hugging Face's ``save_pretrained`` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bimodal_cl.errors import UserError, one_line

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "spiece.model")


def read_model(model_class: Any, folder: Path) -> Any:
    """Read a model in float32.

    Raises:
        UserError: damaged files, or tensors of this model that are not there, which would stay random.
    """
    try:
        model, report = model_class.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    except Exception as error:
        raise UserError(f"{folder}: the {model_class.__name__} cannot be loaded ({one_line(error)})") from error
    if missing := sorted(report["missing_keys"]):
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise UserError(f"{folder}: {len(missing)} tensors of the {model_class.__name__} are missing ({shown})")
    return model


def read_tokenizer_keys(folder: Path, num_positions: int) -> dict[str, Any] | None:
    """Return the keys of open_clip's ``CLIPTextCfg`` that make it tokenize as transformers does with this folder.

    Args:
        folder: with or without a tokenizer.
        num_positions: the most tokens that the text tower takes.

    Returns:
        None where the folder has no tokenizer.

    Raises:
        UserError: its files cannot be read.
    """
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        return None
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except ImportError as error:
        raise UserError(f"{folder}: its tokenizer needs more packages: pip install sentencepiece protobuf") from error
    except Exception as error:
        raise UserError(f"{folder}: its tokenizer cannot be read ({one_line(error)})") from error
    return {
        "context_length": min(tokenizer.model_max_length, num_positions),
        "hf_tokenizer_name": str(folder),
        "tokenizer_kwargs": {"clean": "none", "padding_side": tokenizer.padding_side},
    }
