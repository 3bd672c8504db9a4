"""Tiny composition sets in the formats of SugarCrepe and Winoground."""

from __future__ import annotations

import json
from itertools import combinations

import pytest

from tests.test_eval_commands.conftest import COLOURS, draw

NAMES = list(COLOURS)
PAIRS = list(combinations(range(6), 2))  # of colours


def caption(first, second):
    return f"{NAMES[first]} on {NAMES[second]}"


@pytest.fixture
def sugar_crepe(tmp_path):
    """Two subsets of six and four entries; the second's keys are not contiguous."""
    folder = tmp_path / "sugar"
    (folder / "images").mkdir(parents=True)
    for number, colour in enumerate(NAMES):
        draw(colour, number).save(folder / "images" / f"{number}.png")
    for name, pairs, step in (("add_att", PAIRS[:6], 1), ("swap_obj", PAIRS[6:10], 3)):
        entries = {
            str(step * row): {
                "filename": f"{first}.png",
                "caption": caption(first, second),
                "negative_caption": caption(second, first),
            }
            for row, (first, second) in enumerate(pairs)
        }
        (folder / f"{name}.json").write_text(json.dumps(entries))
    return folder


@pytest.fixture
def winoground_rows():
    """Rows with the captions of two colours and the names of two images."""
    return [
        {
            "id": row,
            "caption_0": caption(first, second),
            "caption_1": caption(second, first),
            "image_0": f"ex_{row}_img_0",
            "image_1": f"ex_{row}_img_1",
        }
        for row, (first, second) in enumerate(PAIRS)
    ]


@pytest.fixture
def winoground(tmp_path, winoground_rows):
    """``data/examples.jsonl`` and ``data/images``, whose names are without endings in the rows."""
    folder = tmp_path / "winoground"
    (folder / "data" / "images").mkdir(parents=True)
    for row, (first, second) in enumerate(PAIRS):
        for side, colour in enumerate((first, second)):
            draw(NAMES[colour], 10 * row + side).save(folder / "data" / "images" / f"ex_{row}_img_{side}.png")
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in winoground_rows)
    (folder / "data" / "examples.jsonl").write_text(lines + "\n", encoding="utf-8")
    return folder
