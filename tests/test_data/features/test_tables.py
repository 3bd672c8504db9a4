"""Tables of features: what is read by which id, pooled moments, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bimodal_cl.data import Manifest
from bimodal_cl.data.features.manifest import FeatureManifest, TowersRecord, find_features
from bimodal_cl.data.features.tables import FeatureTable, FeatureTables
from tests.refusals import refused
from tests.test_data.features.conftest import moments_of, read_first_text_ids
from tests.test_data.tiny_shards import caption_count

Write = Callable[..., Path]
WriteFeatures = Callable[..., FeatureManifest]


@pytest.fixture
def two_sets(write_shards: Write) -> list[Path]:
    return [write_shards([5, 4], name="a"), write_shards([7], replace={3: b"broken"}, name="b")]


def test_a_manifest_is_read_as_it_was_written(two_sets: list[Path], write_features: WriteFeatures) -> None:
    written = write_features(two_sets[1], views=2)
    assert FeatureManifest.load(written.folder) == written
    (fault,) = written.unusable
    assert (fault.image_id, fault.key, fault.kind) == (3, "k0003", "undecodable")


def test_rows_of_several_data_sets_are_read_by_their_mixtures_ids(
    two_sets: list[Path], write_features: WriteFeatures
) -> None:
    each = [FeatureTable(write_features(shards, views=2)) for shards in two_sets]
    tables = FeatureTables(each)
    images = np.concatenate([table.images for table in each], axis=1)
    texts = np.concatenate([table.texts for table in each])
    random = np.random.default_rng(1)
    image_ids, views = random.integers(0, 16, 50), random.integers(0, 3, 50)
    text_ids = random.integers(0, len(texts), 60)
    np.testing.assert_array_equal(tables.images(image_ids, views), images[views, image_ids])
    np.testing.assert_array_equal(tables.texts(text_ids), texts[text_ids])
    counts = [caption_count(number) for size in (9, 7) for number in range(size)]
    np.testing.assert_array_equal(np.diff(tables.first_text_ids), counts)
    assert tables.first_text_ids[0] == 0 and len(tables.first_text_ids) == 17
    assert list(tables.unusable) == [9 + 3]  # the fourth image of the second set

    alone = FeatureTables(each[:1])
    here = image_ids[image_ids < 9]
    np.testing.assert_array_equal(alone.images(here, views[: len(here)]), images[views[: len(here)], here])
    np.testing.assert_array_equal(alone.texts(np.array([3, 0])), texts[[3, 0]])


@pytest.mark.parametrize("number", [1, 2])
def test_moments_are_those_of_all_rows_together(
    number: int, two_sets: list[Path], write_features: WriteFeatures
) -> None:
    each = [FeatureTable(write_features(shards, views=1)) for shards in two_sets[:number]]
    usable = [np.isin(np.arange(table.manifest.num_images), list(FeatureTables([table]).unusable)) for table in each]
    images = np.concatenate([t.images[:, ~bad] for t, bad in zip(each, usable, strict=True)], axis=1)
    texts = np.concatenate(
        [t.texts[~np.repeat(bad, np.diff(t.first_text_ids))] for t, bad in zip(each, usable, strict=True)]
    )
    found, expected = FeatureTables(each).moments(), moments_of(images, texts)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-9, err_msg=name)


def test_data_sets_that_were_encoded_otherwise_do_not_go_together(
    two_sets: list[Path], write_features: WriteFeatures
) -> None:
    first = FeatureTable(write_features(two_sets[0], views=1))
    other = write_features(two_sets[1], views=1)
    for change in ({"towers_sha256": "1" * 64}, {"crop_scale": (0.9, 1.0)}, {"flip": False}, {"seed": 1}):
        (key,) = change
        with refused(f"{other.folder}: {key} is .*, that of {first.manifest.folder} is .*: encode them alike"):
            FeatureTables([first, FeatureTable(replace(other, **change))])


def damage_shape(folder: Path) -> None:
    np.save(folder / "texts.npy", np.zeros((3, 4), np.float16))


def damage_type(folder: Path) -> None:
    np.save(folder / "images.npy", np.load(folder / "images.npy").astype(np.float32))


def cut(folder: Path) -> None:
    path = folder / "images.npy"
    path.write_bytes(path.read_bytes()[:-10])


def remove_firsts(folder: Path) -> None:
    (folder / "first_text_ids.npy").unlink()


def empty_texts(folder: Path) -> None:
    (folder / "texts.npy").write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (damage_shape, r"texts.npy: is float16 \[3, 4\], but features.json says float16 \[18, 4\]"),
        (damage_type, r"images.npy: is float32 \[1, 9, 6\], but features.json says float16 \[1, 9, 6\]"),
        (cut, r"images.npy: cannot be read \("),
        (remove_firsts, r"first_text_ids.npy: cannot be read \("),
        (empty_texts, r"texts.npy: cannot be read \("),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_damaged_tables_are_refused(
    damage: Callable[[Path], None], match: str, two_sets: list[Path], write_features: WriteFeatures
) -> None:
    written = write_features(two_sets[0])
    damage(written.folder)
    with refused(match):
        FeatureTable(written)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 no archive"])
def test_damaged_moments_are_refused(
    content: bytes | None, two_sets: list[Path], write_features: WriteFeatures
) -> None:
    written = write_features(two_sets[0])
    path = written.folder / "moments.npz"
    path.unlink() if content is None else path.write_bytes(content)
    with refused(r"moments.npz: cannot be read \("):
        FeatureTables([FeatureTable(written)]).moments()


def test_moments_without_a_part_are_refused(two_sets: list[Path], write_features: WriteFeatures) -> None:
    written = write_features(two_sets[0])
    np.savez(written.folder / "moments.npz", image_mean=np.zeros(6))
    with refused(r"moments.npz: holds no 'image_variance' of 6 numbers"):
        FeatureTables([FeatureTable(written)]).moments()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"veiws": 1}, "unknown key 'veiws'; did you mean 'views'"),
        ({"views": ...}, "key 'views' is missing"),
        ({"version": 2}, "its version is not 1"),
        ({"num_images": "nine"}, "num_images must be a whole number, got 'nine'"),
        ({"unusable": [{"kind": "undecodable"}]}, "features.json: .*missing"),
        ({"crop_scale": 3}, "features.json: .*int"),
    ],
)
def test_a_description_that_is_none_is_refused(
    change: dict, match: str, two_sets: list[Path], write_features: WriteFeatures
) -> None:
    path = write_features(two_sets[0]).folder / "features.json"
    values = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))
    with refused(f"features.json: {match}" if "features.json" not in match else match):
        FeatureManifest.load(path.parent)


def test_features_are_found_by_the_shards_whose_folder_may_move(
    two_sets: list[Path], write_features: WriteFeatures, tmp_path: Path
) -> None:
    written = [write_features(shards) for shards in two_sets]
    moved = two_sets[1].rename(tmp_path / "moved")
    manifests = [Manifest.load(folder) for folder in (moved, two_sets[0])]
    assert find_features(tmp_path / "features", manifests, "data.features") == written[::-1]


def test_shards_without_features_are_named(two_sets: list[Path], write_features: WriteFeatures, tmp_path: Path) -> None:
    folder = tmp_path / "features"
    manifests = [Manifest.load(shards) for shards in two_sets]
    with refused(f"data.features={folder}: no such folder; `bimodal-prep encode SHARDS .* --to {folder}` writes them"):
        find_features(folder, manifests, "data.features")
    folder.mkdir()
    with refused(f"--features={folder}: holds no features"):
        find_features(folder, manifests, "--features")
    write_features(two_sets[0])
    with refused(f"has no features of {two_sets[1]} as it is now, only a .*`bimodal-prep encode {two_sets[1]} "):
        find_features(folder, manifests, "data.features")
    description = json.loads((two_sets[0] / "manifest.json").read_text())
    description["shards"].reverse()
    (two_sets[0] / "manifest.json").write_text(json.dumps(description))
    with refused(f"has no features of {two_sets[0]} as it is now"):
        find_features(folder, [Manifest.load(two_sets[0])], "data.features")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"version": 1, "model": {}, "sha256": ""}, "towers.json: .*text_norm"),
        ({"version": 3}, "towers.json: its version is not 1"),
        (None, "towers.json"),
    ],
)
def test_a_record_of_towers_that_is_none_is_refused(content: dict | None, match: str, tmp_path: Path) -> None:
    TowersRecord({"embed_dim": 3}, "0" * 64, "").save(tmp_path)
    assert TowersRecord.load(tmp_path) == TowersRecord({"embed_dim": 3}, "0" * 64, "")
    path = tmp_path / "towers.json"
    path.unlink() if content is None else path.write_text(json.dumps(content))
    with refused(match):
        TowersRecord.load(tmp_path)


def test_first_text_ids_count_no_text_of_an_image_without_one(
    write_shards: Write, write_features: WriteFeatures
) -> None:
    shards = write_shards([6], replace={2: ""})
    table = FeatureTable(write_features(shards))
    np.testing.assert_array_equal(table.first_text_ids, read_first_text_ids(Manifest.load(shards)))
    assert np.diff(table.first_text_ids)[2] == 0
