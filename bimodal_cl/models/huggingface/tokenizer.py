"""The tokenizer of a folder that Hugging Face's ``save_pretrained`` wrote, as keys of a text tower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bimodal_cl.errors import UserError, one_line

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "spiece.model")


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
