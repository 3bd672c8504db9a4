"""Clean captions so that a shard can store one per line."""

from __future__ import annotations

from collections.abc import Iterable


def clean_caption(caption: str) -> str:
    """Return the caption on one line, stripped.

    Every Unicode line break becomes a space, so that all readers find the same lines. Byte order marks are removed: a
    reader drops one at the start of a file, so a caption of nothing else would vanish. Lone surrogates, which JSON can
    hold and UTF-8 cannot, become U+FFFD.
    """
    one_line = " ".join(part.strip() for part in caption.replace("\ufeff", "").splitlines()).strip()
    return one_line.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def clean_captions(captions: Iterable[str]) -> tuple[list[str], int]:
    """Clean all captions of an image; return those that are not empty, in order, and the number of empty ones.

    Repeated captions are kept: each has a ``text_id`` of its own.
    """
    cleaned = [clean_caption(caption) for caption in captions]
    kept = [caption for caption in cleaned if caption]
    return kept, len(cleaned) - len(kept)
