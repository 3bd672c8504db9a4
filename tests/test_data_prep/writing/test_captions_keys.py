"""Captions on one line, and keys that are safe, unique and the same in every run."""

import hashlib
import re

import pytest

from bimodal_cl.data.shards.index import split_captions
from data_prep.writing.captions import clean_caption, clean_captions
from data_prep.writing.keys import KeyMaker, safe_key
from tests.test_data_prep.raw_material import captions_of, image_of, photo, write_files

CAPTIONS = [
    "plain",
    " a\nb\r\nc\rd ",
    "e\u2028f\x0bg\x85h\x1ci",
    "\ufeff",
    "\ufeffmark",
    "",
    " \t\n",
    "猫 🐈 é",
    "a\ud83dz",
    "\ud83d\ude00",
]


def test_newlines_become_spaces_and_empty_ones_are_counted():
    kept, empty = clean_captions(CAPTIONS)
    assert kept == ["plain", "a b c d", "e f g h i", "mark", "猫 🐈 é", "a\ufffdz", "😀"]
    assert empty == 3


@pytest.mark.parametrize("first", range(len(CAPTIONS)))
def test_the_reader_finds_as_many_as_were_kept(first):
    kept, _ = clean_captions(CAPTIONS[first:] + CAPTIONS[:first])
    assert split_captions("\n".join(kept).encode(), "lines") == kept
    for caption in CAPTIONS:
        assert len(clean_caption(caption).splitlines()) <= 1


def test_captions_in_shards(write, tmp_path):
    rows = 'image,caption\na.jpg,"two\nlines"\na.jpg,\na.jpg,"  "\na.jpg,same\na.jpg,same\n'
    raw = write_files(tmp_path / "raw", {"a.jpg": photo(0), "t.csv": rows})
    done = write("csv", "--csv", raw / "t.csv")
    assert captions_of(done.samples()[0]) == ["two lines", "same", "same"]
    assert "1 images, 3 captions" in done.out and "2 empty captions dropped" in done.out


def test_safe_keys():
    names = ["a", "a.b", "a_b", "a b", "猫", "犬", "é", "x" * 200, "x" * 201, "dir/a", "../a", ".", "a-b_C9", "\udce9"]
    keys = [safe_key(name) for name in names]
    assert keys[0] == "a" and keys[2] == "a_b" and keys[12] == "a-b_C9"
    assert len(set(keys)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,80}", key) for key in keys)
    assert safe_key("e\u0301") == safe_key("\u00e9")  # one name to whoever copies files between systems
    assert safe_key("a.b").startswith("a_b-") and safe_key("猫") == hashlib.sha256("猫".encode()).hexdigest()[:10]


def test_repeated_names_get_numbers_in_order():
    keys = KeyMaker()
    assert [keys.make(name) for name in ("a", "b", "a", "a-2", "a", "a")] == ["a", "b", "a-2", "a-2-2", "a-3", "a-4"]
    many = [keys.make("n") for _ in range(20_000)]  # quadratic work would take minutes
    assert len(set(many)) == 20_000 and many[-1] == "n-20000"


def test_keys_in_shards(write, tmp_path):
    files = {
        name: photo(n)
        for n, name in enumerate(["v1.0/a.jpg", "v1.0/a.png", "v1_0/a.jpg", "Ünï.x.jpg", "猫.jpg", "k" * 120 + ".jpg"])
    }
    raw = write_files(tmp_path / "raw", files)
    write_files(raw, {name.rpartition(".")[0] + ".txt": name for name in files})
    samples = write("folder", "--images", raw).samples()  # refuses a key that occurs twice, or ends early at a dot
    assert {image_of(sample) for sample in samples} == set(files.values())
    for key, _ in samples:
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,82}", key)
