"""Batches of an epoch: what they hold, and that workers, ranks and resuming change nothing."""

from __future__ import annotations

import io
import multiprocessing
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from bimodal_cl.data import Batch, Manifest, open_stream
from bimodal_cl.data.images.transforms import TrainTransform
from bimodal_cl.data.shards.reader import RowReader
from bimodal_cl.errors import UserError
from tests.test_data.cropping import crop_decoded
from tests.test_data.tiny_shards import caption_count

SIZES = [5, 1, 17, 9, 1, 12]  # 45 images
FIRST_TEXT = [sum(caption_count(n) for n in range(image_id)) for image_id in range(45)]


def require_equal(ours: list[Batch], theirs: list[Batch]) -> None:
    assert [batch.step for batch in ours] == [batch.step for batch in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.image_ids, b.image_ids)
        assert torch.equal(a.text_ids, b.text_ids)
        assert torch.equal(a.first_text_ids, b.first_text_ids)
        assert (a.texts, a.captions) == (b.texts, b.captions)


def require_right(batch: Batch) -> None:
    """The pixels, captions and ids of a batch belong together (images of tiny shards show their number)."""
    for row, image_id in enumerate(batch.image_ids.tolist()):
        assert batch.images[row].amax(dim=(1, 2)).tolist() == [image_id % 256, image_id // 256, 77]
        captions = [f"{image_id}-{n}" for n in range(caption_count(image_id))]
        assert batch.captions[row] == captions
        assert batch.first_text_ids[row] == FIRST_TEXT[image_id]
        assert batch.texts[row] == captions[int(batch.text_ids[row]) - FIRST_TEXT[image_id]]


def test_an_epoch_holds_every_image_once(write_shards: Callable[..., Path]) -> None:
    stream = open_stream(write_shards(SIZES), batch_size=8, image_size=6, seed=1, epoch=2, shuffle_window=4)
    assert (stream.steps, len(stream), stream.dropped) == (5, 5, 5)
    batches = list(stream)
    ids = torch.cat([batch.image_ids for batch in batches])
    assert len(ids) == len(ids.unique()) == 40
    assert ids.dtype == batches[0].text_ids.dtype == batches[0].first_text_ids.dtype == torch.int64
    for batch in batches:
        assert batch.images.shape == (8, 3, 6, 6) and batch.images.dtype == torch.uint8
        require_right(batch)
    require_equal(list(stream), batches)  # again, the same
    assert (stream.report().samples, stream.report().total) == (40, 0)


def test_every_caption_is_drawn_in_some_epoch(write_shards: Callable[..., Path]) -> None:
    folder = write_shards(SIZES)
    drawn: dict[int, set[int]] = {}
    for epoch in range(12):
        for batch in open_stream(folder, batch_size=9, image_size=4, epoch=epoch):
            for image_id, text_id in zip(batch.image_ids.tolist(), batch.text_ids.tolist(), strict=True):
                drawn.setdefault(image_id, set()).add(text_id - FIRST_TEXT[image_id])
    assert sorted(drawn) == list(range(45))
    for image_id, captions in drawn.items():
        assert captions == set(range(caption_count(image_id)))


def test_captions_are_drawn_for_each_image_by_itself(write_shards: Callable[..., Path]) -> None:
    drawn = []
    for batch in open_stream(write_shards([90]), batch_size=90, image_size=4):
        for image_id, text_id in zip(batch.image_ids.tolist(), batch.text_ids.tolist(), strict=True):
            if caption_count(image_id) == 3:
                drawn.append(text_id - sum(caption_count(n) for n in range(image_id)))
    assert len(drawn) == 30
    assert all(drawn.count(number) >= 3 for number in range(3))  # P(fewer) < 1e-3 for a uniform draw; this one is fixed


def test_crops_are_a_function_of_seed_epoch_and_image(write_shards: Callable[..., Path]) -> None:
    gradient = Image.linear_gradient("L").convert("RGB")
    out = io.BytesIO()
    gradient.save(out, "PNG")
    folder = write_shards([7], dict.fromkeys(range(7), out.getvalue()))  # all alike, so that only crops differ
    transform = TrainTransform(8, scale=(0.2, 0.6), ratio=(0.5, 2.0), flip=True)
    options = {"scale": (0.2, 0.6), "ratio": (0.5, 2.0), "flip": True}
    seen: list[torch.Tensor] = []
    for seed, epoch, num_workers in ((0, 0, 0), (0, 1, 2), (3, 0, 1)):
        for batch in open_stream(folder, 2, 8, seed=seed, epoch=epoch, num_workers=num_workers, **options):
            for image, image_id in zip(batch.images, batch.image_ids.tolist(), strict=True):
                assert torch.equal(image, crop_decoded(transform, gradient, seed, epoch, image_id))
                seen.append(image.flatten())
    assert len(torch.stack(seen).unique(dim=0)) == len(seen) == 18


@pytest.mark.parametrize("num_workers", [1, 3])
def test_workers_change_nothing(write_shards: Callable[..., Path], num_workers: int) -> None:
    folder = write_shards(SIZES)
    alone = list(open_stream(folder, batch_size=6, image_size=5, seed=3))
    require_equal(list(open_stream(folder, batch_size=6, image_size=5, seed=3, num_workers=num_workers)), alone)
    resumed = open_stream(folder, batch_size=6, image_size=5, seed=3, num_workers=num_workers, start_step=4)
    assert (resumed.steps, len(resumed)) == (7, 3)
    require_equal(list(resumed), alone[4:])
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("window", [3, 100])
@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_the_same_global_batches(write_shards: Callable[..., Path], world_size: int, window: int) -> None:
    folder = write_shards(SIZES)
    one = list(open_stream(folder, batch_size=8, image_size=5, shuffle_window=window))
    size = 8 // world_size
    for rank in range(world_size):
        part = open_stream(
            folder, batch_size=size, image_size=5, rank=rank, world_size=world_size, shuffle_window=window, start_step=1
        )
        assert part.steps == len(one)
        batches = list(part)
        for batch, whole in zip(batches, one[1:], strict=True):
            rows = slice(rank * size, (rank + 1) * size)
            assert torch.equal(batch.images, whole.images[rows])
            assert torch.equal(batch.image_ids, whole.image_ids[rows])
            assert torch.equal(batch.text_ids, whole.text_ids[rows])
            assert batch.texts == whole.texts[rows]


def test_any_step_can_be_the_first(write_shards: Callable[..., Path]) -> None:
    folder = write_shards([31, 2])
    whole = list(open_stream(folder, batch_size=4, image_size=5, epoch=1))
    for start_step in range(len(whole) + 1):
        require_equal(list(open_stream(folder, 4, 5, epoch=1, start_step=start_step)), whole[start_step:])


def test_nothing_before_the_first_step_is_read(write_shards: Callable[..., Path]) -> None:
    # A shard that the last step does not need is damaged: opening it would raise.
    folder = write_shards([8] * 5)
    manifest = Manifest.load(folder)
    (last,) = open_stream(folder, 5, 4, start_step=7, shuffle_window=1)
    unused = min(set(range(5)) - set((last.image_ids // 8).tolist()))
    path = Path(manifest.location(unused))
    path.write_bytes(bytes([1]) * path.stat().st_size)
    require_equal(list(open_stream(folder, 5, 4, start_step=7, shuffle_window=1)), [last])
    with pytest.raises(UserError, match=f"{path.name}: no tar header at byte 0"):
        list(open_stream(folder, 5, 4, shuffle_window=1))


def test_evaluation_takes_everything_in_order(write_shards: Callable[..., Path]) -> None:
    folder = write_shards(SIZES)
    ids: list[int] = []
    for rank in range(2):
        stream = open_stream(folder, 8, 6, rank=rank, world_size=2, train=False, num_workers=rank)
        batches = list(stream)
        assert stream.steps == len(batches) and stream.dropped == 0
        for batch in batches:
            require_right(batch)
            assert torch.equal(batch.text_ids, batch.first_text_ids)
        ids += torch.cat([batch.image_ids for batch in batches]).tolist()
    assert ids == list(range(45))
    assert [len(batch) for batch in open_stream(folder, 20, 6, train=False)] == [20, 20, 5]


def test_leaving_early_ends_the_workers(write_shards: Callable[..., Path]) -> None:
    batches = iter(open_stream(write_shards([40]), 2, 4, num_workers=2))
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    del batches
    assert not multiprocessing.active_children()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted in /proc")
def test_few_open_files_are_enough(write_shards: Callable[..., Path]) -> None:
    manifest = Manifest.load(write_shards(SIZES))
    before = len(list(Path("/proc/self/fd").iterdir()))
    reader = RowReader(manifest, max_indexed_rows=18, max_open_files=2)
    order = [44, 0, 5, 6, 44, 31, 22, 1, 23, 32, 5]
    rows = [reader.read(image_id) for image_id in order]
    assert [row.captions[0] for row in rows] == [f"{image_id}-0" for image_id in order]
    assert [row.first_text_id for row in rows] == [FIRST_TEXT[image_id] for image_id in order]
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 2
    reader.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_worker_can_be_started_afresh(write_shards: Callable[..., Path]) -> None:
    # Where processes are not forked, the stages travel to the workers pickled.
    stream = open_stream(write_shards(SIZES), 8, 4, shuffle_window=4)
    pipeline = pickle.loads(pickle.dumps(stream.build_pipeline()))
    require_equal([delivery.batch for delivery in pipeline], list(stream))


def test_opening_a_stream_draws_nothing_from_the_global_generators(write_shards: Callable[..., Path]) -> None:
    folder = write_shards([10])
    torch.manual_seed(5)
    expected = torch.get_rng_state()
    list(open_stream(folder, 2, 4, num_workers=1))
    list(open_stream(folder, 2, 4))
    assert torch.equal(torch.get_rng_state(), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ({"batch_size": 8, "world_size": 3}, "10 images do not fill one global batch of 24"),
        ({"world_size": 2, "rank": 2}, "rank must be in [0, 1], got 2"),
        ({"start_step": 6}, "start_step must be in [0, 5], got 6"),
        ({"seed": -1}, "seed must be >= 0, got -1"),
        ({"num_workers": -1}, "num_workers must be >= 0, got -1"),
        ({"image_size": 0}, "image_size must be at least 1, got 0"),
        ({"image_size": 0, "train": False}, "image_size must be at least 1, got 0"),
        ({"shuffle_window": 0}, "shuffle_window must be at least 1, got 0"),
        ({"max_bad_fraction": 1.5}, "max_bad_fraction must be in [0, 1], got 1.5"),
        ({"scale": (0.9, 0.5)}, "scale must be two numbers with 0 < min <= max <= 1.0, got (0.9, 0.5)"),
        ({"ratio": (0, 1)}, "ratio must be two numbers with 0 < min <= max <= inf, got (0, 1)"),
    ],
)
def test_values_out_of_range_are_named(write_shards: Callable[..., Path], options: dict, message: str) -> None:
    folder = write_shards([10])
    with pytest.raises(UserError, match=re.escape(message)):
        open_stream(folder, **{"batch_size": 2, "image_size": 4, **options})
