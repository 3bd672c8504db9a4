"""Tables in the dialects that people have: separators, quoting, encodings, headers; and those that are refused."""

import pytest

from tests.test_data_prep.raw_material import photo, write_files

CASES = {
    "rows of one image": (
        'image,caption,split\r\n2.jpg,"a dog, running",x\r\n0.jpg,"says ""hello""\r\nto you",x\r\n'
        "2.jpg,second,x\r\n\r\n1.jpg,caf\u00e9 \u732b,x\r\n",
        (),
        {2: ["a dog, running", "second"], 0: ['says "hello" to you'], 1: ["café 猫"]},
    ),
    "tab": ("caption\timage\none, two\t0.jpg\nthree\t1.jpg\n", (), {0: ["one, two"], 1: ["three"]}),
    "semicolon": ("image;caption\n0.jpg;one, two\n1.jpg;three\n", (), {0: ["one, two"], 1: ["three"]}),
    "pipe": ("image| number| caption\n0.jpg| 0| one, two\n1.jpg| 0| three\n", (), {0: ["one, two"], 1: ["three"]}),
    "byte order mark": ('\ufeffimage,caption\n0.jpg,"one, two"\n1.jpg,three', (), {0: ["one, two"], 1: ["three"]}),
    "mark and quoted header": ('\ufeff"image" , "caption"\n"0.jpg", "a"\n', (), {0: ["a"]}),
    "mark and --encoding": ('\ufeff"image" , "caption"\n"0.jpg", "a"\n', ("--encoding", "utf-8"), {0: ["a"]}),
    "other columns": (
        'url,path,text\nx,0.jpg,"one, two"\nx,1.jpg,three\n',
        ("--image-column", "path", "--caption-column", "text", "--separator", "comma"),
        {0: ["one, two"], 1: ["three"]},
    ),
    "quotation marks as characters": (
        'image\tcaption\n0.jpg\t"open\n1.jpg\ta 5" nail\n',
        ("--quoting", "none"),
        {0: ['"open'], 1: ['a 5" nail']},
    ),
    "swallowed rows without quoting": (
        'image,caption\n1.jpg,"open\n2.jpg,two\n3.jpg,a 5" nail\n',
        ("--quoting", "none"),
        {1: ['"open'], 2: ["two"], 3: ['a 5" nail']},
    ),
    "comma and pipe in captions": ("image;caption\n0.jpg;a, b | c\n", (), {0: ["a, b | c"]}),
    "semicolon in captions": ("image,caption\n0.jpg,a; b | c\n", (), {0: ["a; b | c"]}),
    "both in captions": ("caption\timage\na, b; c\t0.jpg\n", (), {0: ["a, b; c"]}),
    "columns in another order": ("image,a,b\n0.jpg,one,two\n", ("--caption-column", "b, a"), {0: ["two", "one"]}),
    "carriage returns in captions": (
        "image,caption\n0.jpg,one\rand more\n1.jpg,two\n",
        (),
        {0: ["one and more"], 1: ["two"]},
    ),
    "two carriage returns": ("image,caption\r\r\n0.jpg,one\r\r\n", (), {0: ["one"]}),
    "Flickr8k's numbers of captions": (
        "0.jpg#0\tA child , in pink .\n0.jpg#1\tA girl .\n1.jpg#0\tx\n",
        ("--columns", "image,caption"),
        {0: ["A child , in pink .", "A girl ."], 1: ["x"]},
    ),
}


@pytest.mark.parametrize(("text", "flags", "captions"), CASES.values(), ids=CASES)
def test_dialects(table, text, flags, captions):
    done, found = table(text, *flags)
    assert done.status == 0 and list(found.items()) == list(captions.items())


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_an_encoding_that_is_given(table, encoding):
    assert table("image,caption\n0.jpg,é\n", "--encoding", encoding, encoding=encoding)[1] == {0: ["é"]}


def test_words_that_look_like_nothing_or_like_numbers_are_captions(table):
    texts = ["NA", "null", "None", "nan", "N/A", "007", "1e5", "true", "#N/A", "-", "0"]
    assert table("image,caption\n" + "".join(f"0.jpg,{text}\n" for text in texts))[1] == {0: texts}


@pytest.mark.parametrize("mark", ["sep=;", '"sep=;"', "SEP=;;", "\ufeffsep=;"])
def test_excels_line_that_names_the_separator(table, mark):
    done, captions = table(f"{mark}\r\nimage;caption\r\n0.jpg;a, b\r\n1.jpg\r\n")
    assert captions == {0: ["a, b"]} and "pairs.csv, line 4: too few" in done.err


@pytest.mark.parametrize(
    ("header", "note"),
    [
        ("filepath\ttitle", "images from column 'filepath', captions from 'title'"),
        ("Image,Caption", "images from column 'Image', captions from 'Caption'"),
        ("file_name,text", "images from column 'file_name', captions from 'text'"),
        ('"image_path","sentence"', "images from column 'image_path', captions from 'sentence'"),
        ("image,TEXT", "captions from 'TEXT'"),
    ],
)
def test_usual_names_of_columns_are_taken_and_named(table, header, note):
    separator = "\t" if "\t" in header else ","
    done, captions = table(f"{header}\n0.jpg{separator}one\n")
    assert captions == {0: ["one"]} and f"pairs.csv: {note}" in done.err


def test_several_columns_of_captions(table):
    done, captions = table("image,caption_10,caption_2,x\n0.jpg,ten,two,y\n")
    assert captions == {0: ["two", "ten"]} and "captions from 'caption_2', 'caption_10'" in done.err


def test_root_is_where_paths_start(write, tmp_path):
    pics = write_files(tmp_path / "pics", {f"{n}.jpg": photo(n) for n in (0, 3)})
    write_files(tmp_path, {"pairs.csv": f"image,caption\n3.jpg,a\n{pics / '0.jpg'},absolute\n"})
    assert write("csv", "--csv", tmp_path / "pairs.csv", "--root", pics).samples().images == [photo(3), photo(0)]


ZEROS = "is UTF-16, not utf-8-sig, by its zero bytes; give --encoding utf-16-"
REFUSED = [
    ("img,captoin\n", ("--image-column", "img"), "no column 'caption' (--caption-column); did you mean 'captoin'?"),
    ("name;text\n", ("--caption-column", "text"), "no column 'image' (--image-column); valid: name, text"),
    ("image,caption\n", ("--separator", "tab"), "no column 'image'"),
    ("", (), "no column 'image'"),
    ("image,caption\na,b\n", ("--encoding", "utf-9"), "is not utf-9 (unknown encoding: utf-9); give --encoding"),
    ("image,caption\na,b\n", ("--encoding", "utf-16"), "is not utf-16 ("),
    ("image,caption\n", (), "no item that can be written (0 skipped)"),
    ("path,file_name,caption\n", (), "no column 'image': is it 'path' or 'file_name'? Give --image-column"),
    ("image,caption,caption\n", (), "has 2 columns 'caption' (--caption-column), number 2 and 3: rename all but one"),
    ("url,caption\nhttp://h/a.jpg,a\n", (), "no column 'image'; its images are URLs: download them with img2dataset"),
    ("0.jpg,a dog\n1.jpg,b\n", (), "pairs.csv has no header: its first row is '0.jpg', 'a dog'; give --columns"),
    ("a dog\thttp://host/a\n", (), "has no header: its first row is 'a dog', 'http://host/a'; its images are URLs"),
    ("0.jpg,a\n", ("--columns", "x,y,z"), "--columns has no column 'image' (--image-column); valid: x, y, z"),
    ("0.jpg,a\n", ("--columns", "image,x,caption"), "no separator gives its first row the 3 --columns"),
    ("image,caption\n0.jpg,a\n".encode("utf-16"), (), "is UTF-16, not utf-8-sig; give --encoding utf-16"),
    ("image,caption\n".encode("utf-16-le"), (), f"{ZEROS}le"),
    ("image,caption\n".encode("utf-16-be"), (), f"{ZEROS}be"),
    (b"image,caption\n0.jpg,a\n1.jpg,caf\xe9\n", (), "pairs.csv, line 3 is not utf-8-sig (byte 0xe9"),
    (b"image,caption\n0.jpg,caf\xe9\n", (), "; give --encoding, such as cp1252"),
    (b"\x1f\x8b\x08\x00", (), "is compressed by gzip: unpack it first"),
    (b"PK\x03\x04....", (), "is a zip archive or a spreadsheet (.xlsx)"),
    (b"PAR1....", (), "is a parquet file: use 'bimodal-prep write hf'"),
]


@pytest.mark.parametrize(("content", "flags", "message"), REFUSED)
def test_tables_that_cannot_be_used(table, tmp_path, content, flags, message):
    error = table(content, *flags)[0].error
    assert message in error and not (tmp_path / "to").exists()
    assert "--encoding" in error or "--encoding" not in flags


def test_missing_table_names_the_nearest(write, tmp_path):
    raw = write_files(tmp_path / "raw", {"pairs.csv": "image,caption\n", "pics/0.jpg": photo(0)})
    for flags, parts in (
        (("--csv", raw / "pair.csv"), ("--csv: no such file", "did you mean 'pairs.csv'?")),
        (("--csv", tmp_path / "rw" / "pairs.csv"), ("--csv: no such file", "did you mean 'raw'?")),
        (("--csv", raw / "pairs.csv", "--root", raw / "pix"), ("--root: no such folder", "pics")),
    ):
        error = write("csv", *flags).error
        assert all(part in error for part in parts), error
