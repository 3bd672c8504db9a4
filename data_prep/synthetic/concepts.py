"""Define the concepts (a colour and a shape), and draw how often each occurs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# The canonical word comes first; captions sometimes use the others.
SHAPES: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "heart": ("heart",),
    "cross": ("cross", "plus sign"),
    "crescent": ("crescent", "moon"),
    "ring": ("ring", "hoop"),
    "diamond": ("diamond", "rhombus"),
    "arrow": ("arrow",),
    "bolt": ("bolt", "lightning bolt"),
    "hourglass": ("hourglass", "sand timer"),
}

# Far from one another and from every background (white, beige, gray, black); sRGB, 0-255.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 30, 38),
    "orange": (255, 134, 10),
    "yellow": (248, 218, 30),
    "green": (28, 150, 52),
    "cyan": (40, 204, 220),
    "blue": (36, 70, 224),
    "purple": (120, 34, 158),
    "pink": (252, 120, 186),
}
COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("red", "scarlet"),
    "orange": ("orange",),
    "yellow": ("yellow", "golden"),
    "green": ("green", "emerald"),
    "cyan": ("cyan", "turquoise"),
    "blue": ("blue",),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rose"),
}


@dataclass(frozen=True)
class Concept:
    """A colour and a shape; ``str`` gives the class name, such as "red circle"."""

    colour: str
    shape: str

    def __str__(self) -> str:
        return f"{self.colour} {self.shape}"


CONCEPTS: tuple[Concept, ...] = tuple(Concept(colour, shape) for shape in SHAPES for colour in COLOURS)


def compute_zipf_counts(total: int, classes: int, exponent: float, minimum: int) -> np.ndarray:
    """Divide ``total`` occurrences among ranks: ``minimum`` each, and the rest in proportion to ``rank ** -exponent``.

    Args:
        total: number of occurrences, at least ``classes * minimum``.
        classes: number of ranks.
        exponent: 0 for equal shares; 1 is Zipf's law.
        minimum: occurrences of the rarest rank.

    Returns:
        int64 ``[classes]``, in descending order, with sum ``total`` (rounded by largest remainders).

    Raises:
        ValueError: ``total`` is too small.
    """
    rest = total - classes * minimum
    if rest < 0:
        raise ValueError(f"{total} occurrences are too few for {classes} concepts, {minimum} times each")
    weights = np.arange(1, classes + 1, dtype=np.float64) ** -exponent
    shares = rest * weights / weights.sum()
    counts = np.floor(shares).astype(np.int64)
    by_remainder = np.argsort(counts - shares, kind="stable")
    counts[by_remainder[: rest - counts.sum()]] += 1
    return np.sort(counts)[::-1] + minimum


def draw_concepts(rng: np.random.Generator, total: int, exponent: float, minimum: int = 4) -> np.ndarray:
    """Draw concepts whose counts follow Zipf's law, in random order.

    Concepts are ranked at random, so that rare concepts are rare combinations of frequent colours and shapes.

    Args:
        rng: random generator.
        total: number of draws.
        exponent, minimum: see :func:`compute_zipf_counts`.

    Returns:
        int64 ``[total]``, numbers of concepts in ``[0, len(CONCEPTS))``.
    """
    counts = compute_zipf_counts(total, len(CONCEPTS), exponent, minimum)
    ranked = rng.permutation(len(CONCEPTS))
    return rng.permutation(np.repeat(ranked, counts))
