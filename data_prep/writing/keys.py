"""Keys of samples: safe in a tar, unique in a split, the same in every run."""

from __future__ import annotations

import hashlib
import re

from ..file_names import compose

MAX_KEY_LENGTH = 80  # with an extension this stays below the 100 bytes of a plain tar header


def safe_key(name: str) -> str:
    """Turn any name into a key of ``A-Z a-z 0-9 _ -``: WebDataset ends a key at its first dot.

    A name that has to change carries a hash of the original, so that different names keep different keys
    (``a.b`` and ``a_b``) whatever else the data set holds. Spellings of a name that only differ in the code points of
    accented letters are one name: systems change one into the other when files are copied.
    """
    name = compose(name)
    replaced = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")
    if replaced == name and len(name) <= MAX_KEY_LENGTH:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    return f"{replaced[: MAX_KEY_LENGTH - 11]}-{digest}" if replaced else digest


class KeyMaker:
    """Gives safe keys, each once: a name that comes again gets ``-2``, ``-3``, ... in its order of appearance."""

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._repeats: dict[str, int] = {}  # so that a name's nth coming costs one look, not n

    def make(self, name: str) -> str:
        """Return the key for ``name`` and remember it."""
        first = key = safe_key(name)
        repeat = self._repeats.get(first, 1)
        while key in self._used:
            repeat += 1
            key = f"{first}-{repeat}"
        self._used.add(key)
        self._repeats[first] = repeat
        return key
