"""Karpathy's JSON -> shards, and what is wrong with it."""

import json

import pytest

from tests.test_data_prep.raw_material import image_of, photo, photos, read_folder, write_files, write_karpathy


def change(folder, edit):
    path = folder / "data.json"
    content = json.loads(path.read_text())
    edit(content["images"])
    path.write_text(json.dumps(content))


def test_splits_and_restval_to_train(write, tmp_path):
    splits = ["val", "train", "restval", "test", "train", "restval"]
    source = write_karpathy(tmp_path / "raw", splits)
    done = write("karpathy", "--json", source / "data.json", "--images", source / "images")
    assert done.status == 0
    assert "train: 4 images, 8 captions in 1 shard" in done.out
    expected = {"train": [1, 2, 4, 5], "val": [0], "test": [3]}
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == sorted(expected)
    for split, numbers in expected.items():
        samples = read_folder(tmp_path / "to" / split)
        assert samples.sample_keys == [str(n) for n in numbers]
        assert samples.images == photos(numbers)
        assert samples.captions == [[f"{n} caption 0", f"{n} caption 1"] for n in numbers]


def test_an_image_that_is_listed_twice_is_one(write, tmp_path):
    source = write_karpathy(tmp_path / "raw", ["train", "train"])
    change(source, lambda images: images[1].update(filename=images[0]["filename"]))
    arguments = ("--json", source / "data.json", "--images", source / "images")
    assert write("karpathy", *arguments).status == 0
    captions = read_folder(tmp_path / "to" / "train").captions
    assert captions == [["0 caption 0", "0 caption 1", "1 caption 0", "1 caption 1"]]


def test_coco_layout_and_one_split(write, tmp_path):
    source = write_karpathy(tmp_path / "raw", ["train", "val"])
    write_files(source / "images" / "val2014", {"1.jpg": photo(77)})
    change(source, lambda images: images[1].update(filepath="val2014"))
    change(source, lambda images: images[0].update(filepath="train2014"))  # not there: all images in one folder
    arguments = ("--json", source / "data.json", "--images", source / "images")
    assert write("karpathy", *arguments, to="a").status == 0
    assert image_of(read_folder(tmp_path / "a" / "val")[0]) == photo(77)
    assert image_of(read_folder(tmp_path / "a" / "train")[0]) == photo(0)
    assert write("karpathy", *arguments, "--split", "val", to="b").status == 0
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["val"]
    error = write("karpathy", *arguments, "--split", "test", to="c").error
    assert "no image of split 'test'" in error and "train, val" in error


def test_unusable_items_are_named_and_counted(write, tmp_path):
    source = write_karpathy(tmp_path / "raw", ["train"] * 7)

    def spoil(images):
        images[0]["filename"] = "gone.jpg"
        del images[1]["filename"]
        images[2]["sentences"] = [{"tokens": ["no", "raw"]}]
        images[3]["sentences"] = []
        images[5]["sentences"][0]["raw"] = " \n "

    change(source, spoil)
    write_files(source / "images", {"4.jpg": photo(4)[:-200]})
    done = write("karpathy", "--json", source / "data.json", "--images", source / "images")
    assert done.status == 0
    assert read_folder(tmp_path / "to" / "train").sample_keys == ["5", "6"]
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


def test_missing_inputs_name_the_nearest(prep, tmp_path):
    source = write_karpathy(tmp_path / "raw", ["train"])
    to = tmp_path / "to"
    error = prep("write", "karpathy", "--json", source / "dta.json", "--images", source / "images", "--to", to).error
    assert "--json: no such file" in error and "did you mean 'data.json'?" in error
    error = prep("write", "karpathy", "--json", source / "data.json", "--images", source / "image", "--to", to).error
    assert "--images: no such folder" in error and "did you mean 'images'?" in error
    error = prep("write", "karpathy", "--json", tmp_path / "rwa" / "data.json", "--images", source, "--to", to).error
    assert "did you mean 'raw'?" in error
    error = prep(
        "write", "karpathy", "--json", source / "data.json", "--images", source / "data.json", "--to", to
    ).error
    assert "is a file, not a folder" in error
    error = prep("write", "karpathy", "--json", source, "--images", source, "--to", to).error
    assert "is a folder, not a file" in error


def test_captions_are_text(write, tmp_path):
    """``None`` and ``NA`` are; a missing or a numeric 'raw' is none, and was once written as the word "None"."""
    source = write_karpathy(tmp_path / "raw", ["train"] * 4, captions=1)

    def spoil(images):
        images[0]["sentences"][0]["raw"] = "None"
        images[1]["sentences"][0]["raw"] = None
        images[2]["sentences"][0]["raw"] = 7
        images[3]["sentences"] = 7

    change(source, spoil)
    text = (source / "data.json").read_text()
    (source / "data.json").write_text("\ufeff" + text, encoding="utf-8")
    done = write("karpathy", "--json", source / "data.json", "--images", source / "images")
    assert read_folder(tmp_path / "to" / "train").captions == [["None"]]
    for line in (
        "1.jpg: a sentence without 'raw'",
        "2.jpg: a sentence without 'raw'",
        "3.jpg: 'sentences' is not a list",
    ):
        assert f"skipped {line}" in done.err
