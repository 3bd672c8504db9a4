"""Rows that are not what the header promises: right, or named by their line; and what no row can be trusted after."""

import csv

import pytest

OPENED = "pairs.csv, line {}: a quotation mark opens a field that goes on to {}; close it, or give --quoting none"


def skipped(done):
    return [line.removeprefix("skipped ") for line in done.err.splitlines() if line.startswith("skipped ")]


@pytest.mark.parametrize(
    ("content", "line", "end"),
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
def test_a_quotation_mark_that_swallows_rows(table, content, line, end):
    done, _ = table(content)
    assert OPENED.format(line, end) in done.error


def test_line_breaks_that_belong_to_a_caption(table):
    """Lines within a field that are no rows, also where they hold the separator; rows after them keep their lines."""
    done, captions = table(
        'image,caption\r\n0.jpg,"Ingredients:\r\nsalt, pepper\r\nraw, salt"\r\n1.jpg,"a\r\nb"\r\n2.jpg\r\n3.jpg,c\r\n'
    )
    assert captions == {0: ["Ingredients: salt, pepper raw, salt"], 1: ["a b"], 3: ["c"]}
    assert skipped(done) == ["pairs.csv, line 7: too few columns (1, the header has 2)"]


def test_quotation_marks_within_fields(table):
    """Characters where the row then has its columns; not where the field may be quoted as a whole, nor at the end."""
    done, captions = table(
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


def test_more_columns_than_the_header(table):
    done, captions = table(
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


def test_separators_in_a_caption_that_is_not_last_are_not_guessed(table):
    done, captions = table("caption,image\nA dog, running,0.jpg\nb,1.jpg\n")
    assert captions == {1: ["b"]} and "line 2: too many columns (3, the header has 2)" in done.err


def test_fewer_columns_than_the_header(table):
    """Even where the cell that would be the caption is there: it may be another column's."""
    done, captions = table("image,lang,caption,split\n0.jpg,a dog,train\n1.jpg,en,b,test\n,,,\n  \n2.jpg,en\n")
    assert captions == {1: ["b"]}
    assert skipped(done) == [
        "pairs.csv, line 2: too few columns (3, the header has 4)",
        "pairs.csv, line 4: no image path",
        "pairs.csv, line 6: too few columns (2, the header has 4)",
    ]


def test_strict_stops_at_the_first(table):
    done, _ = table("image,caption\n0.jpg,one\n1.jpg\n", "--strict")
    assert done.error == "pairs.csv, line 3: too few columns (1, the header has 2) (--strict)"


def test_flickr30k_and_its_broken_row(table):
    done, captions = table(
        'image_name| comment_number| comment\n0.jpg| 0| Two men , in green .\n0.jpg| 1| He said "hi" .\n'
        "1.jpg| 4   A dog runs across the grass .\n"
    )
    assert captions == {0: ["Two men , in green .", 'He said "hi" .']}
    assert skipped(done) == ["pairs.csv, line 4: too few columns (2, the header has 3)"]
    assert "pairs.csv: images from column 'image_name', captions from 'comment'" in done.err


def test_long_fields(table):
    long = "word " * 100_000
    before = csv.field_size_limit()
    done, captions = table(f"image,caption,html\n0.jpg,{long},x\n1.jpg,a,{long}\n")
    assert done.status == 0 and captions == {0: [long.strip()], 1: ["a"]}
    assert csv.field_size_limit() >= before


def test_line_ends_of_old_macs(table):
    done, captions = table('image,caption\r0.jpg,one\r1.jpg,"two\rlines"\r2.jpg\r')
    assert captions == {0: ["one"], 1: ["two lines"]} and "line 5: too few columns" in done.err


def test_zero_characters(table):
    done, captions = table("image,caption\n0.jpg,a\0b\n1.jpg,c\n")
    assert captions == {1: ["c"]} and skipped(done) == ["pairs.csv, line 2: it contains a NUL character"]


def test_empty_captions_and_missing_images_are_named_by_line(table):
    done, captions = table("image,caption\n0.jpg,\n0.jpg,one\n1.jpg,\u00a0 \n9.jpg,gone\n")
    assert captions == {0: ["one"]} and "2 empty captions dropped" in done.out
    assert "pairs.csv, line 2: empty caption" in done.err and "pairs.csv, line 4: empty caption" in done.err
    assert "skipped pairs.csv, line 5: " in done.err and "9.jpg: no such file" in done.err


def test_a_table_without_a_header(table):
    """In the order of Conceptual Captions."""
    done, captions = table("a, dog\t0.jpg\nb\t1.jpg\nc\n", "--columns", "caption,image")
    assert captions == {0: ["a, dog"], 1: ["b"]} and "pairs.csv, line 3: too few columns" in done.err


def test_unusable_rows_are_named_by_line(table):
    done, captions = table('image,caption\n0.jpg,one\n,no path\n"1.jpg"\n9.jpg,gone\n2.jpg, \n')
    assert captions == {0: ["one"]} and skipped(done)[:2] == [
        "pairs.csv, line 3: no image path",
        "pairs.csv, line 4: too few columns (1, the header has 2)",
    ]
    assert "9.jpg: no such file" in done.err and "2.jpg: no caption" in done.err
    assert "4 items skipped" in done.out and "1 empty captions dropped" in done.out
