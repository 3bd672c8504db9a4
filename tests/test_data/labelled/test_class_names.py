"""Which folder is which class, and what the classes are called."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bimodal_cl.data import open_labelled
from bimodal_cl.data.labelled.class_names import name_classes, name_warnings, pairing_lines, read_names, repeated_names
from bimodal_cl.errors import UserError
from tests.test_data.tiny_shards import encode_image

ROOT = Path("pictures")
TEN = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def pairing(folders, names):
    classes = name_classes(ROOT, folders, names, "names.txt")
    return {folder: classes.names[label] for folder, label in classes.label_of_folder.items()}


@pytest.mark.parametrize(
    ("folders", "names", "expected"),
    [
        (["10", "2", "0"], TEN, {"0": "zero", "2": "two", "10": "ten"}),
        (["010", "002"], TEN, {"002": "two", "010": "ten"}),
        (["1", "2", "3"], ["a", "b", "c"], {"1": "a", "2": "b", "3": "c"}),  # as many names as 1 to N
        (["1", "2"], ["a", "b", "c"], {"1": "b", "2": "c"}),  # more names: they count from 0
        (["class10", "class2"], ["two", "ten"], {"class2": "two", "class10": "ten"}),
        (["Guinea_pig", "ant"], ["zebra", "guinea pig", "ant"], {"ant": "ant", "Guinea_pig": "guinea pig"}),
        (["b", "a"], ["x", "x"], {"a": "x", "b": "x"}),
        # The names in another order than the folders, spelled in another way: hyphens, and letters of two code points.
        (
            ["great-dane", "tabby-cat"],
            ["tabby cat", "Great Dane"],
            {"great-dane": "Great Dane", "tabby-cat": "tabby cat"},
        ),
        (["cafe\u0301", "dog"], ["dog", "caf\u00e9"], {"cafe\u0301": "caf\u00e9", "dog": "dog"}),
    ],
)
def test_pairing(folders, names, expected):
    assert pairing(folders, names) == expected


def test_own_names():
    classes = name_classes(ROOT, ["10", "2", "0"], None, "")
    assert (classes.names, classes.label_of_folder) == (["0", "2", "10"], {"0": 0, "2": 1, "10": 2})
    assert "class names are numbers" in classes.notes[0]
    classes = name_classes(ROOT, ["b_c", "b c", "a"], None, "")
    assert classes.names == ["a", "b c", "b c"]
    assert classes.notes == [
        "warning: a name stands for several classes, which no model can tell apart and which count as one: "
        "'b c' (classes 1, 2)"
    ]


def test_wordnet_ids_are_called_by_imagenets_names():
    # Three of ImageNet's classes, whose place among its sorted ids is public: 0, 1 and 999.
    classes = name_classes(ROOT, ["n15075141", "n01443537", "n01440764"], None, "")
    assert classes.names == ["tench", "goldfish", "toilet paper"]
    assert classes.notes[0].startswith("folders are WordNet ids of 3 of ImageNet's 1,000 classes")
    assert "folder n01443537 = 'goldfish'" in classes.notes
    other = name_classes(ROOT, ["n01440764", "n99999999"], None, "")
    assert other.names == ["n01440764", "n99999999"]
    assert "are WordNet ids, which mean nothing to a text tower" in other.notes[0]


def test_all_of_imagenet():
    import open_clip
    from timm.data import ImageNetInfo

    classes = name_classes(ROOT, ImageNetInfo("imagenet-1k").label_names(), None, "")
    assert classes.names == list(open_clip.IMAGENET_CLASSNAMES)
    # ImageNet calls two classes missile and two sunglasses.
    warning = classes.notes[-1]
    assert warning.startswith("warning: 2 names stand for several classes")
    assert "'missile' (classes 657, 744)" in warning and "'sunglasses' (classes 836, 837)" in warning


@pytest.mark.parametrize(
    ("folders", "names", "message"),
    [
        (["0", "3"], ["a", "b", "c"], r"pictures: folder '3' is class 3, but names\.txt has 3 names, of class 0 to 2"),
        (["1", "3"], ["a", "b", "c"], r"folder '3' is class 3, .*from 1 only if they are exactly 1 to 3"),
        (["1", "01"], ["a", "b"], "folders '01' and '1' are both class 1"),
        (["a", "b"], ["x", "y", "z"], r"2 class folders but 3 names in names\.txt$"),
        (["x", "b"], ["x", "y", "z"], r"2 class folders but 3 names in names\.txt; 'b' matches none of them"),
    ],
)
def test_folders_that_do_not_fit_are_refused(folders, names, message):
    with pytest.raises(UserError, match=message):
        name_classes(ROOT, folders, names, "names.txt")


def test_the_pairing_is_shown():
    notes = name_classes(ROOT, ["10", "2"], TEN, "names.txt").notes
    assert notes[0].startswith("folders are class numbers, from 0")
    assert notes[1:] == ["folder 2 = 'two'", "folder 10 = 'ten'"]
    notes = name_classes(ROOT, ["class10", "class2"], ["a", "b"], "names.txt").notes
    assert "'class2', 'class10', ..., not in alphabetical order as in torchvision" in notes[0]
    notes = name_classes(ROOT, ["blue", "gren", "red"], ["red", "green", "blue"], "names.txt").notes
    assert any(line.startswith("warning: folder blue = 'red' by that order") for line in notes)
    many = pairing_lines({f"f{n}": f"name{n}" for n in range(100)})
    assert len(many) == 12 and many[0] == "folder f0 = 'name0'" and many[-1] == "folder f99 = 'name99'"
    assert many[8] == "... 89 more, all of them in the results ..."


def test_repeated_names_are_counted():
    assert repeated_names(["a", "b"]) == []
    names = [str(n // 2) for n in range(60)]
    assert repeated_names(names)[0].endswith("and 18 more")


def test_a_names_file(tmp_path):
    file = tmp_path / "names.txt"
    file.write_bytes("\ufeffcat\r\ndog\r\n\r\n".encode())
    assert read_names(file) == ["cat", "dog"]
    file.write_bytes("cat\ndog\u2028s\n".encode("utf-16"))
    assert read_names(file) == ["cat", "dog\u2028s"]
    for content, message in (("cat\n\ndog\n", "line 2 is empty"), ("\n", "holds no class name")):
        file.write_text(content)
        with pytest.raises(UserError, match=rf"names\.txt.*{message}"):
            read_names(file)
    with pytest.raises(UserError, match=r"name\.txt: no such file; did you mean 'names\.txt'"):
        read_names(tmp_path / "name.txt")


def test_folders_that_are_missing_or_empty_move_no_label(tmp_path):
    for folder, number in (("0", 5), ("10", 6), ("2", None)):
        (tmp_path / folder).mkdir()
        if number is not None:
            (tmp_path / folder / "a.png").write_bytes(encode_image(number))
    names = tmp_path / "own.txt"
    names.write_text("\n".join(TEN))
    for flags in ({"classnames": names}, {}):
        if not flags:
            names.rename(tmp_path / "classnames.txt")
        data = open_labelled(tmp_path, **flags)
        assert data.classnames == TEN and data.labels == [0, 10]
        assert data.class_of_folder == {"0": 0, "2": 2, "10": 10}
        assert "warning: 1 of 3 class folders hold no image: 2; they stay candidates" in data.notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0: tench\n1: goldfish\n", "each line has a number next to the name ('0: tench'), which would go into"),
        ("1\ttench\n2\tgoldfish\n", "each line has a number next to the name"),
        ("tench, 0\ngoldfish, 1\n", "each line has a number next to the name ('tench, 0')"),
        ("n01440764 tench\nn01443537 goldfish\n", "each line has a WordNet id next to the name"),
        ("# of two fish\ntench\ngoldfish\n", "line 1 looks like a comment ('# of two fish')"),
        ('["tench", "goldfish"]', "looks like JSON; it must hold the names themselves, one a line"),
    ],
)
def test_what_is_no_name_does_not_go_into_prompts(text, message, tmp_path):
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(UserError, match=re.escape(f"names.txt: {message}")):
        read_names(tmp_path / "names.txt")


@pytest.mark.parametrize("names", [["0", "1", "2"], ["7 up", "3 sat"], ["10, Downing Street", "1, Main"], ["C#", "#1"]])
def test_numbers_and_marks_may_belong_to_names(names, tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(names))
    assert read_names(tmp_path / "names.txt") == names
    assert name_warnings(names) == []


def test_names_that_count_up_with_a_space_are_warned_about():
    assert name_warnings(["0 cat", "1 dog"]) == [
        "warning: the names begin with numbers, which go into the prompts: '0 cat', '1 dog'"
    ]


def test_a_negative_number_is_no_class():
    with pytest.raises(UserError, match="folder '-1' is not a class: class numbers count from 0"):
        name_classes(ROOT, ["-1", "0", "1"], ["a", "b", "c"], "names.txt")


def test_folders_of_systems_are_no_classes(tmp_path):
    for folder in ("cat", "dog", "__MACOSX", ".ipynb_checkpoints"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(encode_image(1))
    assert open_labelled(tmp_path).classnames == ["cat", "dog"]
