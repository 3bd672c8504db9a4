"""Labels of CLIP_benchmark's layout: numbers, names, and vectors of several classes."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest

from bimodal_cl.data import open_labelled
from bimodal_cl.errors import UserError
from tests.test_data.tiny_shards import encode_image, write_tar


def as_npy(values) -> bytes:
    out = io.BytesIO()
    np.save(out, np.array(values), allow_pickle=True)
    return out.getvalue()


def write_wds(root: Path, labels: list[tuple[str, bytes]], classnames: str = "cat\ndog\nred fox\n") -> None:
    members = []
    for number, (extension, content) in enumerate(labels):
        members += [(f"s{number}.webp", encode_image(number, format="WEBP")), (f"s{number}.{extension}", content)]
    write_tar(root / "test" / "0.tar", members)
    (root / "classnames.txt").write_text(classnames)


def test_vectors_of_several_classes(tmp_path):
    vectors = [[0, 1, 1], [0, 0, 0], [1, 0, 0]]
    write_wds(
        tmp_path, [("npy", as_npy(np.array(each, dtype=kind))) for each, kind in zip(vectors, "if?", strict=True)]
    )
    data = open_labelled(tmp_path)
    assert [label.tolist() for label in data.labels] == vectors
    assert data[0][1].tolist() == [0, 1, 1]


def test_numbers_and_names(tmp_path):
    labels = [("cls", b"1\r\n"), ("cls", b"red fox"), ("cls", "\ufeff0".encode()), ("npy", as_npy(np.int64(2)))]
    write_wds(tmp_path, labels)
    assert open_labelled(tmp_path).labels == [1, 2, 0, 2]
    names = tmp_path / "other.txt"
    names.write_text("Katze\nHund\nFuchs\n")
    data = open_labelled(tmp_path, classnames=names)
    assert (data.classnames, data.labels) == (["Katze", "Hund", "Fuchs"], [1, 2, 0, 2])


def test_the_vector_counts_where_there_is_a_number_too(tmp_path):
    image = encode_image(1)
    for order in (("a.npy", "a.cls"), ("a.cls", "a.npy")):
        content = {"a.npy": as_npy([1, 0, 1]), "a.cls": b"0"}
        write_tar(tmp_path / "test" / "0.tar", [("a.png", image), *((name, content[name]) for name in order)])
        (tmp_path / "classnames.txt").write_text("a\nb\nc\n")
        assert open_labelled(tmp_path).labels[0].tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("extension", "content", "message"),
    [
        ("npy", as_npy([0, 1]), "its .npy has the shape [2]; it must hold 0 or 1 for each of the 3 classes"),
        ("npy", as_npy([[0, 1, 0]]), "its .npy has the shape [1, 3]"),
        ("npy", as_npy([0, 2, 0]), "its .npy holds 2 for class 1; it must be 0 or 1"),
        ("npy", as_npy([0, np.nan, 0]), "its .npy holds nan for class 1"),
        ("npy", as_npy(3), "class 3 is outside [0, 3)"),
        ("npy", as_npy([{}, 1, 2]), "its .npy is not an array of numbers: it holds Python objects"),
        ("npy", as_npy(["cat"]), "its .npy holds no numbers"),
        ("npy", b"nothing", "its .npy is not a numpy array"),
        ("npy", b"PK\x03\x04 of an archive", "its .npy is not a numpy array"),
        (
            "npy",
            as_npy([0, 1, 1]).replace(b"(3,)", b"(99999999999,)", 1),
            "its header says that it is larger than memory",
        ),
        ("cls", b"9" * 5000, "is not a number, nor a class name"),
        ("cls", b"rad fox", "class 'rad fox' is not a number, nor a class name; did you mean 'red fox'?"),
        ("cls", b"\xe9", "its .cls is not text: byte 0xe9 on line 1"),
        ("cls", b"1", "some labels are a single class and others are vectors"),
    ],
)
def test_what_does_not_fit_is_named_by_shard_and_key(extension, content, message, tmp_path):
    write_wds(tmp_path, [("npy", as_npy([0, 1, 1])), (extension, content)])
    with pytest.raises(UserError, match=rf"0\.tar, key s1: .*{re.escape(message)}"):
        open_labelled(tmp_path)


def test_a_name_of_two_classes_is_no_label(tmp_path):
    write_wds(tmp_path, [("cls", b"fox")], classnames="fox\ndog\nfox\n")
    with pytest.raises(UserError, match="key s0: class 'fox' is the name of classes 0, 2: give the number"):
        open_labelled(tmp_path)


def test_other_names_must_be_as_many(tmp_path):
    write_wds(tmp_path, [("cls", b"0")])
    (tmp_path / "two.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match=r"two\.txt: 2 names for the 3 classes of .*classnames\.txt"):
        open_labelled(tmp_path, classnames=tmp_path / "two.txt")
