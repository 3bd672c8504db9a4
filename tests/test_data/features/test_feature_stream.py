"""The stream of features has the ids, the captions, the substitutes and the counts of the stream of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bimodal_cl.data import Batch, Manifest, Stream, open_stream
from bimodal_cl.data.features.manifest import FeatureManifest
from bimodal_cl.data.features.stream import open_feature_stream
from bimodal_cl.data.features.tables import FeatureTable, FeatureTables
from bimodal_cl.data.shards.faults import Fault
from bimodal_cl.data.shards.mixture import Mixture
from tests.refusals import refused

ORDER = {"seed": 5, "epoch": 0, "start_step": 0, "num_epochs": 2, "shuffle_window": 8, "max_bad_fraction": 0.5}


@pytest.fixture
def open_both(
    write_shards: Callable[..., Path], write_features: Callable[..., FeatureManifest]
) -> Callable[..., tuple[Stream, Stream, FeatureTables]]:
    """Open the stream of features and that of images, of one data set or of two, all with unusable images."""

    def build(num_sets: int, views: int = 0, **changes: int) -> tuple[Stream, Stream, FeatureTables]:
        made = [
            write_shards([9, 8, 7], replace={2: b"broken", 3: b"", 13: ""}, name="a"),
            write_shards([12, 6], replace={0: b"broken", 7: ""}, name="b"),
        ][:num_sets]
        mixture = Mixture([Manifest.load(shards) for shards in made], repeats=[1, 1.5][:num_sets])
        tables = FeatureTables([FeatureTable(write_features(shards, views=views)) for shards in made])
        order = ORDER | changes
        images = open_stream(mixture, 4, 12, num_workers=0, **order)
        return open_feature_stream(tables, mixture, 4, **order), images, tables

    return build


def ids_of(batches: list[Batch]) -> list[tuple]:
    return [
        (each.epoch, each.step, each.image_ids.tolist(), each.text_ids.tolist(), each.first_text_ids.tolist())
        for each in batches
    ]


@pytest.mark.parametrize("num_sets", [1, 2])
@pytest.mark.parametrize(
    "changes", [{}, {"start_step": 3, "epoch": 4}, {"rank": 1, "world_size": 2, "num_epochs": 3}], ids=str
)
def test_ids_and_counts_are_those_of_the_images(
    num_sets: int, changes: dict, open_both: Callable[..., tuple[Stream, Stream, FeatureTables]]
) -> None:
    features, images, tables = open_both(num_sets, **changes)
    assert len(features) == len(images)
    found, expected = list(features), list(images)
    assert ids_of(found) == ids_of(expected)
    assert {each.epoch for each in found} == {ORDER["epoch"] + changes.get("epoch", 0) + n for n in range(2)} | (
        {2} if "num_epochs" in changes else set()
    )
    assert features.report().by_kind == images.report().by_kind and features.report().total > 0
    assert features.report().examples == images.report().examples
    for batch in found:
        assert len(batch) == 4 and batch.texts == batch.captions == []
        image_ids, text_ids = batch.image_ids.numpy(), batch.text_ids.numpy()
        np.testing.assert_array_equal(batch.images.numpy(), tables.images(image_ids, np.zeros_like(image_ids)))
        np.testing.assert_array_equal(batch.tokens.numpy(), tables.texts(text_ids))
        assert batch.images.dtype == batch.tokens.dtype == torch.float16


def test_one_of_the_augmented_views_is_drawn(
    open_both: Callable[..., tuple[Stream, Stream, FeatureTables]],
) -> None:
    features, _, tables = open_both(1, views=3, num_epochs=20)
    views: dict[int, list[int]] = {}
    for batch in features:
        for image_id, row in zip(batch.image_ids.tolist(), batch.images.numpy(), strict=True):
            (view,) = np.flatnonzero((tables.tables[0].images[:, image_id] == row).all(-1))
            views.setdefault(image_id, []).append(int(view))
    drawn = [view for each in views.values() for view in each]
    counts = np.bincount(drawn, minlength=4)
    assert counts[0] == 0 and counts[1:].min() > len(drawn) / 3 * 0.8
    assert all(len(set(each)) > 1 for each in views.values())  # another one in another epoch


def test_views_are_drawn_alike_by_any_rank_and_start(
    open_both: Callable[..., tuple[Stream, Stream, FeatureTables]],
) -> None:
    _, images, tables = open_both(1, views=3)
    mixture = images.mixture
    whole = list(open_feature_stream(tables, mixture, 4, **ORDER))
    later = list(open_feature_stream(tables, mixture, 4, **ORDER | {"start_step": 2}))
    for found, expected in zip(later, whole[2:], strict=True):
        assert torch.equal(found.images, expected.images)
    ranks = [open_feature_stream(tables, mixture, 2, **ORDER, rank=rank, world_size=2) for rank in (0, 1)]
    for first, second, expected in zip(*ranks, whole, strict=True):
        assert torch.equal(torch.cat([first.images, second.images]), expected.images)
        assert torch.equal(torch.cat([first.tokens, second.tokens]), expected.tokens)


def test_too_many_unusable_images_end_the_stream(
    open_both: Callable[..., tuple[Stream, Stream, FeatureTables]],
) -> None:
    features, images, _ = open_both(1, max_bad_fraction=0.01)
    messages = []
    for stream in (features, images):
        with refused(r"max_bad_fraction") as refusal:
            list(stream)
        messages.append(str(refusal.value))
    assert messages[0] == messages[1]


def test_images_without_a_substitute_end_the_stream(
    write_shards: Callable[..., Path], write_features: Callable[..., FeatureManifest]
) -> None:
    shards = write_shards([4])
    broken = tuple(Fault("undecodable", "000.tar", f"k{number:04d}", number, "") for number in range(4))
    tables = FeatureTables([FeatureTable(write_features(shards, unusable=broken))])
    mixture = Mixture([Manifest.load(shards)])
    with refused("all images drawn to replace image .* are faulty"):
        list(open_feature_stream(tables, mixture, 4, **ORDER))
