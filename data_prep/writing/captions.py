"""Captions as a shard stores them: one a line."""

from __future__ import annotations

from collections.abc import Iterable


def clean_caption(caption: str) -> str:
    """Return the caption on one line, without white space at its ends.

    Every line break that Unicode knows becomes a space, so that readers who split at any of them agree. Byte order
    marks go: a reader drops one at the start of a file, and a caption of nothing else would vanish there. Broken
    surrogates, which JSON can hold and UTF-8 cannot, become U+FFFD.
    """
    one_line = " ".join(part.strip() for part in caption.replace("\ufeff", "").splitlines()).strip()
    return one_line.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def clean_captions(captions: Iterable[str]) -> tuple[list[str], int]:
    """Clean all captions of an image; return those that are not empty, in order, and how many were empty.

    A caption that occurs twice stays twice: ``text_id`` counts captions, not different ones.
    """
    cleaned = [clean_caption(caption) for caption in captions]
    kept = [caption for caption in cleaned if caption]
    return kept, len(cleaned) - len(kept)
