"""Describe scenes in words, with several templates and synonyms, and with or without size, relation and background."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .concepts import COLOUR_WORDS, SHAPES
from .scenes import OPPOSITE, Scene, Thing

SIZE_WORDS = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}
RELATION_WORDS = {
    "left": ("to the left of", "left of", "on the left of"),
    "right": ("to the right of", "right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under", "beneath"),
}
BACKGROUND_WORDS = {
    "white": ("white",),
    "beige": ("beige", "cream"),
    "gray": ("gray", "grey"),
    "black": ("black", "dark"),
}
SYNONYM_SHARE = 0.2  # share of words; synonyms are learned, and class names stay the usual words

ZERO_SHOT_TEMPLATES = ("{c}", "one {c}", "a picture of one {c}", "there is one {c} in the picture")


def describe(rng: np.random.Generator, scene: Scene, complete: bool = False) -> str:
    """Return a caption of a scene.

    Args:
        rng: random generator for words, order and template.
        scene: the scene.
        complete: name colour, shape and size of every object, and their relation, so that scenes with different
            ``content()`` get different captions; else parts may be left out.
    """
    choose = _Chooser(rng)
    if len(scene.things) == 1:
        thing = scene.things[0]
        return choose((_alone, _alone_bare))(choose, scene, thing, complete)
    first, second, relation = *scene.things, scene.relation
    assert relation is not None
    if choose.chance(0.5):
        first, second, relation = second, first, OPPOSITE[relation]
    if complete or choose.chance(0.7):
        return _pair(choose, scene, first, second, relation, complete)
    return _pair_unordered(choose, scene, first, second)


class _Chooser:
    """Random choices of the templates."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def __call__(self, options: Sequence):  # type: ignore[no-untyped-def]
        return options[int(self.rng.integers(len(options)))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def word(self, words: Sequence[str]) -> str:
        return str(self(words[1:])) if len(words) > 1 and self.chance(SYNONYM_SHARE) else words[0]


def _noun(choose: _Chooser, thing: Thing, sized: bool, article: bool = True) -> str:
    """Return a noun phrase such as "a tiny red circle" or "one red circle"."""
    words = [choose.word(COLOUR_WORDS[thing.concept.colour]), choose.word(SHAPES[thing.concept.shape])]
    if sized:
        words.insert(0, choose.word(SIZE_WORDS[thing.size]))
    if not article:
        return " ".join(words)
    return " ".join(["one" if choose.chance(0.1) else "an" if words[0][0] in "aeiou" else "a", *words])


def _backdrop(choose: _Chooser, scene: Scene) -> str:
    colour = choose.word(BACKGROUND_WORDS[scene.background])
    return choose((f"on a {colour} background", f"against a {colour} backdrop", f"on {colour}"))


def _alone(choose: _Chooser, scene: Scene, thing: Thing, complete: bool) -> str:
    noun = _noun(choose, thing, complete or choose.chance(0.5))
    where = _backdrop(choose, scene)
    return choose((f"{noun} {where}", f"{where}, {noun}", f"there is {noun} {where}"))


def _alone_bare(choose: _Chooser, scene: Scene, thing: Thing, complete: bool) -> str:
    noun = _noun(choose, thing, complete or choose.chance(0.5))
    options = (noun, f"a picture of {noun}", f"there is {noun} in the picture", f"a drawing that shows {noun}")
    return choose((*options, f"{noun} and nothing else"))


def _pair(choose: _Chooser, scene: Scene, first: Thing, second: Thing, relation: str, complete: bool) -> str:
    sized = complete or choose.chance(0.6)
    a, b = _noun(choose, first, sized), _noun(choose, second, sized)
    where = choose.word(RELATION_WORDS[relation])
    options = [
        f"{a} {where} {b}",
        f"{a} is {where} {b}",
        f"there is {a} {where} {b}",
        f"{where} {b} there is {a}",
        f"a picture of {a} {where} {b}",
        f"{b} with {a} {where} it",
    ]
    text = str(choose(options))
    return f"{text}, {_backdrop(choose, scene)}" if choose.chance(0.25) else text


def _pair_unordered(choose: _Chooser, scene: Scene, first: Thing, second: Thing) -> str:
    sized = choose.chance(0.4)
    a, b = _noun(choose, first, sized), _noun(choose, second, sized)
    options = [
        f"{a} and {b}",
        f"two shapes: {a} and {b}",
        f"{a} together with {b}",
        f"{a} and {b} {_backdrop(choose, scene)}",
    ]
    return str(choose(options))
