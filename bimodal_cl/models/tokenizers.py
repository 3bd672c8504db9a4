"""Build tokenizers: open_clip's BPE, which needs no download, or a Hugging Face tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from bimodal_cl.errors import UserError, one_line


@runtime_checkable
class Tokenizer(Protocol):
    """Convert texts to int64 tokens ``[batch, context_length]``, padded or truncated."""

    def __call__(self, texts: list[str]) -> Tensor:
        """Return the tokens of some texts."""


def tokenizer_name(text: Mapping[str, Any]) -> str | None:
    """Return the name of a text tower's Hugging Face tokenizer, by default that of its model; None: open_clip's BPE."""
    name: str | None = text.get("hf_tokenizer_name") or text.get("hf_model_name")
    return name


def build_tokenizer(text: Mapping[str, Any], folder: Path | None = None) -> Tokenizer:
    """Build a text tower's tokenizer.

    Args:
        text: keys of open_clip's ``CLIPTextCfg``. In ``tokenizer_kwargs``, ``clean: none`` skips open_clip's cleaning
            of texts before a Hugging Face tokenizer; ``padding_side`` is right by default.
        folder: folder with a Hugging Face tokenizer's files, to override the name in `text`.

    Raises:
        UserError: the tokenizer cannot be read, or has no padding token.
    """
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    name, options = tokenizer_name(text), dict(text.get("tokenizer_kwargs") or {})
    raw = name is not None and options.get("clean") == "none" and bool(options.pop("clean"))
    side = options.get("padding_side", "right")
    if name is None:
        try:
            simple = SimpleTokenizer(context_length=text["context_length"], **options)
            simple(["a"])  # some truncation modes import optional packages only when called
        except Exception as error:
            raise UserError(f"model.text.tokenizer_kwargs {options}: no such tokenizer ({one_line(error)})") from error
        return simple
    source = str(folder) if folder is not None else name
    try:
        tokenizer = HFTokenizer(
            source, context_length=text["context_length"], tokenizer_mode=text.get("tokenizer_mode"), **options
        )
    except Exception as error:
        raise UserError(
            f"model.text.hf_tokenizer_name '{source}': no such folder with tokenizer files, and it cannot "
            f"be loaded from the hub ({one_line(error)})"
        ) from error
    inner = tokenizer.tokenizer
    inner.padding_side = side
    if raw:
        tokenizer.clean_fn = _unchanged
    if inner.pad_token_id is None:
        if inner.eos_token_id is None:
            raise UserError(f"model.text.hf_tokenizer_name '{source}' has neither a padding nor an end-of-text token")
        inner.pad_token = inner.eos_token
    return tokenizer


def _unchanged(text: str) -> str:
    return text


def is_hugging_face(tokenizer: Tokenizer) -> bool:
    """Return whether the tokenizer has files of its own, which a checkpoint must include."""
    return hasattr(tokenizer, "save_pretrained")


def vocabulary_size(tokenizer: Any) -> int:
    """Return the number of tokens, including added ones; every id is below it."""
    return len(tokenizer.tokenizer) if is_hugging_face(tokenizer) else int(tokenizer.vocab_size)
