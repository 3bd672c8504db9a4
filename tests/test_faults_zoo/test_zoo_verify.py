"""The zoo: ``verify`` names every planted fault by shard and key, and its clean copy has none."""

import re
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from bimodal_cl.data import Manifest
from bimodal_cl.data.shards.faults import NOTED_KINDS, REPLACED_KINDS, SHARD_KINDS, USED_KINDS
from bimodal_cl.data.shards.index import index_shard
from bimodal_cl.data.shards.row_table import load_row_table
from data_prep.cli import main
from tests.fault_zoo import write_fault_zoo
from tests.test_data_prep.raw_material import captions_of, file_bytes, image_of, read_folder, read_tar

FINDING = re.compile(r"(?P<shard>\S+\.tar)(?: (?P<key>\S+))?: (?P<note>note: )?(?P<kind>[a-z_0-9]+): (?P<reason>.+)")


@pytest.fixture
def zoo(tmp_path):
    return write_fault_zoo(tmp_path / "zoo")


def read_members(path):
    with tarfile.open(path) as tar:
        return [(info.name, tar.extractfile(info).read()) for info in tar]


def verify(capsys, *arguments):
    """Exit status, and shard, key, whether it is a note, and reason of every finding, by kind."""
    capsys.readouterr()
    status = main(["verify", *map(str, arguments)])
    found = {}
    for line in capsys.readouterr().out.splitlines():
        match = FINDING.fullmatch(line)
        if match:
            place = (match["shard"], match["key"] or "", bool(match["note"]), match["reason"])
            found.setdefault(match["kind"], []).append(place)
    return status, found


def test_the_zoo_holds_every_kind(zoo):
    assert set(zoo.planted) == {*REPLACED_KINDS, *USED_KINDS, *SHARD_KINDS} - {"unreadable"}
    assert zoo.num_images % 16 == 0
    assert sum(count for kind, count in zoo.planted.items() if kind in REPLACED_KINDS) < zoo.num_images / 4
    names = {name for path in zoo.folder.glob("0000?.tar") for name, _ in read_members(path)}
    assert {"dots.in.name.jpg", "a.jpg.b.txt"} < names


def test_the_index_counts_what_was_planted(zoo):
    assert main(["index", str(zoo.folder), "--damaged", "keep", "--workers", "1"]) == 0
    manifest = Manifest.load(zoo.folder)
    assert (manifest.num_images, manifest.num_texts) == (zoo.num_images, zoo.num_texts)
    assert manifest.faults == {kind: zoo.planted[kind] for kind in SHARD_KINDS}


def test_shards_that_are_as_their_manifest_says_have_only_the_planted_faults(zoo, capsys):
    """The manifest of an index that kept what stands before the damage is no fault of its own."""
    _, before = verify(capsys, zoo.folder, "--workers", 1)
    assert main(["index", str(zoo.folder), "--damaged", "keep", "--workers", "1"]) == 0
    status, after = verify(capsys, zoo.folder, "--workers", 1)
    assert status == 1 and after == before


@pytest.mark.parametrize("workers", [1, 2])
def test_every_fault_is_named(zoo, capsys, workers):
    status, found = verify(capsys, zoo.folder, "--workers", workers)
    assert status == 1
    assert {kind: Counter((shard, key) for shard, key, _, _ in places) for kind, places in found.items()} == {
        kind: Counter(places) for kind, places in zoo.places.items()
    }
    for kind, places in found.items():
        assert all(is_note == (kind in NOTED_KINDS) and reason for _, _, is_note, reason in places)


def test_the_sums_are_printed_with_their_meaning(zoo, capsys):
    assert main(["verify", str(zoo.folder), "--workers", "1"]) == 1
    lines = capsys.readouterr().out.splitlines()
    faults = sum(count for kind, count in zoo.planted.items() if kind not in NOTED_KINDS)
    notes = sum(zoo.planted.values()) - faults
    at = lines.index(f"{zoo.folder}: {zoo.num_images} images, {faults} faults, {notes} notes")
    assert lines[-1] == "  members of no sample: 5 .txt, 2 .json, 1 .heic, 1 without an ending, 1 hidden"
    assert len(lines[at + 1 : -1]) == len(zoo.planted)
    for kind, count in zoo.planted.items():
        meaning = {**REPLACED_KINDS, **USED_KINDS, **SHARD_KINDS}[kind]
        rule = "used" if kind in NOTED_KINDS else "fault"
        assert f"  {count} {kind} ({rule}): {meaning}" in lines[at + 1 :]


def test_the_clean_copy_verifies_clean(zoo, capsys, tmp_path):
    before = file_bytes(zoo.folder)
    for workers in (1, 2):
        to = tmp_path / f"clean{workers}"
        assert verify(capsys, zoo.folder, "--repair", "--to", to, "--workers", workers)[0] == 0
    assert file_bytes(zoo.folder) == before and file_bytes(tmp_path / "clean1") == file_bytes(tmp_path / "clean2")
    status, found = verify(capsys, tmp_path / "clean1")
    assert status == 0 and set(found) < set(USED_KINDS)
    lost = sum(count for kind, count in zoo.planted.items() if kind in REPLACED_KINDS) - zoo.planted["not_adjacent"]
    samples = dict(read_folder(tmp_path / "clean1"))
    assert Manifest.load(tmp_path / "clean1").num_images == len(samples) == zoo.num_images - lost
    manifest = Manifest.load(tmp_path / "clean1")
    for number, shard in enumerate(manifest.shards):
        index, table = index_shard(Path(manifest.location(number))), load_row_table(manifest, number)
        assert len(index) == shard.num_images == len(read_tar(Path(manifest.location(number)))) and not index.counts
        assert table is not None and table.image_offset.tolist() == index.image_offset.tolist()


def test_what_can_be_mended_is(zoo, capsys, tmp_path):
    originals = dict(member for path in zoo.folder.glob("0000?.tar") for member in read_members(path))
    assert verify(capsys, zoo.folder, "--repair", "--to", tmp_path / "clean")[0] == 0
    clean = {key: (key, members) for key, members in read_folder(tmp_path / "clean")}
    for n in range(3):  # texts are back beside their images
        assert captions_of(clean[f"not_adjacent{n}"]) == [f"picture number {n} of the zoo"]
    assert captions_of(clean["not_utf80"]) == ["caf\ufffd at night"]
    assert {"duplicate_key0", "duplicate_key0-2", "duplicate_key1", "duplicate_key1-2", "duplicate_key1-3"} <= set(
        clean
    )
    for n, extension in enumerate(("png", "jpg", "webp", "bmp", "tif")):
        (name,) = set(clean[f"wrong_extension{n}"][1]) - {"txt"}
        assert name == extension
    for key, row in clean.items():
        if "duplicate" not in key and f"{key}.jpg" in originals:
            assert image_of(row) == originals[f"{key}.jpg"]  # bytes that are used stay as they are
    assert not [key for key in clean if "bomb" in key or "lost" in key or "no_image" in key]
    _, found = verify(capsys, tmp_path / "clean")
    kept = {kind: len(places) for kind, places in found.items()}
    assert kept == {kind: zoo.planted[kind] for kind in USED_KINDS if kind not in ("wrong_extension", "not_utf8")}


def test_a_limit_of_pixels(zoo, capsys):
    _, found = verify(capsys, zoo.folder, "--max-pixels", 41 * 31, "--workers", 1)
    keys = {key for _, key, _, _ in found["too_many_pixels"]}
    assert {"extreme_aspect0", "extreme_aspect1", "too_many_pixels0"} <= keys and "good001" not in keys
