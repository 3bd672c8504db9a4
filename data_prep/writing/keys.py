"""Make the keys of samples: safe in a tar, unique in a split, the same in every run."""

from __future__ import annotations

import hashlib
import re

from ..file_names import compose

MAX_KEY_LENGTH = 80  # with an extension, this fits the 100 bytes of a plain tar header


def safe_key(name: str) -> str:
    """Turn any name into a key of ``A-Z a-z 0-9 _ -``; dots are excluded, since WebDataset ends a key at the first.

    A name that has to change gets a hash of the original, so that different names (``a.b`` and ``a_b``) have different
    keys. Composed and decomposed accented letters are equal, since copying files can change one into the other.
    """
    name = compose(name)
    replaced = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")
    if replaced == name and len(name) <= MAX_KEY_LENGTH:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    return f"{replaced[: MAX_KEY_LENGTH - 11]}-{digest}" if replaced else digest


class KeyMaker:
    """Make unique keys: repeated names get ``-2``, ``-3``, ... in order of appearance."""

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._repeats: dict[str, int] = {}  # so that the nth repeat of a name takes one step, not n

    def make(self, name: str) -> str:
        """Return a new key for ``name``."""
        first = key = safe_key(name)
        repeat = self._repeats.get(first, 1)
        while key in self._used:
            repeat += 1
            key = f"{first}-{repeat}"
        self._used.add(key)
        self._repeats[first] = repeat
        return key
