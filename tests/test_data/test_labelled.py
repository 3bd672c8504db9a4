"""Images with class labels, in both layouts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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
    with pytest.raises(UserError, match=r"cat/0\.jpg: cannot be used: its bytes are not"):
        open_labelled(tmp_path)[0]
    write_tar(tmp_path / "w" / "test" / "0.tar", [("a.png", b"nothing"), ("a.cls", b"0"), ("b.png", b"no label")])
    (tmp_path / "w" / "classnames.txt").write_text("cat")
    with pytest.raises(UserError, match=r"key b: no \.cls beside its image"):
        open_labelled(tmp_path / "w")
