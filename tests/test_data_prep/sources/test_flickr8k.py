"""Flickr8k as it is, where it stands beside the repository."""

import json
import tarfile
from pathlib import Path

import pytest

from data_prep.cli import COMMANDS
from data_prep.items import Item
from data_prep.sources import SOURCES
from data_prep.writing.captions import clean_captions
from tests.test_data_prep.raw_material import captions_of, image_of, read_folder

ARCHIVE = Path(__file__).parents[4] / "shared" / "data" / "flickr8k.tar"
pytestmark = pytest.mark.skipif(not ARCHIVE.exists(), reason="../shared/data/flickr8k.tar is not there")


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """The JSON and the test split's images."""
    folder = tmp_path_factory.mktemp("flickr8k")
    with tarfile.open(ARCHIVE) as tar:
        members = {member.name.removeprefix("./"): member for member in tar}
        (folder / "dataset_flickr8k.json").write_bytes(tar.extractfile(members["dataset_flickr8k.json"]).read())
        (folder / "images").mkdir()
        for record in read_records(folder, "test"):
            path = folder / "images" / record["filename"]
            path.write_bytes(tar.extractfile(members[f"images/{record['filename']}"]).read())
    return folder


def read_records(folder, split):
    content = json.loads((folder / "dataset_flickr8k.json").read_text())
    return [record for record in content["images"] if record["split"] == split]


def arguments(raw, to, *more):
    flags = ("--json", raw / "dataset_flickr8k.json", "--images", raw / "images", "--to", to, *more)
    return ["write", "karpathy", *map(str, flags)]


def test_splits_and_captions(raw, tmp_path):
    """6,000/1,000/1,000 images with 40,000 captions, none empty."""
    plan = SOURCES["karpathy"].read(COMMANDS.parse("bimodal-prep", arguments(raw, tmp_path / "to"))[1])
    assert [(split.name, split.total) for split in plan.splits] == [("train", 6000), ("val", 1000), ("test", 1000)]
    num_texts = 0
    for split in plan.splits:
        items = list(split.items)
        assert len(items) == split.total and all(isinstance(item, Item) for item in items)
        cleaned = [clean_captions(item.captions) for item in items]
        assert all(len(kept) == 5 and not empty for kept, empty in cleaned)
        num_texts += sum(len(kept) for kept, _ in cleaned)
    assert num_texts == 40_000


def test_the_test_split_as_written(prep, raw, tmp_path):
    """1,000 images untouched and in the order of the JSON, 5,000 captions."""
    done = prep(*arguments(raw, tmp_path / "to", "--split", "test", "--strict"))
    assert done.status == 0 and "test: 1,000 images, 5,000 captions in 1 shard" in done.out
    for sample, record in zip(read_folder(tmp_path / "to" / "test"), read_records(raw, "test"), strict=True):
        assert sample[0] == Path(record["filename"]).stem
        assert image_of(sample) == (raw / "images" / record["filename"]).read_bytes()
        spoken = [sentence["raw"].split() for sentence in record["sentences"]]
        assert [caption.split() for caption in captions_of(sample)] == spoken
