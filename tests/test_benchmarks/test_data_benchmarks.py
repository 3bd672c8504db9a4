"""The benchmarks of decoders, loaders and shards run at tiny sizes and print complete rows."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from bimodal_cl.data.images.decode import decode_image
from bimodal_cl.errors import UserError
from tests.benchmarks.__main__ import main
from tests.benchmarks.open_clip_loader import take_batches
from tests.benchmarks.photos import make_photos
from tests.test_benchmarks.conftest import rows_of


def test_decoders_prints_a_row_for_every_library(bench):
    rows = rows_of(bench("decoders", "--quick", "--sides", "64"), "decode, crop, resize to 64 x 64")
    for name in ("Pillow", "Pillow, draft", "simplejpeg in eighths, resized by Pillow", "ours, from the header on"):
        speed, ratio, mean, _ = (float(cell) for cell in rows[name])
        assert speed > 0 and ratio > 0 and (mean < 4), name
    assert rows["Pillow"][1:] == ["1.00", "0.0", "0.0"]


LOADER = ["loader", "--quick", "--num-workers", "1"]


def test_loader_prints_our_row_and_stages(bench):
    output = bench(*LOADER)
    (cells,) = rows_of(output, "64 x 64, batches of 4, 1 workers").values()
    assert float(cells[0]) > 0 and cells[-1] == "1.00"
    for stage in ("read", "decode", "augment", "collate", "wait"):
        assert f"\n{stage} " in output


def test_another_interpreter_without_open_clip_is_named(tmp_path, capsys):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'open_clip'\" >&2\nexit 1\n")
    python.chmod(0o755)
    for path, message in (
        (str(python), "ModuleNotFoundError: No module named 'open_clip'\n"),
        ("nowhere/python", "nowhere/python: No such file or directory\n"),
    ):
        assert main([*LOADER, "--open-clip-python", path]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {path}") and error.endswith(message)


def test_batches_are_taken_after_the_warm_up():
    taken = []
    seconds, _ = take_batches((taken.append(n) for n in range(9)), warm_up=3, count=4)
    assert len(taken) == 7 and seconds > 0
    with pytest.raises(RuntimeError, match="gave 6 batches, 7 are needed"):
        take_batches(range(6), warm_up=3, count=4)


def test_photos_are_mosaics_of_what_is_there(tmp_path):
    for number in range(24):
        Image.new("RGB", (140, 130), (10 * number, 0, 0)).save(tmp_path / f"{number:02d}.png")
    photos = [np.asarray(decode_image(data)) for data in make_photos(tmp_path, 2)]
    assert [photo.shape for photo in photos] == [(375, 500, 3)] * 2
    for number in range(24):
        row, column = divmod(number % 12, 4)
        assert abs(int(photos[number // 12][125 * row + 60, 125 * column + 60, 0]) - 10 * number) <= 3
    with pytest.raises(UserError, match="fewer than the 36 images that 3 mosaics take"):
        make_photos(tmp_path, 3)


def test_synthetic_photos_differ_and_are_as_large_as_real_ones():
    photos = make_photos(None, 2)
    assert photos[0] != photos[1]
    assert all(60_000 < len(photo) < 200_000 for photo in photos)
    assert make_photos(None, 1)[0] == photos[0]


def test_shards_prints_index_and_position(bench):
    output = bench("shards", "--quick")
    index = rows_of(output, "4 shards of 50 samples")
    assert set(index) == {"tar tf", "bimodal-prep index", "bimodal-prep index, one process"}
    assert index["tar tf"][-1] == "1.00" and all(float(cells[-1]) > 0 for cells in index.values())
    position = rows_of(output, "in the middle of an epoch of 200")
    assert len(position) == 4 and "row tables, 2 workers" in position
