"""Tables of image paths and labels."""

from __future__ import annotations

import pytest

from bimodal_cl.data import open_labelled
from bimodal_cl.data.labelled.layouts.columns import ColumnOptions
from tests.refusals import refused
from tests.test_data.tiny_shards import encode_image

ROWS = (("a/1.png", "red fox"), ("a/2.png", "dog"), ("b/3.png", "dog"))


@pytest.fixture
def folder(tmp_path):
    for path, _ in ROWS:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(encode_image(1))
    return tmp_path


def write(folder, text, name="pets.csv"):
    (folder / name).write_text(text, newline="")
    return folder / name


def lines(separator=",", header=("image", "label"), rows=ROWS):
    return "\n".join(separator.join(row) for row in (header, *rows)) + "\n"


@pytest.mark.parametrize(
    ("name", "text", "columns"),
    [
        ("pets.csv", lines(), {}),
        ("pets.csv", lines().replace("\n", "\r\n"), {}),
        ("pets.tsv", lines("\t", ("File Name", "class")), {}),
        ("pets.csv", lines(";", ("path", "Category")), {}),
        ("pets.csv", lines(header=("label", "kind")), {"image": "label", "label": "kind"}),
        ("pets.csv", lines().replace("red fox", '"red fox"'), {}),
    ],
)
def test_dialects_and_columns(name, text, columns, folder):
    data = open_labelled(write(folder, text, name), columns=ColumnOptions(**columns))
    assert (data.name, data.classnames, data.labels) == ("pets", ["dog", "red fox"], [1, 0, 0])
    assert data[2][0].mode == "RGB" and data.templates is None


def test_paths_start_from_a_root_and_files_beside_name_the_classes(folder, tmp_path):
    (tmp_path / "lists").mkdir()
    table = write(tmp_path / "lists", lines(rows=[("a/1.png", "2"), ("b/3.png", "Fuchs")]), "test.csv")
    (tmp_path / "lists" / "classnames.txt").write_text("Hund\nFuchs\nKatze\n")
    (tmp_path / "lists" / "zeroshot_classification_templates.txt").write_text("ein {c}\n")
    data = open_labelled(table, columns=ColumnOptions(root=folder))
    assert (data.name, data.classnames, data.labels) == ("lists", ["Hund", "Fuchs", "Katze"], [2, 1])
    assert data.templates == ["ein {c}"] and len([data[index] for index in range(2)]) == 2


def test_several_labels_and_none(folder):
    rows = [("a/1.png", "dog | red fox"), ("a/2.png", ""), ("b/3.png", "cat")]
    data = open_labelled(write(folder, lines(rows=rows)), columns=ColumnOptions(separator="|"))
    assert data.classnames == ["cat", "dog", "red fox"]
    assert [label.tolist() for label in data.labels] == [[0, 1, 1], [0, 0, 0], [1, 0, 0]]


def test_rows_of_one_split_are_taken(folder):
    rows = [("a/1.png", "fox", "train"), ("a/2.png", "dog", "test"), ("b/3.png", "cat", "test")]
    table = write(folder, lines(header=("image", "label", "split"), rows=rows))
    assert open_labelled(table).classnames == ["cat", "dog"]
    assert len(open_labelled(table, split="train")) == 1
    with refused(r"--split val: not in column 'split' of .*pets\.csv; valid: test, train"):
        open_labelled(table, split="val")
    with refused(r"pets\.csv: 2 columns are called 'split'"):
        open_labelled(write(folder, lines(header=("image", "split", "label", "split"), rows=[(*rows[0], "test")])))


def test_labels_that_are_numbers_are_remarked(folder):
    table = write(folder, lines(rows=[("a/1.png", "10"), ("a/2.png", "2"), ("b/3.png", "2")]))
    data = open_labelled(table)
    assert (data.classnames, data.labels) == (["2", "10"], [1, 0, 0])
    assert "class names are numbers" in data.notes[0]


def test_an_unreadable_image_is_named_when_it_is_read(folder):
    (folder / "a" / "2.png").write_bytes(b"?")
    data = open_labelled(write(folder, lines()))
    with refused(r"a/2\.png: cannot be used"):
        data[1]


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        (lines(rows=[*ROWS, ("a/4.png", "dog")]), {}, r"pets\.csv, line 5: no such image file: .*a/4\.png$"),
        (
            lines(rows=[("x.png", "dog"), ("", "a")]),
            {},
            r"line 2: no such .*x\.png \(2 of 2 rows have none; see --root",
        ),
        (lines(rows=[*ROWS, ("", "dog")]), {}, r"pets\.csv, line 5: no image path"),
        (lines(rows=[*ROWS, ("a/1.png", "")]), {}, r"pets\.csv, line 5: no label"),
        (lines(), {"label": "lable"}, r"no column 'lable' \(--label-column\); did you mean 'label'"),
        (lines(header=("image", "kind")), {}, r"which column is it, 'image', 'kind'\? Give --label-column"),
        (lines(header=("label", "class")), {}, r"which column is it, 'label', 'class'\? Give --image-column"),
        (lines(header=("label", "label")), {"image": "label"}, "2 columns are called 'label'"),
        (lines(rows=[("a/1.png", "dog", "more")]), {}, "line 2: 3 columns, but the header has 2"),
        ("image,label\n", {}, "holds no row below its header"),
        ('image,label\na/1.png,"dog\n', {}, "line 2: unexpected end of data"),
        (lines(), {"root": "nowhere"}, "--root .*nowhere: no such folder"),
    ],
)
def test_mistakes_are_named(text, columns, message, folder):
    if "root" in columns:
        columns = {"root": folder / columns["root"]}
    with refused(message):
        open_labelled(write(folder, text), columns=ColumnOptions(**columns))


def test_a_label_outside_the_classes_is_named(folder):
    names = folder / "names.txt"
    names.write_text("dog\ncat\n")
    with refused(r"pets\.csv, line 2: class 'red fox' is not a number, nor a class name"):
        open_labelled(write(folder, lines()), classnames=names)
    with refused(r"pets\.csv, line 2: class 2 is outside \[0, 2\)"):
        open_labelled(write(folder, lines().replace("red fox", "2")), classnames=names)


def test_flags_for_columns_are_refused_where_there_are_none(folder):
    with refused("--label-separator: .* has no columns; it is for tables and Hugging Face data sets"):
        open_labelled(folder, columns=ColumnOptions(separator=","))


def test_other_files_are_refused(folder):
    with refused(r"pets\.xlsx: is neither a folder nor a file of \.csv, \.tsv, \.parquet"):
        open_labelled(write(folder, "", "pets.xlsx"))
