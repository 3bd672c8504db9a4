"""Several data sets in one training: ids, shares of an epoch, and that workers, ranks and resuming change nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bimodal_cl.data import Manifest, open_stream
from bimodal_cl.data.pairs import image_ids_of_texts, read_pairs
from bimodal_cl.data.pipeline.profile import profile_stream
from bimodal_cl.data.pipeline.stages import TIMED
from bimodal_cl.data.shards.mixture import Mixture
from bimodal_cl.data.shards.reader import RowReader
from bimodal_cl.errors import UserError
from tests.test_data.tiny_shards import caption_count


def texts_before(image_id: int) -> int:
    return sum(caption_count(n) for n in range(image_id))


@pytest.fixture
def two_sets(write_shards: Callable[..., Path]) -> list[Manifest]:
    """Two sets of 20 and 30 images; image n of either shows colour n and has the captions n-0, n-1, ..."""
    return [Manifest.load(write_shards(sizes, name=name)) for sizes, name in (([7, 13], "a"), ([10, 1, 19], "b"))]


def drawn(mixture: Mixture, epoch: int) -> Counter[int]:
    firsts, sizes = mixture.segments(seed=3, epoch=epoch)
    return Counter(np.concatenate([np.arange(f, f + n) for f, n in zip(firsts, sizes, strict=True)]).tolist())


def test_whole_repeats_take_every_row_that_often(two_sets: list[Manifest]) -> None:
    mixture = Mixture(two_sets, repeats=[2, 1])
    assert (mixture.num_images, mixture.num_texts, mixture.rows_per_epoch) == (50, 40 + 60 - 1, 70)
    assert drawn(mixture, 5) == Counter({n: 2 if n < 20 else 1 for n in range(50)})


@pytest.mark.parametrize("repeat", [0.25, 0.3, 1.5])
def test_fractions_are_walked_through_by_the_epochs(two_sets: list[Manifest], repeat: float) -> None:
    mixture = Mixture(two_sets, repeats=[1, repeat])
    rows = round(30 * repeat)
    total: Counter[int] = Counter()
    for epoch in range(10):
        counts = drawn(mixture, epoch)
        assert counts.total() == 20 + rows == mixture.rows_per_epoch
        assert max(counts[n] for n in range(20, 50)) - min(counts[n] for n in range(20, 50)) == 1
        total += counts
    seen = [total[n] for n in range(20, 50)]
    assert sum(seen) == 10 * rows and max(seen) - min(seen) <= 1  # evenly, over the epochs


def test_weights_are_shares_of_an_epoch_as_long_as_all_sets(two_sets: list[Manifest]) -> None:
    mixture = Mixture(two_sets, weights=[3, 1])
    assert mixture.rows == (38, 12)  # of 50: 37.5 and 12.5
    batches = open_stream(mixture, 5, 4, seed=1, num_epochs=2)
    counts = sum((mixture.count(batch.image_ids.numpy()) for batch in batches), start=Counter[str]())
    assert counts == batches.samples_by_set == {"a": 76, "b": 24}


def test_pictures_captions_and_ids_belong_together(two_sets: list[Manifest]) -> None:
    mixture = Mixture(two_sets, repeats=[1, 2])
    ids: list[int] = []
    for batch in open_stream(mixture, 8, 6, seed=2, shuffle_window=4):
        for row, image_id in enumerate(batch.image_ids.tolist()):
            inside = image_id if image_id < 20 else image_id - 20
            assert batch.images[row].amax(dim=(1, 2)).tolist() == [inside, 0, 77]
            captions = [f"{inside}-{n}" for n in range(caption_count(inside))]
            first = texts_before(inside) + (0 if image_id < 20 else texts_before(20))
            assert batch.captions[row] == captions and batch.first_text_ids[row] == first
            assert batch.texts[row] == captions[int(batch.text_ids[row]) - first]
            ids.append(image_id)
    assert len(ids) == 80 and set(ids) == set(range(50))
    pairs = read_pairs(mixture, [3, 21])
    assert [pairs[n].captions[0] for n in (3, 21)] == ["3-0", "1-0"] and pairs[21].key == "k0001"
    texts = [pairs[n].first_text_id for n in (3, 21)]
    assert image_ids_of_texts(mixture, texts).tolist() == [3, 21]


@pytest.mark.parametrize("num_workers", [0, 3])
def test_batches_of_several_epochs_come_from_any_position(two_sets: list[Manifest], num_workers: int) -> None:
    mixture = Mixture(two_sets, repeats=[1.5, 0.5])  # 45 images, 5 batches of 8
    whole = [batch for epoch in range(3) for batch in open_stream(mixture, 8, 4, epoch=epoch)]
    assert [(batch.epoch, batch.step) for batch in whole] == [(epoch, step) for epoch in range(3) for step in range(5)]
    for rank in range(2):
        rows = slice(4 * rank, 4 * rank + 4)
        stream = open_stream(
            mixture, 4, 4, epoch=1, num_epochs=2, start_step=3, rank=rank, world_size=2, num_workers=num_workers
        )
        assert len(stream) == 7
        for batch, expected in zip(stream, whole[8:], strict=True):
            assert (batch.epoch, batch.step) == (expected.epoch, expected.step)
            assert torch.equal(batch.images, expected.images[rows])
            assert torch.equal(batch.text_ids, expected.text_ids[rows])


def test_workers_tokenize(two_sets: list[Manifest]) -> None:
    for batch in open_stream(Mixture(two_sets), 10, 4, num_workers=1, tokenize=count_letters):
        assert batch.tokens is not None and batch.tokens.tolist() == [[len(text)] for text in batch.texts]


def count_letters(texts: list[str]) -> torch.Tensor:
    return torch.tensor([[len(text)] for text in texts])


def test_the_account_of_a_stream_adds_up(two_sets: list[Manifest]) -> None:
    profile = profile_stream(open_stream(Mixture(two_sets), 5, 32), 4)
    assert profile.samples == 20
    work = sum(profile.by_stage[name] for name in TIMED)
    assert 0.5 * profile.seconds < work <= profile.by_stage["wait"] <= profile.seconds
    assert all(profile.by_stage[name] > 0 for name in TIMED)
    lines = profile.lines()
    assert len(lines) == 3 + len(TIMED) and "with no workers" in lines[0]
    with pytest.raises(UserError, match="2 batches are too few for a profile: it needs 4"):
        profile_stream(open_stream(Mixture(two_sets), 25, 4, num_workers=2), 4)


def test_sets_of_one_name_are_told_apart(write_shards: Callable[..., Path]) -> None:
    folders = [write_shards([2], name=name) for name in ("x/train", "y/train")]
    assert Mixture([Manifest.load(folder) for folder in folders]).names == tuple(map(str, folders))


def test_values_out_of_range_are_named(two_sets: list[Manifest]) -> None:
    for keywords, message in (
        ({"repeats": [1, 0]}, "b: repeat must be above 0, got 0"),
        ({"weights": [-1, 1]}, "a: weight must be above 0, got -1"),
        ({"repeats": [0.01, 1]}, "a: its share of an epoch is less than one of its 20 images"),
        ({"repeats": [1, 1], "weights": [1, 1]}, "repeats or weights, not both"),
    ):
        with pytest.raises(UserError, match=message):
            Mixture(two_sets, **keywords)
    assert [Mixture(two_sets).locate(n) for n in (6, 7, 19, 20, 30, 49)] == [
        (0, 6),
        (1, 0),
        (1, 12),
        (2, 0),
        (3, 0),
        (4, 18),
    ]
    with pytest.raises(UserError, match=r"image_id 50 is outside \[0, 50\)"):
        Mixture(two_sets).locate(50)


def test_a_folder_that_comes_twice_is_refused(two_sets: list[Manifest]) -> None:
    with pytest.raises(UserError, match=r"a: comes twice; give it once, with a repeat"):
        Mixture([two_sets[0], two_sets[1], Manifest.load(two_sets[0].folder / ".." / "a")])


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted in /proc")
def test_sets_share_the_limit_of_open_files(write_shards: Callable[..., Path]) -> None:
    mixture = Mixture([Manifest.load(write_shards([1] * 12, name=f"set{n}")) for n in range(4)])
    before = len(list(Path("/proc/self/fd").iterdir()))
    reader = RowReader(mixture, max_open_files=8)
    most = 0
    for image_id in range(mixture.num_images):
        reader.read(image_id)
        most = max(most, len(list(Path("/proc/self/fd").iterdir())) - before)
    reader.close()
    assert most == 8
