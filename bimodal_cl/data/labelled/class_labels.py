"""Parse the label of an image in CLIP_benchmark's layout: a class, or 0 or 1 for every class."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.files.text_files import NotText, decode_text

# If a sample has both, CLIP_benchmark uses the .npy.
LABEL_EXTENSIONS = (".npy", ".cls")

_NPY_MARK = b"\x93NUMPY"

Label: TypeAlias = int | np.ndarray


def parse_label(where: str, extension: str, content: bytes, classnames: Sequence[str]) -> Label:
    """Parse a label.

    Args:
        where: shard and key, for messages.
        extension: ``".cls"``: the class index, or a class name, as text; ``".npy"``: an array of the class index, or of
            0 or 1 for every class.
        content: the file's bytes.
        classnames: by class index.

    Returns:
        The class index, or uint8 ``[classes]``.

    Raises:
        UserError: the content is none of these, or does not match the classes.
    """
    return _parse_npy(where, content, classnames) if extension == ".npy" else _parse_cls(where, content, classnames)


def _parse_cls(where: str, content: bytes, classnames: Sequence[str]) -> int:
    try:
        text = decode_text(content).strip()
    except NotText as error:
        raise UserError(f"{where}: its .cls is not text: {error}") from None
    return find_class(where, text, classnames)


def find_class(where: str, text: str, classnames: Sequence[str]) -> int:
    """Return the class that a text means: its index from 0, or its name.

    Args:
        where: place of the text, for messages.
        text: the index or name.
        classnames: by class index.

    Raises:
        UserError: it is neither, or the name of several classes.
    """
    if re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        return _within(where, int(text), len(classnames))
    found = [index for index, name in enumerate(classnames) if name == text]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{where}: class '{text}' is the name of classes {', '.join(map(str, found))}: give the number")
    raise UserError(f"{where}: class {text[:40]!r} is not a number, nor a class name{did_you_mean(text, classnames)}")


def _parse_npy(where: str, content: bytes, classnames: Sequence[str]) -> Label:
    if not content.startswith(_NPY_MARK):  # np.load would try archives and pickles
        raise UserError(f"{where}: its .npy is not a numpy array, which begins with \\x93NUMPY")
    try:
        values = np.load(io.BytesIO(content), allow_pickle=False)
    except MemoryError:
        raise UserError(f"{where}: its .npy is not an array: its header says that it is larger than memory") from None
    except (ValueError, OSError, EOFError) as error:
        reason = "it holds Python objects" if "allow_pickle" in str(error) else " ".join(str(error).split())
        raise UserError(f"{where}: its .npy is not an array of numbers: {reason}") from None
    if values.dtype.kind not in "biuf":
        raise UserError(f"{where}: its .npy holds no numbers")
    if values.ndim == 0 and values.dtype.kind in "iu":
        return _within(where, int(values), len(classnames))
    if values.shape != (len(classnames),):
        raise UserError(
            f"{where}: its .npy has the shape {list(values.shape)}; it must hold 0 or 1 for each of the "
            f"{len(classnames)} classes"
        )
    odd = np.flatnonzero((values != 0) & (values != 1))
    if len(odd):
        raise UserError(f"{where}: its .npy holds {values[odd[0]]} for class {odd[0]}; it must be 0 or 1")
    return values.astype(np.uint8)


def _within(where: str, label: int, num_classes: int) -> int:
    if not 0 <= label < num_classes:
        raise UserError(f"{where}: class {label} is outside [0, {num_classes}), the class names")
    return label
