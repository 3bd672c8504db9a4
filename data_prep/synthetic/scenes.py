"""Compose the scene of a picture before it is drawn and described. Lengths are fractions of the picture's side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .concepts import Concept

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (250, 250, 250),
    "beige": (226, 210, 184),
    "gray": (150, 150, 152),
    "black": (22, 22, 26),
}
SIZES = ("small", "large")
# Diameters: at least 18 of 64 pixels; a gap between the two sizes makes them easy to tell apart.
SMALL = (0.29, 0.34)
LARGE_ALONE = (0.48, 0.75)
LARGE_IN_PAIR = (0.42, 0.47)
RELATIONS = ("left", "right", "above", "below")
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
GAP = 0.03  # smallest distance between two objects, and to the border
TILT = 12.0  # degrees; more would make a square a diamond


@dataclass(frozen=True)
class Thing:
    """One object of a scene.

    Args:
        concept: its colour and shape.
        size: its size in captions, one of ``SIZES``.
        diameter: diameter of the circle around it.
        x, y: its centre; y points down.
        angle: its rotation in degrees.
        shade: a factor near 1 on its colour.
    """

    concept: Concept
    size: str
    diameter: float
    x: float
    y: float
    angle: float
    shade: float


@dataclass(frozen=True)
class Scene:
    """One or two objects on a background; ``relation`` is the place of the first, seen from the second."""

    things: tuple[Thing, ...]
    background: str
    relation: str | None = None

    def content(self) -> tuple[object, ...]:
        """Return what a complete caption says, without the background; the order of the objects does not matter."""
        described = [(str(thing.concept), thing.size) for thing in self.things]
        if self.relation is None:
            return (described[0],)
        if self.relation in ("right", "below"):
            return (described[1], OPPOSITE[self.relation], described[0])
        return (described[0], self.relation, described[1])


def draw_scene(rng: np.random.Generator, concepts: tuple[Concept, ...]) -> Scene:
    """Place one or two objects at random.

    Args:
        rng: random generator.
        concepts: the concepts of the objects, one or two.
    """
    background = tuple(BACKGROUNDS)[int(rng.choice(len(BACKGROUNDS), p=(0.4, 0.2, 0.2, 0.2)))]
    if len(concepts) == 1:
        size = SIZES[int(rng.integers(2))]
        diameter = rng.uniform(*(SMALL if size == "small" else LARGE_ALONE))
        margin = diameter / 2 + GAP / 2
        x, y = rng.uniform(margin, 1 - margin, 2)
        return Scene((_thing(rng, concepts[0], size, diameter, x, y),), background)
    first, second = concepts
    sizes = [SIZES[int(rng.integers(2))] for _ in range(2)]
    diameters = [rng.uniform(*(SMALL if size == "small" else LARGE_IN_PAIR)) for size in sizes]
    along, across = _place_pair(rng, diameters[0], diameters[1])
    relation = RELATIONS[int(rng.integers(4))]
    if relation in ("right", "below"):
        along = 1 - along
    places = np.stack([along, across]) if relation in ("left", "right") else np.stack([across, along])
    things = tuple(
        _thing(rng, concept, size, diameter, x, y)
        for concept, size, diameter, x, y in zip((first, second), sizes, diameters, *places, strict=True)
    )
    return Scene(things, background, relation)


def _thing(rng: np.random.Generator, concept: Concept, size: str, diameter: float, x: float, y: float) -> Thing:
    angle, shade = rng.uniform(-TILT, TILT), rng.uniform(0.9, 1.05)
    return Thing(concept, size, float(diameter), float(x), float(y), float(angle), float(shade))


def _place_pair(rng: np.random.Generator, first: float, second: float) -> tuple[np.ndarray, np.ndarray]:
    """Place two objects of the given diameters, the first before the second along one axis.

    The offset across the axis is at most half the distance along it, so that the relation is obvious.

    Returns:
        Centres along and across the axis, ``[2]`` each.
    """
    room = 1 - first - second - 3 * GAP / 2
    before, between = np.sort(rng.uniform(0, room, 2))
    start = GAP / 4 + before
    along = np.array([start + first / 2, start + first + GAP + (between - before) + second / 2])
    distance = along[1] - along[0]
    lowest = np.array([first, second]) / 2 + GAP / 4
    across_first = rng.uniform(lowest[0], 1 - lowest[0])
    low = max(lowest[1], across_first - distance / 2)
    high = min(1 - lowest[1], across_first + distance / 2)
    return along, np.array([across_first, rng.uniform(low, high) if low < high else np.clip(across_first, low, high)])
