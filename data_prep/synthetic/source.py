"""Define the source ``synthetic``: shards in TO/train, TO/val and TO/retrieval, TO/zero_shot and TO/concepts.json.

Picture ``n`` of a split is a pure function of (seed, split, n, sizes), so the order of drawing does not matter.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bimodal_cl.errors import UserError

from ..items import Item, SourcePlan, Split
from ..writing.tar_file import TarWriter
from .captions import ZERO_SHOT_TEMPLATES, describe
from .concepts import CONCEPTS, Concept, draw_concepts
from .drawing import draw_picture, encode_picture
from .scenes import Scene, draw_scene

SUMMARY = "the built-in data set of drawn shapes: TO/train, TO/val, TO/retrieval, TO/zero_shot, TO/concepts.json"

TRAIN, VAL, RETRIEVAL, ZERO_SHOT = range(4)  # the split is part of every picture's seed
PAIR_SHARE = 0.5  # share of pictures with two objects
MAX_ZIPF = 2.0  # above it the most frequent concept would have to occur twice in one picture
MAX_DISTINCT = 10_000  # distinct scenes are limited: 192 of one object, 72,960 of two
MIN_OCCURRENCES = 4  # of the rarest concept in the training split


@dataclass(frozen=True)
class SyntheticOptions:
    """Parameters of the data set; see :func:`add_arguments`."""

    seed: int
    num_train: int
    num_val: int
    num_retrieval: int
    images_per_concept: int
    side: int
    zipf: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the source's own flags."""
    parser.add_argument("--seed", type=int, default=0, help="seed of the data set")
    parser.add_argument("--num-train", type=int, default=8000, metavar="N", help="training images")
    parser.add_argument("--num-val", type=int, default=256, metavar="N", help="validation images, same distribution")
    parser.add_argument(
        "--num-retrieval", type=int, default=512, metavar="N", help="images for retrieval, all with different captions"
    )
    parser.add_argument("--images-per-concept", type=int, default=10, metavar="N", help="zero-shot images per class")
    parser.add_argument("--side", type=int, default=64, metavar="PIXELS", help="width and height of every image")
    parser.add_argument(
        "--zipf",
        type=float,
        default=1.0,
        metavar="EXPONENT",
        help="exponent of Zipf's law for concept frequencies; 0: equal frequencies",
    )


def read(args: argparse.Namespace) -> SourcePlan:
    """Plan the three shard folders and the zero-shot set.

    Raises:
        UserError: a size is out of range.
    """
    options = SyntheticOptions(
        args.seed, args.num_train, args.num_val, args.num_retrieval, args.images_per_concept, args.side, args.zipf
    )
    smallest = len(CONCEPTS) * MIN_OCCURRENCES
    for flag, value, low, high in (
        ("--seed", options.seed, 0, 2**31 - 1),
        ("--num-train", options.num_train, smallest, 10_000_000),
        ("--num-val", options.num_val, 1, MAX_DISTINCT),
        ("--num-retrieval", options.num_retrieval, 1, MAX_DISTINCT),
        ("--images-per-concept", options.images_per_concept, 1, 10_000),
        ("--side", options.side, 32, 1024),
        ("--zipf", options.zipf, 0.0, MAX_ZIPF),
    ):
        if not low <= value <= high:
            raise UserError(f"{flag} must be {low} to {high}, got {value}")
    train = draw_training_concepts(options)
    splits = [
        Split("train", _items(train_scenes(options, train), TRAIN, options), options.num_train),
        Split("val", _items(distinct_scenes(options, VAL), VAL, options), options.num_val),
        Split("retrieval", _items(distinct_scenes(options, RETRIEVAL), RETRIEVAL, options), options.num_retrieval),
    ]

    def write_extras(folder: Path) -> None:
        write_zero_shot(folder / "zero_shot", options)
        write_concept_table(folder / "concepts.json", options, train)

    return SourcePlan(splits, write_extras)


def draw_training_concepts(options: SyntheticOptions) -> list[tuple[Concept, ...]]:
    """Draw the concepts of every training picture: one, or two different ones, by Zipf's law over all pictures."""
    rng = _rng(options, TRAIN, 0, 2)
    num_things = np.where(rng.random(options.num_train) < PAIR_SHARE, 2, 1)
    drawn = draw_concepts(rng, int(num_things.sum()), options.zipf, MIN_OCCURRENCES)
    starts = np.cumsum(num_things) - num_things
    partner = np.arange(len(drawn))  # position of the other object in the picture; its own if it is alone
    firsts = starts[num_things == 2]
    partner[firsts], partner[firsts + 1] = firsts + 1, firsts
    for first in firsts:
        while drawn[first] == drawn[first + 1]:
            other = int(rng.integers(len(drawn)))
            # Neither picture may get the same concept twice.
            if drawn[other] != drawn[first] and drawn[partner[other]] != drawn[first]:
                drawn[[first, other]] = drawn[[other, first]]
    ends = starts + num_things
    return [tuple(CONCEPTS[n] for n in drawn[start:end]) for start, end in zip(starts, ends, strict=True)]


def train_scenes(options: SyntheticOptions, concepts: list[tuple[Concept, ...]]) -> Iterator[tuple[Scene, list[str]]]:
    """Yield scene and captions of every training picture; the first caption is complete, others may omit parts."""
    for number, chosen in enumerate(concepts):
        rng = _rng(options, TRAIN, number, 0)
        scene = draw_scene(rng, chosen)
        yield scene, _captions(rng, scene, int(rng.integers(2, 5)), all_complete=False)


def distinct_scenes(options: SyntheticOptions, split: int) -> Iterator[tuple[Scene, list[str]]]:
    """Yield scenes with distinct contents, and complete captions of which no two are equal.

    ``val`` mixes scenes of one and two objects; ``retrieval`` has two objects in every scene.
    """
    total = options.num_val if split == VAL else options.num_retrieval
    contents: set[tuple[object, ...]] = set()
    used_captions: set[str] = set()
    attempt = 0
    for _ in range(total):
        while True:
            rng = _rng(options, split, attempt, 0)
            attempt += 1
            several = split == RETRIEVAL or rng.random() < PAIR_SHARE
            chosen = rng.choice(len(CONCEPTS), 2 if several else 1, replace=False)
            scene = draw_scene(rng, tuple(CONCEPTS[n] for n in chosen))
            captions = _captions(rng, scene, 3, all_complete=True)
            if scene.content() not in contents and used_captions.isdisjoint(captions):
                break
        contents.add(scene.content())
        used_captions.update(captions)
        yield scene, captions


def write_zero_shot(folder: Path, options: SyntheticOptions) -> None:
    """Write a balanced test set with one object per picture, in CLIP_benchmark's ``wds_`` layout."""
    (folder / "test").mkdir(parents=True)
    (folder / "classnames.txt").write_text("".join(f"{concept}\n" for concept in CONCEPTS))
    (folder / "zeroshot_classification_templates.txt").write_text("".join(f"{t}\n" for t in ZERO_SHOT_TEMPLATES))
    (folder / "test" / "nshards.txt").write_text("1\n")
    with TarWriter(folder / "test" / "0.tar") as tar:
        for number in range(len(CONCEPTS) * options.images_per_concept):
            rng = _rng(options, ZERO_SHOT, number)
            # classes take turns, so a reader that stops early has seen all of them
            label = number % len(CONCEPTS)
            picture = draw_picture(rng, draw_scene(rng, (CONCEPTS[label],)), options.side)
            tar.write_sample(f"{number:06d}", {".cls": str(label).encode(), ".jpg": encode_picture(picture)})


def write_concept_table(path: Path, options: SyntheticOptions, concepts: list[tuple[Concept, ...]]) -> None:
    """Write the count of each concept in ``train``, and the concepts of each training image.

    The file is ``{"concepts": [{"concept", "colour", "shape", "count"}, ...], "train_images": [[number, ...], ...]}``.
    The most frequent concept comes first; ``train_images`` is indexed by ``image_id``, and numbers index ``concepts``.
    """
    counts = Counter(concept for chosen in concepts for concept in chosen)
    ranked = sorted(CONCEPTS, key=lambda concept: (-counts[concept], str(concept)))
    number_of = {concept: number for number, concept in enumerate(ranked)}
    table = [{"concept": str(c), "colour": c.colour, "shape": c.shape, "count": counts[c]} for c in ranked]
    images = [[number_of[concept] for concept in chosen] for chosen in concepts]
    content = {"seed": options.seed, "zipf": options.zipf, "concepts": table, "train_images": images}
    path.write_text(json.dumps(content) + "\n")


def _captions(rng: np.random.Generator, scene: Scene, count: int, all_complete: bool) -> list[str]:
    captions = [describe(rng, scene, complete=True)]
    while len(captions) < count:
        caption = describe(rng, scene, complete=all_complete)
        if caption not in captions:
            captions.append(caption)
    return captions


def _items(scenes: Iterator[tuple[Scene, list[str]]], split: int, options: SyntheticOptions) -> Iterator[Item]:
    for number, (scene, captions) in enumerate(scenes):
        yield Item(f"{number:06d}", partial(_draw, options, split, number, scene), tuple(captions))


def _draw(options: SyntheticOptions, split: int, number: int, scene: Scene) -> bytes:
    return encode_picture(draw_picture(_rng(options, split, number, 1), scene, options.side))


def _rng(options: SyntheticOptions, *place: int) -> np.random.Generator:
    return np.random.default_rng([options.seed, *place])
