"""Images with class labels, in both layouts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from bimodal_cl.data import open_labelled
from bimodal_cl.errors import UserError
from tests.test_data.tiny_shards import encode_image, write_tar


def write_folders(root: Path) -> None:
    for number, name in enumerate(("zebra", "guinea_pig", "Ant/deep")):
        folder = root / name
        folder.mkdir(parents=True)
        for image in range(number + 1):
            (folder / f"{image}.png").write_bytes(encode_image(10 * number + image))
    (root / "notes.txt").write_text("not a class")
    (root / ".cache").mkdir()


@pytest.mark.parametrize("inside", ["", "test"])
def test_class_folders(tmp_path: Path, inside: str) -> None:
    root = tmp_path / "animals"
    write_folders(root / inside)
    data = open_labelled(root)
    assert (data.name, data.templates) == ("animals", None)
    assert data.classnames == ["Ant", "guinea pig", "zebra"]
    assert data.labels == [0, 0, 0, 1, 1, 2] and len(data) == 6
    shown = [(image.getpixel((0, 0))[0], image.mode, label) for image, label in data]  # type: ignore[index]
    assert shown == [(n, "RGB", c) for n, c in ((20, 0), (21, 0), (22, 0), (10, 1), (11, 1), (0, 2))]
    with pytest.raises(IndexError, match=r"image 6 is outside \[0, 6\)"):
        data[6]


def test_names_and_prompts_beside_the_folders(tmp_path: Path) -> None:
    write_folders(tmp_path / "test")
    (tmp_path / "classnames.txt").write_text("an ant\na cavy\na zebra\n")
    (tmp_path / "zeroshot_classification_templates.txt").write_text("a photo of {c}.\n\n{c}\n")
    data = open_labelled(tmp_path)
    assert data.classnames == ["an ant", "a cavy", "a zebra"]
    assert data.templates == ["a photo of {c}.", "{c}"]
    (tmp_path / "classnames.txt").write_text("an ant\n")
    with pytest.raises(UserError, match=r"3 class folders but 1 names in classnames\.txt"):
        open_labelled(tmp_path)
    (tmp_path / "classnames.txt").unlink()
    (tmp_path / "zeroshot_classification_templates.txt").write_text("a photo")
    with pytest.raises(UserError, match=r"template 'a photo' has no \{c\}"):
        open_labelled(tmp_path)


def write_wds(root: Path, labels: list[bytes]) -> None:
    half = len(labels) // 2
    for shard, numbers in enumerate((range(half), range(half, len(labels)))):
        members = []
        for n in numbers:
            members += [(f"s{n}.cls", labels[n]), (f"s{n}.webp", encode_image(40 * n, format="WEBP"))]
        write_tar(root / "test" / f"{shard}.tar", members)
    (root / "classnames.txt").write_text("cat\ndog\n")


@pytest.mark.parametrize("counted", [True, False])
def test_shards_of_clip_benchmark(tmp_path: Path, counted: bool) -> None:
    root = tmp_path / "wds_pets"
    write_wds(root, [b"0", b"1", b"1\n", b"0"])
    (root / "zeroshot_classification_templates.txt").write_text("a {c}\n")
    if counted:
        (root / "test" / "nshards.txt").write_text("2\n")
    data = open_labelled(root)
    assert (data.name, data.classnames, data.templates) == ("pets", ["cat", "dog"], ["a {c}"])
    assert data.labels == [0, 1, 1, 0]
    for n, (image, label) in enumerate(data):
        assert abs(image.getpixel((0, 0))[0] - 40 * n) < 8 and label == data.labels[n]  # type: ignore[index]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (b"2", "class 2 is outside [0, 2)"),
        (b"dgo", "key s1: class 'dgo' is not a number, nor a class name; did you mean 'dog'?"),
        (b"-1", "class -1 is outside"),
    ],
)
def test_labels_that_do_not_fit_are_named(tmp_path: Path, label: bytes, message: str) -> None:
    write_wds(tmp_path, [b"0", label, b"1", b"0"])
    with pytest.raises(UserError, match=rf"0\.tar.*{re.escape(message)}"):
        open_labelled(tmp_path)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no such folder"):
        open_labelled(tmp_path / "nowhere")
    with pytest.raises(UserError, match="neither class folders with images nor test/"):
        open_labelled(tmp_path)
    write_wds(tmp_path, [b"0", b"1"])
    (tmp_path / "test" / "nshards.txt").write_text("3")
    with pytest.raises(UserError, match=r"2\.tar: missing, though nshards\.txt says 3"):
        open_labelled(tmp_path)
    (tmp_path / "test" / "nshards.txt").write_text("many")
    with pytest.raises(UserError, match=r"nshards\.txt: must hold the number of tars"):
        open_labelled(tmp_path)
    (tmp_path / "classnames.txt").unlink()
    with pytest.raises(UserError, match=r"no classnames\.txt"):
        open_labelled(tmp_path)


def test_a_bad_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "0.jpg").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"cat/0\.jpg: cannot be used: not an image"):
        open_labelled(tmp_path)[0]
    write_tar(tmp_path / "w" / "test" / "0.tar", [("a.png", b"nothing"), ("a.cls", b"0"), ("b.png", b"no label")])
    (tmp_path / "w" / "classnames.txt").write_text("cat")
    with pytest.raises(UserError, match=r"key b: its image has neither a \.cls nor"):
        open_labelled(tmp_path / "w")


def test_class_folders_take_every_format_and_name_the_rest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    formats = {".jpg": "JPEG", ".jfif": "JPEG", ".bmp": "BMP", ".TIF": "TIFF", ".ppm": "PPM", ".gif": "GIF"}
    formats |= {".avif": "AVIF", ".jp2": "JPEG2000", ".tga": "TGA", ".webp": "WEBP"}
    root = tmp_path / "photos"
    for label, name in enumerate(("cat", "dog")):
        (root / name / "deep").mkdir(parents=True)
        for ending, format in formats.items():
            (root / name / "deep" / f"0{ending}").write_bytes(encode_image(200 * label, format=format))
    (root / "linked").symlink_to(root / "dog")  # as ImageNet is often laid out
    (root / "dog" / "loop").symlink_to(root / "dog")
    for place in ("cat/0.heic", "dog/1.heic", "dog/notes.txt", "dog/.DS_Store", "dog/Thumbs.db", "LICENSE"):
        (root / place).write_text("not an image")
    for place in ("cat/img_001", "cat/2.jpg_large", "3.png"):
        (root / place).write_bytes(encode_image(0))
    data = open_labelled(root)
    assert data.labels == [0] * len(formats) + [1] * len(formats) + [2] * len(formats)
    for image, label in data:
        assert abs(image.getpixel((5, 5))[0] - 200 * (label > 0)) < 12  # type: ignore[index]
    assert caplog.messages == [
        f"{root}: left out, since they are not images: 3 .heic, 2 .txt, 1 .jpg_large (images), "
        "1 .png outside the class folders, 1 without an ending (images), 4 hidden"
    ]


def test_orientation_is_heeded_in_class_folders(tmp_path: Path) -> None:
    image = Image.new("RGB", (20, 10), "blue")
    image.paste("red", (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # the left of what is stored is the top
    (tmp_path / "a").mkdir()
    image.save(tmp_path / "a" / "0.jpg", exif=exif, quality=95)
    shown, _ = open_labelled(tmp_path)[0]
    assert shown.size == (10, 20)
    assert shown.getpixel((5, 2))[0] > 200 and shown.getpixel((5, 17))[2] > 200  # type: ignore[index]


def test_a_folder_of_nothing_usable_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "0.heic").write_text("?")
    with pytest.raises(UserError, match=r"neither class folders with images nor test/\*\.tar, only 1 \.heic"):
        open_labelled(tmp_path)
    (tmp_path / "w" / "test").mkdir(parents=True)
    (tmp_path / "w" / "test" / "0.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(UserError, match=r"nor test/\*\.tar, only 1 \.tar\.gz; shards must be plain tars: unp"):
        open_labelled(tmp_path / "w")
    (tmp_path / "w" / "classnames.txt").write_text("cat\n")
    (tmp_path / "w" / "test" / "nshards.txt").write_text("1\n")
    with pytest.raises(UserError, match=r"missing, though nshards\.txt says 1; there are 1 \.tar\.gz: unpack them"):
        open_labelled(tmp_path / "w")


def test_tars_beyond_their_number_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_wds(tmp_path, [b"0", b"1"])
    (tmp_path / "test" / "nshards.txt").write_text("1")
    assert len(open_labelled(tmp_path)) == 1
    assert caplog.messages == [f"{tmp_path / 'test'}: 1 tars more than nshards.txt says are left out"]
