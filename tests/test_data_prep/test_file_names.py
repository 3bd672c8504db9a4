"""Images named as another system spells them: backslashes, drives, accented letters of one or two code points."""

import json
import unicodedata

import pytest

from data_prep.file_names import FileFinder
from tests.test_data_prep.raw_material import captions_of, image_of, photo, read_folder, write_files

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.fixture
def raw(tmp_path):
    files = ["images/a.jpg", "images/b.jpg", f"{DECOMPOSED}/{DECOMPOSED}.jpg", f"{COMPOSED}.jpg", "c.jpg"]
    return write_files(tmp_path / "raw", {name: photo(n) for n, name in enumerate(files)})


def write_csv(prep, raw, rows, *flags):
    table = "image,caption\n" + "".join(f"{name},{n}\n" for n, name in enumerate(rows))
    (raw / "pairs.csv").write_bytes(table.encode())
    done = prep("write", "csv", "--csv", raw / "pairs.csv", *flags, "--to", raw / "to", "--overwrite")
    return done, read_folder(raw / "to") if done.status == 0 else []


def numbers(samples):
    """Which photo each sample is, and which rows it came from."""
    known = {photo(n): n for n in range(5)}
    return {known[image_of(sample)]: [int(text) for text in captions_of(sample)] for sample in samples}


def test_backslashes_are_folders_where_no_file_has_them(prep, raw):
    write_files(raw, {"images\\b.jpg": photo(3)})
    _, samples = write_csv(
        prep, raw, ["images\\a.jpg", "images/a.jpg", ".\\images\\a.jpg", "images\\b.jpg", "images/b.jpg"]
    )
    assert numbers(samples) == {0: [0, 1, 2], 3: [3], 1: [4]}


def test_a_drive_stands_for_the_root(prep, raw):
    rows = [
        "C:\\data\\images\\a.jpg",
        "c:\\Data\\images\\b.jpg",
        "C:/data/c.jpg",
        "D:\\other\\c.jpg",
        "C:\\data\\gone\\c.jpg",
    ]
    done, samples = write_csv(prep, raw, rows)
    assert numbers(samples) == {0: [0], 1: [1], 4: [2]}
    assert "2 items skipped" in done.out
    for line, name in ((5, rows[3]), (6, rows[4])):
        assert f"skipped pairs.csv, line {line}: {raw}/{name}: no such file" in done.err


def test_a_share_and_another_root(prep, raw, tmp_path):
    (raw / "tables").mkdir()
    done, samples = write_csv(prep, raw, ["\\\\server\\share\\images\\a.jpg"], "--root", raw)
    assert done.status == 0 and numbers(samples) == {0: [0]}


def test_both_forms_of_accented_letters_are_one_image(prep, raw):
    rows = [f"{name}/{name}.jpg" for name in (COMPOSED, DECOMPOSED)] + [f"{DECOMPOSED}.jpg", f"{COMPOSED}.jpg"]
    _, samples = write_csv(prep, raw, [*rows, f"{COMPOSED}\\{DECOMPOSED}.jpg"])
    assert numbers(samples) == {2: [0, 1, 4], 3: [2, 3]}
    _, again = write_csv(prep, raw, [rows[1], rows[3]])
    assert again.sample_keys == samples.sample_keys


def test_the_name_as_it_is_comes_first(tmp_path):
    write_files(tmp_path, {f"{COMPOSED}.jpg": "1", f"{DECOMPOSED}.jpg": "2", "x#1": "3", "x": "4"})
    files = FileFinder(tmp_path)
    for name in (f"{COMPOSED}.jpg", f"{DECOMPOSED}.jpg", "x#1"):
        assert files.locate(name) == tmp_path / name
    assert files.locate("x#2") == tmp_path / "x"
    for name in ("é.jpg", "no\0such", "é" * 3000, "a\\b", "C:", "C:\\", "\\", "#1", "..\\y"):
        assert files.find(name) is None and files.locate(name) == tmp_path / name


def test_karpathy_and_coco_find_them_too(prep, raw):
    names = ["images\\a.jpg", f"{COMPOSED}\\{COMPOSED}.jpg", f"{DECOMPOSED}.jpg"]
    records = [
        {"filepath": name.rpartition("\\")[0], "filename": name.rpartition("\\")[2], "split": "train"}
        | {"sentences": [{"raw": str(n)}], "imgid": n}
        for n, name in enumerate(names)
    ]
    coco = {
        "images": [{"id": n, "file_name": name} for n, name in enumerate(names)],
        "annotations": [{"id": n, "image_id": n, "caption": str(n)} for n in range(3)],
    }
    write_files(raw, {"karpathy.json": json.dumps({"images": records}), "coco.json": "\ufeff" + json.dumps(coco)})
    for source, folder in (("karpathy", "train"), ("coco", ".")):
        to = raw / f"to_{source}"
        assert prep("write", source, "--json", raw / f"{source}.json", "--images", raw, "--to", to).status == 0
        assert numbers(read_folder(to / folder)) == {0: [0], 2: [1], 3: [2]}
