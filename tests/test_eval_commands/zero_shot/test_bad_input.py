"""What is wrong with labelled images is one line that names it: status 2, or a count where the rest can be scored."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from eval.cli import main
from tests.refusals import read_mistake
from tests.test_data.tiny_shards import write_tar
from tests.test_eval_commands.conftest import COLOURS, as_png, draw, zero_shot


@pytest.fixture
def table(class_folders):
    """A table of the same images, with their colours as labels."""
    paths = sorted((class_folders / "test").glob("*/*.png"))
    rows = [f"{path.relative_to(class_folders)},{path.parent.name.removesuffix('_square')}" for path in paths]
    file = class_folders / "list.csv"
    file.write_text("\n".join(["image,label", *rows]) + "\n")
    return file


@pytest.mark.parametrize(
    ("old", "new", "flags", "message"),
    [
        (
            ",black",
            ",pitch",
            ["--classnames", "{names}"],
            "list.csv, line 2: class 'pitch' is not a number, nor a class",
        ),
        (",black", ",6", ["--classnames", "{names}"], "list.csv, line 2: class 6 is outside [0, 6)"),
        (",black", ",", [], "list.csv, line 2: no label"),
        ("black_square", "blck_square", [], "list.csv, line 2: no such image file: "),
        ("image,label", "picture,label,more", [], "list.csv, line 2: 2 columns, but the header has 3"),
        ("image,label", "image,kind", [], "list.csv: which column is it, 'image', 'kind'? Give --label-column"),
        ("", "", ["--label-column", "colour"], "list.csv: no column 'colour' (--label-column)"),
        ("", "", ["--image-column", "imag"], "no column 'imag' (--image-column); did you mean 'image'?"),
        ("", "", ["--root", "{names}"], "names.txt: no such folder"),
        ("", "", ["--templates", "{names}"], "template 'black' has no {c} where the class name goes"),
        ("", "", ["--templates", "cifar"], "--templates cifar: no such file; did you mean 'cifar1"),
        ("", "", ["--classnames", "imagnet"], "--classnames imagnet: no such file; did you mean 'imagenet'?"),
    ],
)
def test_a_table(old, new, flags, message, run_folder, table, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("\n".join(sorted(COLOURS)))
    table.write_text(table.read_text().replace(old, new, 1))
    flags = [flag.replace("{names}", str(tmp_path / "names.txt")) for flag in flags]
    assert message in read_mistake(
        capsys, main, "zero-shot", run_folder, "--data", table, "--to", tmp_path / "o", *flags
    )
    assert not (tmp_path / "o").exists()


def test_a_name_of_two_classes_in_a_table(run_folder, table, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("\n".join([*sorted(COLOURS), "black"]))
    error = read_mistake(capsys, main, "zero-shot", run_folder, "--data", table, "--classnames", tmp_path / "names.txt")
    assert "line 2: class 'black' is the name of classes 0, 6: give the number" in error


def test_folders_that_do_not_match_names(run_folder, class_folders, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("black square\nblue square\nred\n")
    flags = ("--data", class_folders, "--classnames", tmp_path / "names.txt")
    error = read_mistake(capsys, main, "zero-shot", run_folder, *flags)
    assert "6 class folders but 3 names in names.txt; 'green_square' matches none of them" in error
    error = read_mistake(capsys, main, "zero-shot", run_folder, "--data", class_folders, "--classnames", "imagenet")
    assert "6 class folders but 1000 names in imagenet" in error


def test_an_empty_class_stays_a_candidate(run_folder, class_folders, tmp_path, capsys):
    (class_folders / "test" / "violet_square").mkdir()
    result = zero_shot(run_folder, class_folders, tmp_path / "a")
    assert "warning: 1 of 7 class folders hold no image: violet_square; they stay candidates" in capsys.readouterr().out
    assert result["provenance"]["chance"]["acc1"] == 1 / 7 and len(result["per_class"]) == 6


def test_no_image_can_be_read(run_folder, class_folders, tmp_path, capsys):
    for path in (class_folders / "test").glob("*/*.png"):
        path.write_bytes(b"?")
    assert main(["zero-shot", str(run_folder), "--data", str(class_folders), "--to", str(tmp_path / "o")]) == 2
    assert "none of 12 images could be read: image 0: " in capsys.readouterr().err


def test_classes_without_any_image(run_folder, class_folders, capsys):
    for folder in (class_folders / "test").iterdir():
        shutil.rmtree(folder)
        folder.mkdir()
    error = read_mistake(capsys, main, "zero-shot", run_folder, "--data", class_folders)
    assert "neither class folders with images nor test/*.tar" in error


def test_images_of_several_classes_have_neither_buckets_nor_maps(run_folder, tmp_path, capsys):
    folder = tmp_path / "wds_sets"
    np.save(tmp_path / "label.npy", np.array([1, 0]))
    label = (tmp_path / "label.npy").read_bytes()
    write_tar(folder / "test" / "0.tar", [("a.png", as_png(draw("red", 0))), ("a.npy", label)])
    (folder / "classnames.txt").write_text("red\nblue\n")
    (tmp_path / "given.json").write_text('{"red": 1, "blue": 2}')
    for flag, message in (
        ("--train-counts", "the images may show several classes, which have no top-1 accuracy"),
        ("--class-map", "'red' must have a name or a list of names, got 1"),
    ):
        error = read_mistake(capsys, main, "zero-shot", run_folder, "--data", folder, flag, tmp_path / "given.json")
        assert message in error
    (tmp_path / "given.json").write_text('{"red": "crimson", "blue": "navy"}')
    error = read_mistake(
        capsys, main, "zero-shot", run_folder, "--data", folder, "--class-map", tmp_path / "given.json"
    )
    assert "the images may show several classes" in error
