"""Find the word that an image's English captions agree on, without a language model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

_WORD = re.compile(r"[^\W\d_]+")
_IRREGULAR = {
    "children": "child",
    "feet": "foot",
    "leaves": "leaf",
    "men": "man",
    "people": "person",
    "teeth": "tooth",
    "wives": "wife",
    "women": "woman",
}
# In -ing, and yet things.
_THINGS_IN_ING = {"building", "ceiling", "clothing", "painting", "railing", "string", "wedding"}
# Words that say how, how many, where or what something does, not what it is.
_STOP_WORDS = """
about above across after against all alone along also and another are around away back background before behind being
below beneath beside between both but can couple different doing down during each edge eight every few five for four
from front get getting going group had has have her herself him himself his inside into its itself just like lot lots
many middle more most near next nine not off one only onto other others out outside over own pair part past several she
side six some someone something sort ten that the their them themselves there these they this those three through
together top toward towards two type under upon using various very was were what where which while who with within
without you your

bare beautiful big black blond blonde blue bright brown clear colored colorful dark empty full gold golden gray green
grey happy high huge large left light little long low nice old open orange pink purple red right short small striped
tall tan white wooden yellow young

carry catch chase climb dressed fly hold jump laying lay lean leap lie look make perform play pose prepare pull ride run
show sit smile stand stare swim swing take throw try walk watch wear work

image photo picture scene view
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())


def find_words(caption: str) -> list[str]:
    """Return the words of a caption that may name a thing, in lower case.

    Left out are words below three letters, ``STOP_WORDS``, and words in -ing but for a few (building, painting, ...).
    """
    return [word for word in _WORD.findall(caption.lower()) if len(word) > 2 and not _is_left_out(word)]


def _is_left_out(word: str) -> bool:
    return word in STOP_WORDS or (len(word) > 5 and word.endswith("ing") and word not in _THINGS_IN_ING)


class CaptionConcepts:
    """Name the concept of an image after a word of its captions.

    The concept is the word that most of the image's captions have, be it in the singular or the plural. Of several
    such words it is the one that occurs most often in all captions of the data set, and of these the first in the
    alphabet. Words are those of :func:`find_words`. A plural counts as its singular where the singular also occurs in
    the captions: dogs as dog, beaches as beach, babies as baby, people as person; so grass and tennis stay as they are.

    Args:
        captions: of all images.
    """

    def __init__(self, captions: Iterable[str]) -> None:
        occurring = Counter(word for caption in captions for word in find_words(caption))
        self._singulars = {word: _singular(word, occurring) for word in occurring}
        self._frequency: Counter[str] = Counter()
        for word, count in occurring.items():
            self._frequency[self._singulars[word]] += count

    def name(self, captions: Sequence[str]) -> str:
        """Return the concept of an image with these captions, which must be among all; "" if no word remains."""
        having = Counter(word for caption in captions for word in self._words(caption))
        return min(having, key=lambda word: (-having[word], -self._frequency[word], word), default="")

    def _words(self, caption: str) -> set[str]:
        words = {self._singulars[word] for word in find_words(caption)}
        return {word for word in words if not _is_left_out(word)}  # stands: stand


def _singular(word: str, occurring: Counter[str]) -> str:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    candidates = []
    if word.endswith("s") and not word.endswith("ss"):
        candidates.append(word[:-1])
        if word.endswith("es"):
            candidates.append(word[:-2])
        if word.endswith("ies"):
            candidates.append(f"{word[:-3]}y")
    return next((one for one in candidates if one in occurring or one in STOP_WORDS), word)
