"""Text to tokens: open_clip's BPE, which needs no download, or a Hugging Face tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from bimodal_cl.errors import UserError, one_line


@runtime_checkable
class Tokenizer(Protocol):
    """Texts to int64 ``[batch, tokens]``, padded or cut to the context length."""

    def __call__(self, texts: list[str]) -> Tensor: ...


def tokenizer_name(text: Mapping[str, Any]) -> str | None:
    """Return the Hugging Face tokenizer a text tower wants, its own model's by default; None for open_clip's BPE."""
    name: str | None = text.get("hf_tokenizer_name") or text.get("hf_model_name")
    return name


def build_tokenizer(text: Mapping[str, Any], folder: Path | None = None) -> Tokenizer:
    """Build a text tower's tokenizer.

    Args:
        text: keys of open_clip's ``CLIPTextCfg``. In ``tokenizer_kwargs``, ``clean: none`` gives the text to a Hugging
            Face tokenizer as it is, which open_clip cleans before; ``padding_side`` is right where it does not say.
        folder: read a Hugging Face tokenizer's files from here rather than from where `text` says.

    Raises:
        UserError: the tokenizer cannot be read, or has no padding.
    """
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    name, options = tokenizer_name(text), dict(text.get("tokenizer_kwargs") or {})
    raw = name is not None and options.get("clean") == "none" and bool(options.pop("clean"))
    side = options.get("padding_side", "right")
    if name is None:
        try:
            simple = SimpleTokenizer(context_length=text["context_length"], **options)
            simple(["a"])  # some kinds of shortening need more packages, and say so only now
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
            f"model.text.hf_tokenizer_name '{source}': no such folder with a tokenizer's files, and the hub does not "
            f"give it ({one_line(error)})"
        ) from error
    inner = tokenizer.tokenizer
    inner.padding_side = side
    if raw:
        tokenizer.clean_fn = _leave
    if inner.pad_token_id is None:
        if inner.eos_token_id is None:
            raise UserError(f"model.text.hf_tokenizer_name '{source}' has neither a padding nor an end-of-text token")
        inner.pad_token = inner.eos_token
    return tokenizer


def _leave(text: str) -> str:
    return text


def is_hugging_face(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer has files of its own that must travel with a checkpoint."""
    return hasattr(tokenizer, "save_pretrained")


def vocabulary_size(tokenizer: Any) -> int:
    """Return the number of tokens, added ones included: every id is below it."""
    return len(tokenizer.tokenizer) if is_hugging_face(tokenizer) else int(tokenizer.vocab_size)
