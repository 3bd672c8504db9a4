"""Labelled images with the splits that a probe needs."""

from __future__ import annotations

import numpy as np
import pytest

from tests.test_data.tiny_shards import write_tar
from tests.test_eval_commands.conftest import COLOURS, as_png, draw

PER_SPLIT = {"train": 5, "validation": 2, "test": 3}


def write_class_folders(folder, splits=PER_SPLIT, colours=COLOURS):
    """Write some images of each colour for each split."""
    for number, (split, count) in enumerate(splits.items()):
        for colour in colours:
            (folder / split / colour).mkdir(parents=True)
            for index in range(count):
                image = draw(colour, 1000 * number + 100 * list(COLOURS).index(colour) + index)
                image.save(folder / split / colour / f"{index}.png")
    return folder


@pytest.fixture
def colours(tmp_path):
    """Six classes with a training, a validation and a test split of class folders."""
    return write_class_folders(tmp_path / "colours")


@pytest.fixture
def several(tmp_path):
    """Images of one or two of six classes, in CLIP_benchmark's layout."""
    folder, names = tmp_path / "wds_several", sorted(COLOURS)
    for split, count in {"train": 30, "test": 24}.items():
        members = []
        for index in range(count):
            shown = np.zeros(6, dtype=np.uint8)
            shown[[index % 6, (index // 6) % 6]] = 1
            members.append((f"s{index}.png", as_png(draw(names[index % 6], index + 500 * (split == "test")))))
            members.append((f"s{index}.npy", npy_bytes(shown)))
        write_tar(folder / split / "0.tar", members)
        (folder / split / "nshards.txt").write_text("1\n")
    (folder / "classnames.txt").write_text("\n".join(names))
    return folder


def npy_bytes(array):
    """Return an array as the bytes of a .npy file."""
    import io

    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()
