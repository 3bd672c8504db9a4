"""COCO's own JSON of captions -> shards; files of its other kinds, and Karpathy's, are told apart."""

import gzip
import json

import pytest

from tests.test_data_prep.raw_material import captions_of, photo, photos, read_folder, write_files, write_karpathy


@pytest.fixture
def write(prep, tmp_path):
    images = {f"train2017/{n:012d}.jpg": photo(n) for n in range(4)}
    write_files(tmp_path / "coco", images)

    def run(content, *flags, source="coco", images="train2017"):
        write_files(
            tmp_path / "coco", {"captions.json": content if isinstance(content, str | bytes) else json.dumps(content)}
        )
        json_flags = ("--json", tmp_path / "coco" / "captions.json", "--images", tmp_path / "coco" / images)
        return prep("write", source, *json_flags, *flags, "--to", tmp_path / "to", "--overwrite")

    return run


def make_coco(captions, images=4):
    """Images in falling order; ``captions`` are pairs of image id and text."""
    return {
        "info": {"year": 2017},
        "licenses": [],
        "images": [{"id": n, "file_name": f"{n:012d}.jpg", "height": 16} for n in reversed(range(images))],
        "annotations": [{"id": 70 + n, "image_id": image, "caption": text} for n, (image, text) in enumerate(captions)],
    }


def test_images_in_their_order_and_captions_in_that_of_the_annotations(write, tmp_path):
    pairs = [(0, "A dog."), (2, "NA"), (0, "Another."), (1, "null"), (3, "A\ncat "), (0, "A dog.")]
    done = write(make_coco(pairs))
    assert "written: 4 images, 6 captions in 1 shard" in done.out and "skipped" not in done.out
    samples = done.samples()
    assert samples.sample_keys == [f"{n:012d}" for n in (3, 2, 1, 0)]
    assert samples.images == photos((3, 2, 1, 0))
    assert samples.captions == [["A cat"], ["NA"], ["null"], ["A dog.", "Another.", "A dog."]]


def test_what_cannot_be_used_is_named_and_counted(write, tmp_path):
    content = make_coco([(0, "a"), (9, "of nobody"), (0, None), (0, "b"), (3, "c"), (2, " ")])
    content["annotations"] += [content["annotations"][0], {"image_id": 0, "caption": "without id"}, 7]
    content["images"] += [{"id": 0, "file_name": "other.jpg"}, {"id": 5}, {"file_name": "x.jpg"}]
    content["images"][0]["file_name"] = "gone.jpg"  # of image 3
    done = write(content)
    assert done.samples().captions == [["a", "b", "without id"]]
    assert "10 items skipped" in done.out and "1 empty captions dropped" in done.out
    for line in (
        "captions.json: annotations[1]: 'images' has no image of id 9",
        "captions.json: annotations[2]: 'caption' is not text",
        "captions.json: annotations[6]: annotation 70 occurs a second time",
        "captions.json: annotations[8]: not an object",
        "captions.json: images[4]: id 0 is already used by an earlier image",
        "captions.json: images[5]: no 'file_name'",
        "captions.json: images[6] (x.jpg): no 'id'",
        f"captions.json: image 3: {tmp_path}/coco/train2017/gone.jpg: no such file",
        f"captions.json: image 2: {tmp_path}/coco/train2017/000000000002.jpg: no caption",
        f"captions.json: image 1: {tmp_path}/coco/train2017/000000000001.jpg: no caption",
    ):
        assert f"skipped {line}\n" in done.err
    assert write(content, "--strict").error.endswith("is already used by an earlier image (--strict)")


def test_images_with_or_without_their_folder(write, tmp_path):
    content = make_coco([(0, "a"), (1, "b")], images=2)
    for image in content["images"]:
        image["file_name"] = f"train2017/{image['file_name']}"
    for folder in (".", "train2017"):
        assert write(content, images=folder).samples().images == [photo(1), photo(0)]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.pop("annotations"), "lists images without annotations, as COCO's image_info_*.json does"),
        (lambda c: c.update(annotations=[]), "'annotations' must be a list that is not empty"),
        (lambda c: c.update(images=[]), "'images' must be a list that is not empty"),
        (lambda c: c.pop("images"), "no list 'images', so it is not in COCO's captions format"),
    ],
)
def test_other_files_of_coco(write, edit, message):
    content = make_coco([(0, "a")])
    edit(content)
    assert message in write(content).error


def test_the_right_source_is_named(write, prep, tmp_path):
    assert "is COCO's own JSON of captions, not Karpathy's; use 'bimodal-prep write coco'" in (
        write(make_coco([(0, "a")]), source="karpathy").error
    )
    raw = write_karpathy(tmp_path / "raw", ["train"])
    error = prep(
        "write", "coco", "--json", raw / "data.json", "--images", raw / "images", "--to", tmp_path / "no"
    ).error
    assert "data.json is Karpathy's JSON; use 'bimodal-prep write karpathy'" in error
    objects = make_coco([(0, "a")])
    objects["annotations"] = [{"image_id": 0, "bbox": [0, 0, 1, 1], "category_id": 1}]
    for source in ("coco", "karpathy"):
        error = write(objects, source=source).error
        assert "has annotations of 'image_id', 'bbox', 'category_id', no 'caption', like instances_*.json" in error
        assert "captions are in captions_train2017.json and the like, which 'bimodal-prep write coco' reads" in error
    assert "is not JSON" in write("{").error
    assert "no list 'images'" in write("[1]").error
    assert "did you mean 'train2017'?" in write(make_coco([(0, "a")]), images="tran2017").error


def test_a_file_that_stands_in_the_list_once_a_caption_is_one_image(write, tmp_path):
    content = make_coco([(n, f"caption {n}") for n in range(4)])
    for n, image in enumerate(reversed(content["images"])):
        image["file_name"] = f"{n % 2:012d}.jpg"
    done = write(content)
    samples = done.samples()
    assert samples.captions == [["caption 3", "caption 1"], ["caption 2", "caption 0"]]
    assert "  2 rows joined with an earlier row of the same image\n" in done.out


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks(write, tmp_path, encoding):
    write(make_coco([(0, "A caf\u00e9.")]))
    path = tmp_path / "coco" / "captions.json"
    path.write_bytes(path.read_text().encode(encoding))
    again = write(path.read_bytes())
    assert again.status == 0 and captions_of(read_folder(tmp_path / "to")[0]) == ["A caf\u00e9."]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"{}"), "is compressed by gzip: unpack it first"),
        (b"PK\x03\x04...", "is compressed by zip: unpack it first"),
        ([{"image": "a.jpg", "caption": "a"}], "is a list of rows ('image', 'caption'), not COCO's captions JSON"),
        (
            '{"image": "a.jpg"}\n{"image": "b.jpg"}\n',
            "if each line is a row, rename it to .jsonl and give it to 'bimodal-prep write hf'",
        ),
    ],
)
def test_files_of_other_formats(write, content, message):
    assert message in write(content).error
