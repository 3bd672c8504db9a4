"""Samples that cannot be used: named, counted, replaced by rule, and too many of them."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bimodal_cl.data import Manifest, index_shard, open_stream
from bimodal_cl.data.order.draws import Purpose, draw_below
from bimodal_cl.data.pairs import image_ids_of_texts, read_pairs
from bimodal_cl.data.shards.faults import MAX_EXAMPLES, Fault, FaultCounts
from bimodal_cl.data.shards.reader import RowReader
from bimodal_cl.errors import UserError
from tests.test_data.tiny_shards import caption_count, encode_image

GARBAGE = b"\x89PNG\r\n\x1a\n but no more"
BAD: dict[int, bytes | str] = {
    7: GARBAGE,
    12: b"",
    13: " \n",
    30: encode_image(30, format="JPEG")[:-60],
    31: encode_image(31, size=(60, 60)),
}
KINDS = {"zero_bytes": 1, "undecodable": 2, "empty_caption": 1, "too_many_pixels": 1}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_faults_are_counted_by_kind_and_named(
    write_shards: Callable[..., Path], caplog: pytest.LogCaptureFixture, num_workers: int
) -> None:
    folder = write_shards([10, 20, 20], BAD)
    with caplog.at_level(logging.WARNING):
        stream = open_stream(folder, 10, 4, num_workers=num_workers, max_bad_fraction=0.1, max_pixels=3000)
        batches = list(stream)
    report = stream.report()
    assert report.samples == 50 and dict(report.by_kind) == KINDS and report.total == 5
    named = {fault.image_id: (fault.shard, fault.key, fault.kind) for fault in report.examples}
    assert named == {
        7: ("000.tar", "k0007", "undecodable"),
        12: ("001.tar", "k0012", "zero_bytes"),
        13: ("001.tar", "k0013", "empty_caption"),
        30: ("002.tar", "k0030", "undecodable"),
        31: ("002.tar", "k0031", "too_many_pixels"),
    }
    assert "shard 001.tar, key k0012: zero_bytes (zero bytes)" in caplog.text
    assert "60 x 60 pixels, more than 3000" in caplog.text
    assert [len(batch) for batch in batches] == [10] * 5


def test_a_place_is_filled_by_the_stated_rule(write_shards: Callable[..., Path]) -> None:
    good = {batch.step: batch for batch in open_stream(write_shards([10, 20, 20], name="good"), 10, 4, seed=2)}
    folder = write_shards([10, 20, 20], BAD, name="bad")
    first, size = {7: 0, 12: 10, 13: 10, 30: 30, 31: 30}, {7: 10, 12: 20, 13: 20, 30: 20, 31: 20}
    replaced = 0
    for batch in open_stream(folder, 10, 4, seed=2, max_bad_fraction=0.1, max_pixels=3000):
        planned = good[batch.step].image_ids.tolist()
        for row, (image_id, wanted) in enumerate(zip(batch.image_ids.tolist(), planned, strict=True)):
            if wanted not in BAD:
                assert image_id == wanted
                continue
            attempts = [
                first[wanted] + int(draw_below(size[wanted], Purpose.SUBSTITUTE, 2, 0, wanted, attempt)[0])
                for attempt in range(16)
            ]
            assert image_id == next(attempt for attempt in attempts if attempt not in BAD)
            assert batch.captions[row] == [f"{image_id}-{n}" for n in range(caption_count(image_id))]
            assert batch.texts[row] == batch.captions[row][batch.text_ids[row] - batch.first_text_ids[row]]
            replaced += 1
    assert replaced == len(BAD)


def test_a_replaced_sample_does_not_depend_on_ranks_or_workers(write_shards: Callable[..., Path]) -> None:
    folder = write_shards([10, 20, 20], BAD)
    options = {"max_bad_fraction": 0.2, "max_pixels": 3000}
    whole = list(open_stream(folder, 10, 4, **options))
    for rank in range(2):
        part = list(open_stream(folder, 5, 4, rank=rank, world_size=2, num_workers=rank, start_step=2, **options))
        for batch, expected in zip(part, whole[2:], strict=True):
            assert torch.equal(batch.image_ids, expected.image_ids[rank * 5 : rank * 5 + 5])
            assert torch.equal(batch.images, expected.images[rank * 5 : rank * 5 + 5])


def test_a_read_error_is_a_fault_of_its_sample(write_shards: Callable[..., Path], monkeypatch: Any) -> None:
    folder = write_shards([12])
    place = int(index_shard(folder / "000.tar").image_offset[5])
    pread = os.pread

    def fail_once(descriptor: int, size: int, offset: int) -> bytes:
        if offset == place:
            raise OSError(errno.EIO, "Input/output error")
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", fail_once)
    stream = open_stream(folder, 12, 4)
    (batch,) = stream
    assert 5 not in batch.image_ids.tolist()
    assert [str(fault) for fault in stream.report().examples] == [
        "shard 000.tar, key k0005: unreadable ([Errno 5] Input/output error)"
    ]


def test_evaluation_leaves_faulty_samples_out(write_shards: Callable[..., Path]) -> None:
    folder = write_shards([10, 20, 20], BAD)
    stream = open_stream(folder, 10, 4, train=False, max_bad_fraction=0.1, max_pixels=3000)
    assert torch.cat([batch.image_ids for batch in stream]).tolist() == [n for n in range(50) if n not in BAD]
    assert dict(stream.report().by_kind) == KINDS
    # A batch of which nothing is left is not given out, and its faults still count.
    folder = write_shards([4], {2: GARBAGE, 3: GARBAGE}, name="halves")
    stream = open_stream(folder, 2, 4, train=False, max_bad_fraction=1)
    assert [batch.image_ids.tolist() for batch in stream] == [[0, 1]]
    assert stream.report().total == 2


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("train", [True, False])
def test_too_many_faults_stop_the_stream(write_shards: Callable[..., Path], train: bool, num_workers: int) -> None:
    folder = write_shards([30, 30], dict.fromkeys(range(30, 60), GARBAGE))  # a whole shard
    stream = open_stream(folder, 10, 4, train=train, num_workers=num_workers)
    with pytest.raises(
        UserError, match=r"cannot be used \(\d+ undecodable\), more than max_bad_fraction=0.01"
    ) as error:
        list(stream)
    assert re.search(
        r"the last: shard 001\.tar, key k00[345]\d: undecodable \(not an image that can be read \(its bytes are a",
        str(error.value),
    )
    assert "bimodal-prep verify" in str(error.value) and "\n" not in str(error.value)
    assert stream.report().total > 5


def test_nothing_good_at_all_is_one_clear_line(write_shards: Callable[..., Path]) -> None:
    folder = write_shards([3], dict.fromkeys(range(3), GARBAGE))
    for num_workers in (0, 1):
        with pytest.raises(
            UserError, match=r"32 images drawn to replace image \d of shard 000\.tar, key k000\d, are all"
        ):
            list(open_stream(folder, 3, 4, num_workers=num_workers))


def test_a_single_bad_image_in_a_shard_of_its_own_is_replaced(write_shards: Callable[..., Path]) -> None:
    folder = write_shards([1] * 20, {4: GARBAGE})
    stream = open_stream(folder, 20, 4)
    (batch,) = stream
    assert stream.report().total == 1
    assert 4 not in batch.image_ids.tolist() and len(batch) == 20


def test_how_many_are_too_many() -> None:
    fault = Fault("undecodable", "s.tar", "k", 0, "why")

    def stops(faults: int, samples: int, fraction: float) -> bool:
        counts = FaultCounts()
        counts.add(samples, [fault] * faults)
        try:
            counts.require_few(fraction, "data", fault)
        except UserError:
            return True
        return False

    assert not stops(1, 20, 0.01)
    assert not stops(5, 100, 0.01) and stops(6, 100, 0.01)
    assert not stops(10_000, 1_000_000, 0.01) and stops(10_401, 1_000_000, 0.01)
    assert stops(1, 1_000_000, 0.0)
    assert not stops(20, 20, 1.0)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_shard_that_does_not_fit_the_manifest_is_named(write_shards: Callable[..., Path], num_workers: int) -> None:
    folder = write_shards([6, 6])
    shard, other = folder / "000.tar", folder / "001.tar"
    content = shard.read_bytes()
    other.write_bytes(content.replace(b".txt\0", b".text"))  # the same size, but no captions
    with pytest.raises(UserError, match=r"001\.tar: no tar header at byte \d+ \(wrong checksum\)"):
        list(open_stream(folder, 12, 4, num_workers=num_workers))
    shard.unlink()
    with pytest.raises(UserError, match=r"shard 000\.tar is in the manifest but cannot be found"):
        open_stream(folder, 12, 4, num_workers=num_workers)


def test_other_counts_than_the_manifest_says_are_named(write_shards: Callable[..., Path]) -> None:
    folder = write_shards([3, 3])
    manifest = (folder / "manifest.json").read_text().replace('"num_texts": 6', '"num_texts": 5', 1)
    (folder / "manifest.json").write_text(manifest.replace('"num_texts": 12', '"num_texts": 11'))
    with pytest.raises(UserError, match=r"000\.tar: holds 3 images and 6 captions but the manifest says 3 and 5"):
        list(open_stream(folder, 6, 4))


def test_pairs_by_id(write_shards: Callable[..., Path]) -> None:
    folder = write_shards([4, 5], {5: ""})
    pairs = read_pairs(folder, [8, 0, 8, 4])
    assert sorted(pairs) == [0, 4, 8]
    assert (pairs[8].key, pairs[8].captions, pairs[8].image.getpixel((0, 0))) == (
        "k0008",
        ["8-0", "8-1", "8-2"],
        (8, 0, 77),
    )
    image_of = [n for n in range(9) for _ in range(0 if n == 5 else caption_count(n))]
    manifest = Manifest.load(folder)
    assert image_ids_of_texts(manifest, range(len(image_of))).tolist() == image_of
    assert pairs[4].first_text_id == image_of.index(4)
    with pytest.raises(UserError, match=r"image_id 9 is outside \[0, 9\)"):
        read_pairs(folder, [9])
    with pytest.raises(UserError, match=r"key k0002: undecodable"):
        read_pairs(write_shards([4], {2: GARBAGE}, name="bad"), [2])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_keys_are_looked_up_for_the_examples_alone(write_shards: Callable[..., Path], num_workers: int) -> None:
    folder = write_shards([30, 30], dict.fromkeys(range(0, 60, 2), b""))
    stream = open_stream(folder, 5, 4, max_bad_fraction=1, num_workers=num_workers)
    list(stream)
    report = stream.report()
    assert report.by_kind == {"zero_bytes": 30}
    assert len(report.examples) == MAX_EXAMPLES
    assert all(fault.key == f"k{fault.image_id:04d}" for fault in report.examples)


def test_a_fault_without_its_key_names_the_row(write_shards: Callable[..., Path]) -> None:
    manifest = Manifest.load(write_shards([3, 4]))
    reader = RowReader(manifest)
    assert reader.describe(5) == ("001.tar", "k0005")
    assert reader.describe(5, with_key=False) == ("001.tar", "row 2")
    reader.close()


def test_oddities_of_a_substitute_are_not_counted(write_shards: Callable[..., Path]) -> None:
    folder = write_shards([2], {0: b"", 1: encode_image(1, mode="P")})
    stream = open_stream(folder, 2, 4, max_bad_fraction=1)
    (batch,) = stream
    assert batch.image_ids.tolist() == [1, 1]
    assert (stream.report().by_kind, stream.report().used) == ({"zero_bytes": 1}, {"palette": 1})
