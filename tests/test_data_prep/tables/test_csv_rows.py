"""Rows that are not what the header promises: right, or named by their line; and what no row can be trusted after."""

import csv

import pytest

from tests.test_data_prep.raw_material import captions_of, image_of, photo, read_folder, write_files

OPENED = "pairs.csv, line {}: a quotation mark opens a field that goes on to {}; close it, or give --quoting none"


@pytest.fixture
def write(prep, tmp_path):
    """Write a table of the images 0.jpg to 5.jpg; the outcome and the captions of every image."""
    write_files(tmp_path / "raw", {f"{n}.jpg": photo(n) for n in range(6)})

    def run(table, *flags):
        write_files(tmp_path / "raw", {"pairs.csv": table})
        done = prep(
            "write", "csv", "--csv", tmp_path / "raw" / "pairs.csv", *flags, "--to", tmp_path / "to", "--overwrite"
        )
        if done.status:
            return done, {}
        samples = read_folder(tmp_path / "to")
        numbers = {photo(n): n for n in range(6)}
        return done, {numbers[image_of(sample)]: captions_of(sample) for sample in samples}

    return run


def skipped(done):
    return [line.removeprefix("skipped ") for line in done.err.splitlines() if line.startswith("skipped ")]


@pytest.mark.parametrize(
    ("table", "line", "end"),
    [
        ('image,caption\n0.jpg,one\n1.jpg,"open\n2.jpg,two\n3.jpg,three\n', 3, "the end of the file"),
        ('image,caption\n0.jpg,one\n1.jpg,"open\n2.jpg,two\n3.jpg,closes"\n4.jpg,x\n', 3, "line 5"),
        ('image,caption\n1.jpg,"open\n2.jpg,two\n3.jpg,"quoted, as it should be"\n4.jpg,x\n', 2, "line 4"),
        ('image,caption\n0.jpg,"a legal\nbreak"\n1.jpg,"open\ngone.jpg,two\n3.jpg,closes"\n', 4, "line 6"),
        ('caption,image\n"open,0.jpg\nsecond closes",1.jpg\n', 2, "line 3"),
        ('n;caption;image\n1;one;0.jpg\n2;"open;1.jpg\n3;closes";2.jpg\n', 3, "line 4"),
        ('image,caption,split\n0.jpg,"open,x\n1.jpg,closes",y\n', 2, "line 3"),
        ('image,split,caption\n0.jpg,"x","open\n1.jpg,y,"\n', 2, "line 3"),
        ('image,caption\n"0.jpg,one\n1.jpg",two\n', 2, "line 3"),
        ('image,caption\nhttp://host/a,"open\nhttp://host/b,closes"\n', 2, "line 3"),
    ],
)
def test_a_quotation_mark_that_swallows_rows(write, table, line, end):
    done, _ = write(table)
    assert OPENED.format(line, end) in done.error


def test_swallowed_rows_are_read_without_quoting(write):
    done, captions = write('image,caption\n1.jpg,"open\n2.jpg,two\n3.jpg,a 5" nail\n', "--quoting", "none")
    assert done.status == 0 and captions == {1: ['"open'], 2: ["two"], 3: ['a 5" nail']}


def test_line_breaks_that_belong_to_a_caption(write):
    """Lines within a field that are no rows, also where they hold the separator; rows after them keep their lines."""
    done, captions = write(
        'image,caption\r\n0.jpg,"Ingredients:\r\nsalt, pepper\r\nraw, salt"\r\n1.jpg,"a\r\nb"\r\n2.jpg\r\n3.jpg,c\r\n'
    )
    assert captions == {0: ["Ingredients: salt, pepper raw, salt"], 1: ["a b"], 3: ["c"]}
    assert skipped(done) == ["pairs.csv, line 7: too few columns (1, the header has 2)"]


def test_quotation_marks_within_fields(write):
    """Characters where the row then has its columns; not where the field may be quoted as a whole, nor at the end."""
    done, captions = write(
        'image,caption\n0.jpg,"a 5" nail\n1.jpg,A "dog" runs\n2.jpg, "after a space, quoted"\n3.jpg,"A "dog" runs"\n'
        '4.jpg,"closed" \n5.jpg,"never closed\n'
    )
    assert captions == {0: ['"a 5" nail'], 1: ['A "dog" runs'], 2: ["after a space, quoted"], 4: ["closed"]}
    first, second = skipped(done)
    assert first.startswith(
        "pairs.csv, line 5: a quotation mark inside a field that begins with one; close it, or give"
    )
    assert second.startswith("pairs.csv, line 7: a quotation mark opens and never closes")
    assert "2 items skipped" in done.out


def test_more_columns_than_the_header(write):
    done, captions = write(
        "image,caption\n0.jpg,A dog, running , fast\n1.jpg,a dog,train\n2.jpg,plain\n3.jpg,trailing,,\n4.jpg, a, b\n"
        '5.jpg,"quoted", and more\n'
    )
    assert captions == {0: ["A dog, running , fast"], 2: ["plain"], 3: ["trailing"]}
    assert "pairs.csv: 1 rows have ',' without quotation marks in the last column, 'caption'" in done.err
    assert "(line 2)" in done.err
    assert [line.partition(";")[0] for line in skipped(done)] == [
        "pairs.csv, line 3: too many columns (3, the header has 2)",
        "pairs.csv, line 6: too many columns (3, the header has 2)",
        "pairs.csv, line 7: too many columns (3, the header has 2)",
    ]
    assert "3 items skipped" in done.out


def test_separators_in_a_caption_that_is_not_last_are_not_guessed(write):
    done, captions = write("caption,image\nA dog, running,0.jpg\nb,1.jpg\n")
    assert captions == {1: ["b"]} and "line 2: too many columns (3, the header has 2)" in done.err


def test_fewer_columns_than_the_header(write):
    """Even where the cell that would be the caption is there: it may be another column's."""
    done, captions = write("image,lang,caption,split\n0.jpg,a dog,train\n1.jpg,en,b,test\n,,,\n  \n2.jpg,en\n")
    assert captions == {1: ["b"]}
    assert skipped(done) == [
        "pairs.csv, line 2: too few columns (3, the header has 4)",
        "pairs.csv, line 4: no image path",
        "pairs.csv, line 6: too few columns (2, the header has 4)",
    ]


def test_strict_stops_at_the_first(write):
    done, _ = write("image,caption\n0.jpg,one\n1.jpg\n", "--strict")
    assert done.error == "pairs.csv, line 3: too few columns (1, the header has 2) (--strict)"


def test_flickr30k_and_its_broken_row(write):
    done, captions = write(
        'image_name| comment_number| comment\n0.jpg| 0| Two men , in green .\n0.jpg| 1| He said "hi" .\n'
        "1.jpg| 4   A dog runs across the grass .\n"
    )
    assert captions == {0: ["Two men , in green .", 'He said "hi" .']}
    assert skipped(done) == ["pairs.csv, line 4: too few columns (2, the header has 3)"]
    assert "pairs.csv: images from column 'image_name', captions from 'comment'" in done.err


def test_words_that_look_like_nothing_or_like_numbers_are_captions(write):
    texts = ["NA", "null", "None", "nan", "N/A", "007", "1e5", "true", "#N/A", "-", "0"]
    _, captions = write("image,caption\n" + "".join(f"0.jpg,{text}\n" for text in texts))
    assert captions == {0: texts}


def test_long_fields(write):
    long = "word " * 100_000
    before = csv.field_size_limit()
    done, captions = write(f"image,caption,html\n0.jpg,{long},x\n1.jpg,a,{long}\n")
    assert done.status == 0 and captions == {0: [long.strip()], 1: ["a"]}
    assert csv.field_size_limit() >= before


@pytest.mark.parametrize("mark", ["sep=;", '"sep=;"', "SEP=;;", "\ufeffsep=;"])
def test_excels_line_that_names_the_separator(write, mark):
    done, captions = write(f"{mark}\r\nimage;caption\r\n0.jpg;a, b\r\n1.jpg\r\n")
    assert captions == {0: ["a, b"]} and "pairs.csv, line 4: too few" in done.err


def test_captions_that_hold_other_separators(write):
    assert write("image;caption\n0.jpg;a, b | c\n")[1] == {0: ["a, b | c"]}
    assert write("image,caption\n0.jpg,a; b | c\n")[1] == {0: ["a; b | c"]}
    assert write("caption\timage\na, b; c\t0.jpg\n")[1] == {0: ["a, b; c"]}


@pytest.mark.parametrize("flags", [(), ("--encoding", "utf-8")])
def test_a_byte_order_mark_before_a_quoted_header(write, flags):
    assert write('\ufeff"image" , "caption"\n"0.jpg", "a"\n', *flags)[1] == {0: ["a"]}


def test_line_ends(write):
    """Those of old Macs; and carriage returns within captions of files that have others."""
    done, captions = write('image,caption\r0.jpg,one\r1.jpg,"two\rlines"\r2.jpg\r')
    assert captions == {0: ["one"], 1: ["two lines"]} and "line 5: too few columns" in done.err
    assert write("image,caption\n0.jpg,one\rand more\n1.jpg,two\n")[1] == {0: ["one and more"], 1: ["two"]}
    assert write("image,caption\r\r\n0.jpg,one\r\r\n")[1] == {0: ["one"]}


def test_zero_characters(write):
    done, captions = write("image,caption\n0.jpg,a\0b\n1.jpg,c\n")
    assert captions == {1: ["c"]} and skipped(done) == ["pairs.csv, line 2: it contains a NUL character"]


def test_empty_captions_and_missing_images_are_named_by_line(write):
    done, captions = write("image,caption\n0.jpg,\n0.jpg,one\n1.jpg,\u00a0 \n9.jpg,gone\n")
    assert captions == {0: ["one"]} and "2 empty captions dropped" in done.out
    assert "pairs.csv, line 2: empty caption" in done.err and "pairs.csv, line 4: empty caption" in done.err
    assert "skipped pairs.csv, line 5: " in done.err and "9.jpg: no such file" in done.err


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
def test_usual_names_of_columns_are_taken_and_named(write, header, note):
    separator = "\t" if "\t" in header else ","
    done, captions = write(f"{header}\n0.jpg{separator}one\n")
    assert captions == {0: ["one"]} and f"pairs.csv: {note}" in done.err


def test_several_columns_of_captions(write):
    done, captions = write("image,caption_10,caption_2,x\n0.jpg,ten,two,y\n")
    assert captions == {0: ["two", "ten"]} and "captions from 'caption_2', 'caption_10'" in done.err
    assert write("image,a,b\n0.jpg,one,two\n", "--caption-column", "b, a")[1] == {0: ["two", "one"]}


@pytest.mark.parametrize(
    ("table", "flags", "message"),
    [
        ("path,file_name,caption\n", (), "no column 'image': is it 'path' or 'file_name'? Give --image-column"),
        (
            "image,caption,caption\n",
            (),
            "has 2 columns 'caption' (--caption-column), number 2 and 3: rename all but one",
        ),
        (
            "url,caption\nhttp://host/a.jpg,a\n",
            (),
            "has no column 'image'; its images are URLs: download them with img2dataset",
        ),
        ("0.jpg,a dog\n1.jpg,b\n", (), "pairs.csv has no header: its first row is '0.jpg', 'a dog'; give --columns"),
        ("a dog\thttp://host/a\n", (), "has no header: its first row is 'a dog', 'http://host/a'; its images are URLs"),
        ("0.jpg,a\n", ("--columns", "x,y,z"), "--columns has no column 'image' (--image-column); valid: x, y, z"),
        ("0.jpg,a\n", ("--columns", "image,x,caption"), "no separator gives its first row the 3 --columns"),
    ],
)
def test_headers_that_leave_it_open(write, table, flags, message):
    assert message in write(table, *flags)[0].error


def test_a_table_without_a_header(write):
    """Conceptual Captions' order, and Flickr8k's own list with the number of the caption behind the image."""
    done, captions = write("a, dog\t0.jpg\nb\t1.jpg\nc\n", "--columns", "caption,image")
    assert captions == {0: ["a, dog"], 1: ["b"]} and "pairs.csv, line 3: too few columns" in done.err
    _, captions = write("0.jpg#0\tA child , in pink .\n0.jpg#1\tA girl .\n1.jpg#0\tx\n", "--columns", "image,caption")
    assert captions == {0: ["A child , in pink .", "A girl ."], 1: ["x"]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("image,caption\n0.jpg,a\n".encode("utf-16"), "is UTF-16, not utf-8-sig; give --encoding utf-16"),
        (
            "image,caption\n".encode("utf-16-le"),
            "is UTF-16, not utf-8-sig, by its zero bytes; give --encoding utf-16-le",
        ),
        (
            "image,caption\n".encode("utf-16-be"),
            "is UTF-16, not utf-8-sig, by its zero bytes; give --encoding utf-16-be",
        ),
        (b"image,caption\n0.jpg,a\n1.jpg,caf\xe9\n", "line 3 is not utf-8-sig (byte 0xe9"),
        (b"\x1f\x8b\x08\x00", "is compressed by gzip: unpack it first"),
        (b"PK\x03\x04....", "is a zip archive or a spreadsheet (.xlsx)"),
        (b"PAR1....", "is a parquet file: use 'bimodal-prep write hf'"),
    ],
)
def test_files_that_are_no_text_as_said(write, data, message):
    assert message in write(data)[0].error


def test_the_encoding_that_was_named(write):
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        assert write("image,caption\n0.jpg,é\n".encode(encoding), "--encoding", encoding)[1] == {0: ["é"]}
