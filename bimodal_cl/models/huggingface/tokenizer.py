"""Read the tokenizer of a folder written by Hugging Face's ``save_pretrained`` as keys of a text tower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bimodal_cl.errors import UserError, one_line

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "spiece.model")


def read_tokenizer_keys(folder: Path, num_positions: int) -> dict[str, Any] | None:
    """Return the keys of open_clip's ``CLIPTextCfg`` with which texts are tokenized as transformers does.

    Args:
        folder: with or without a tokenizer.
        num_positions: maximum number of tokens that the text tower takes.

    Returns:
        The keys, or None where the folder has no tokenizer.

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
