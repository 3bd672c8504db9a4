"""Karpathy's JSON -> shards, and what is wrong with it."""

import json

import pytest

from tests.test_data_prep.raw_material import photo, photos, write_files, write_karpathy


@pytest.fixture
def karpathy(write, tmp_path):
    """Write images of some splits, after ``edit`` has changed their list."""

    def run(splits, edit=lambda images: None, *flags, captions=2, to="to", mark=""):
        raw = write_karpathy(tmp_path / "raw", splits, captions)
        content = json.loads((raw / "data.json").read_text())
        edit(content["images"])
        (raw / "data.json").write_text(mark + json.dumps(content), encoding="utf-8")
        return write("karpathy", "--json", raw / "data.json", "--images", raw / "images", *flags, to=to)

    return run


def test_splits_and_restval_to_train(karpathy, tmp_path):
    done = karpathy(["val", "train", "restval", "test", "train", "restval"])
    assert "train: 4 images, 8 captions in 1 shard" in done.out
    expected = {"train": [1, 2, 4, 5], "val": [0], "test": [3]}
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == sorted(expected)
    for split, numbers in expected.items():
        samples = done.samples(split)
        assert samples.sample_keys == [str(n) for n in numbers]
        assert samples.images == photos(numbers)
        assert samples.captions == [[f"{n} caption 0", f"{n} caption 1"] for n in numbers]


def test_an_image_that_is_listed_twice_is_one(karpathy):
    done = karpathy(["train", "train"], lambda images: images[1].update(filename=images[0]["filename"]))
    assert done.samples("train").captions == [["0 caption 0", "0 caption 1", "1 caption 0", "1 caption 1"]]


def test_coco_layout_and_one_split(karpathy, tmp_path):
    def edit(images):
        write_files(tmp_path / "raw" / "images" / "val2014", {"1.jpg": photo(77)})
        images[1].update(filepath="val2014")
        images[0].update(filepath="train2014")  # not there: all images in one folder

    done = karpathy(["train", "val"], edit, to="a")
    assert done.samples("val").images == [photo(77)] and done.samples("train").images == [photo(0)]
    assert karpathy(["train", "val"], edit, "--split", "val", to="b").status == 0
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["val"]
    error = karpathy(["train", "val"], edit, "--split", "test", to="c").error
    assert "no image of split 'test'" in error and "train, val" in error


def test_unusable_items_are_named_and_counted(karpathy, tmp_path):
    def spoil(images):
        images[0]["filename"] = "gone.jpg"
        del images[1]["filename"]
        images[2]["sentences"] = [{"tokens": ["no", "raw"]}]
        images[3]["sentences"] = []
        images[5]["sentences"][0]["raw"] = " \n "
        write_files(tmp_path / "raw" / "images", {"4.jpg": photo(4)[:-200]})

    done = karpathy(["train"] * 7, spoil)
    assert done.samples("train").sample_keys == ["5", "6"]
    assert "5 items skipped" in done.out and "1 empty captions dropped" in done.out
    skipped = [line for line in done.err.splitlines() if line.startswith("skipped ")]
    assert len(skipped) == 5
    for name, reason in (
        ("gone.jpg", "no such file"),
        ("data.json: image 1", "no 'filename'"),
        ("2.jpg", "without 'raw'"),
        ("3.jpg", "no caption"),
        ("4.jpg", "truncated"),
    ):
        assert any(f"{name}: " in line and reason in line for line in skipped), (name, skipped)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "no list 'images'"),
        ('{"pictures": []}', "no list 'images'"),
        ('{"images": []}', "must be a list that is not empty"),
        ('{"images": [{"split": "trian"}]}', r"images[0] has split 'trian'; did you mean 'train'?"),
        ('{"images": [{"split": ["train"]}]}', "images[0] has split ['train']"),
        ('{"images": [7]}', "images[0] has split None"),
    ],
)
def test_not_karpathy(write, tmp_path, content, message):
    write_files(tmp_path, {"data.json": content, "images/0.jpg": photo(0)})
    done = write("karpathy", "--json", tmp_path / "data.json", "--images", tmp_path / "images")
    assert message in done.error and "data.json" in done.error
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("json_file", "images", "message"),
    [
        ("raw/dta.json", "raw/images", "--json: no such file: {}/raw/dta.json; did you mean 'data.json'?"),
        ("raw/data.json", "raw/image", "--images: no such folder: {}/raw/image; did you mean 'images'?"),
        ("rwa/data.json", "raw", "--json: no such file: {}/rwa/data.json; did you mean 'raw'?"),
        ("raw/data.json", "raw/data.json", "--images: {}/raw/data.json is a file, not a folder"),
        ("raw", "raw", "--json: {}/raw is a folder, not a file"),
    ],
)
def test_missing_inputs_name_the_nearest(write, tmp_path, json_file, images, message):
    write_karpathy(tmp_path / "raw", ["train"])
    error = write("karpathy", "--json", tmp_path / json_file, "--images", tmp_path / images).error
    assert error.startswith(message.format(tmp_path))


def test_captions_are_text(karpathy):
    """``None`` and ``NA`` are; a missing or a numeric 'raw' is none, and was once written as the word "None"."""

    def spoil(images):
        for n, raw in enumerate(("None", None, 7)):
            images[n]["sentences"][0]["raw"] = raw
        images[3]["sentences"] = 7

    done = karpathy(["train"] * 4, spoil, captions=1, mark="\ufeff")
    assert done.samples("train").captions == [["None"]]
    raw = "a sentence without 'raw'"
    for line in (f"1.jpg: {raw}", f"2.jpg: {raw}", "3.jpg: 'sentences' is not a list"):
        assert f"skipped {line}" in done.err
