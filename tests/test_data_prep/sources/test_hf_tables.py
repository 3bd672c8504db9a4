"""Tables of Hugging Face data sets: their cells are text, whatever pandas takes them for."""

import json
import unicodedata

import pytest
from datasets import load_dataset

from data_prep.sources.hf_tables import text_options
from tests.test_data_prep.raw_material import photo, photos, read_folder, write_files

TEXTS = ["NA", "null", "None", "nan", "N/A", "007", "1e5", "true", "2020-01-01", "a, b"]


def make_table(name, texts=TEXTS, folder="pics"):
    return f"{name},caption,label\n" + "".join(f'{folder}/{n}.jpg,"{text}",{n}\n' for n, text in enumerate(texts))


def image_files(folder=""):
    return {f"{folder}pics/{n}.jpg": photo(n) for n in range(len(TEXTS))}


@pytest.mark.parametrize("streaming", [(), ("--streaming",)])
def test_a_file(write, tmp_path, streaming):
    raw = write_files(tmp_path / "raw", {**image_files(), "pairs.csv": make_table("image")})
    samples = write("hf", "--dataset", raw / "pairs.csv", *streaming).samples()
    assert samples.captions == [[text] for text in TEXTS]
    assert samples.images == photos(range(len(TEXTS)))
    assert samples.sample_keys == [f"{n:09d}" for n in range(len(TEXTS))]


def test_splits_of_a_file(prep, tmp_path):
    raw = write_files(tmp_path / "raw", {**image_files(), "pairs.csv": make_table("image")})
    flags = ("write", "hf", "--dataset", raw / "pairs.csv", "--split")
    for number, (split, texts) in enumerate(
        {"train": TEXTS, "train[2:4]": TEXTS[2:4], "train[:10%]": TEXTS[:1]}.items()
    ):
        assert prep(*flags, split, "--to", tmp_path / f"{number}").status == 0
        assert read_folder(tmp_path / f"{number}").captions == [[text] for text in texts]
    assert "has no split 'tarin'; did you mean 'train'?" in prep(*flags, "tarin", "--to", tmp_path / "no").error
    assert "train[x" in prep(*flags, "train[x", "--to", tmp_path / "no").error


@pytest.mark.parametrize("name", ["metadata.csv", "pairs.csv"])
def test_folders(write, tmp_path, name):
    """Of images with metadata, and of tables; also where an older reading lies in the cache of ``datasets``."""
    write_files(tmp_path, image_files())
    for split, texts in (("train", TEXTS), ("test", TEXTS[5:])):
        of_images = name == "metadata.csv"
        table = make_table("file_name", texts) if of_images else make_table("image", texts, "../../pics")
        write_files(tmp_path / "raw", {**(image_files(f"{split}/") if of_images else {}), f"{split}/{name}": table})
    load_dataset(str(tmp_path / "raw"))
    assert write("hf", "--dataset", tmp_path / "raw").samples("train").captions == [[text] for text in TEXTS]
    test = read_folder(tmp_path / "to" / "test")
    assert test.captions == [[text] for text in TEXTS[5:]]
    assert test.images == photos(range(len(TEXTS) - 5))
    assert write("hf", "--dataset", tmp_path / "raw", "--split", "test", to="one").samples() == test


def test_rows_are_named_by_line(write, tmp_path):
    table = (
        'file_name,text\npics/0.jpg,one\npics/1.jpg\npics/2.jpg,"two\nlines"\nhttp://host/a.jpg,x\npics/99.jpg,gone\n'
    )
    raw = write_files(tmp_path / "raw", {**image_files("train/"), "train/metadata.csv": table})
    done = write("hf", "--dataset", raw)
    assert done.samples("train").captions == [["one"], ["two lines"]]
    assert "skipped train metadata.csv, line 3: too few columns (1, the header has 2)" in done.err
    assert "skipped train metadata.csv, line 6: http://host/a.jpg is a URL" in done.err
    assert "skipped train metadata.csv, line 7: " in done.err and "99.jpg: no such file" in done.err
    write_files(raw, {"train/metadata.csv": 'file_name,text\npics/0.jpg,"open\npics/1.jpg,two\n'})
    error = write("hf", "--dataset", raw, to="no").error
    assert "metadata.csv, line 2: a quotation mark opens" in error
    assert "use 'bimodal-prep write csv' with --quoting none" in error


def test_names_of_other_systems_in_lines_of_json(write, tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD"))
    rows = [{"image": composed, "caption": "x"}, {"image": "pics\\3.jpg", "caption": "None"}]
    raw = write_files(
        tmp_path / "raw", {**image_files(), decomposed: photo(50), "a.jsonl": "\n".join(map(json.dumps, rows))}
    )
    samples = write("hf", "--dataset", raw / "a.jsonl").samples()
    assert samples.images == [photo(50), photo(3)]
    assert samples.captions == [["x"], ["None"]]


def test_captions_that_are_no_text_are_named_with_what_they_are(write, tmp_path):
    rows = [{"image": "pics/0.jpg", "caption": 7}, {"image": "pics/1.jpg", "caption": 8}]
    raw = write_files(tmp_path / "raw", {**image_files(), "a.jsonl": "\n".join(map(json.dumps, rows))})
    done = write("hf", "--dataset", raw / "a.jsonl")
    assert "skipped train row 1: caption: neither text nor a list of texts (8)" in done.err


@pytest.mark.parametrize("streaming", [False, True])
def test_cells_of_tables_elsewhere_stay_text(tmp_path, streaming):
    """What is asked of ``datasets`` for tables on the hub, which a folder here stands for."""
    write_files(tmp_path / "far", {"train.csv": make_table("image"), "test.csv": make_table("image", ["", "NA"])})
    options = text_options(str(tmp_path / "far"), None, None)
    loaded = load_dataset(str(tmp_path / "far"), streaming=streaming, **options)
    assert [row["caption"] for row in loaded["train"]] == TEXTS
    assert [row["caption"] for row in loaded["test"]] == ["", "NA"]
    write_files(tmp_path / "lines", {"train.jsonl": json.dumps({"image": "a", "caption": "b"})})
    assert text_options(str(tmp_path / "lines"), None, None) == {}


def test_flags_that_a_file_has_no_use_for(prep, tmp_path):
    raw = write_files(tmp_path / "raw", {**image_files(), "pairs.csv": make_table("image")})
    flags = ("write", "hf", "--dataset", raw / "pairs.csv", "--to", tmp_path / "to")
    assert "a file has no configurations" in prep(*flags, "--config", "x").error
    assert "--revision only applies to data sets on the hub" in prep(*flags, "--revision", "x").error
