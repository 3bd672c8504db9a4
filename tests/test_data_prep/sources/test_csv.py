"""Tables of paths and captions, in the dialects that people have."""

import pytest

from tests.test_data_prep.raw_material import captions_of, photo, read_folder, write_files


@pytest.fixture
def images(tmp_path):
    return write_files(tmp_path / "raw", {f"pics/{n}.jpg": photo(n) for n in range(4)})


def write_table(folder, text, encoding="utf-8", name="pairs.csv"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def test_rows_of_one_image_become_its_captions(write, images, tmp_path):
    table = write_table(
        images,
        'image,caption,split\r\npics/2.jpg,"a dog, running",x\r\npics/0.jpg,"says ""hello""\r\nto you",x\r\n'
        "pics/2.jpg,second,x\r\n\r\npics/1.jpg,caf\u00e9 \u732b,x\r\n",
    )
    samples = write("csv", "--csv", table).samples()
    assert samples.captions == [["a dog, running", "second"], ['says "hello" to you'], ["café 猫"]]
    assert samples.images == [photo(2), photo(0), photo(1)]


@pytest.mark.parametrize(
    ("text", "flags", "encoding"),
    [
        ("caption\timage\none, two\tpics/0.jpg\nthree\tpics/1.jpg\n", (), "utf-8"),
        ("image;caption\npics/0.jpg;one, two\npics/1.jpg;three\n", (), "utf-8"),
        ("image| number| caption\npics/0.jpg| 0| one, two\npics/1.jpg| 0| three\n", (), "utf-8"),
        ('image,caption\npics/0.jpg,"one, two"\npics/1.jpg,three', (), "utf-8-sig"),
        ("image\tcaption\npics/0.jpg\tone, two\npics/1.jpg\tthree\n", ("--encoding", "utf-16"), "utf-16"),
        (
            'url,path,text\nx,pics/0.jpg,"one, two"\nx,pics/1.jpg,three\n',
            ("--image-column", "path", "--caption-column", "text", "--separator", "comma"),
            "utf-8",
        ),
    ],
    ids=["tab", "semicolon", "pipe", "byte-order-mark", "utf-16", "other-columns"],
)
def test_dialects(write, images, tmp_path, text, flags, encoding):
    table = write_table(images, text, encoding)
    samples = write("csv", "--csv", table, *flags).samples()
    assert samples.captions == [["one, two"], ["three"]]
    assert samples.images == [photo(0), photo(1)]


def test_quotation_marks_as_characters(write, images, tmp_path):
    table = write_table(images, 'image\tcaption\npics/0.jpg\t"open\npics/1.jpg\ta 5" nail\n', name="pairs.tsv")
    assert write("csv", "--csv", table, "--quoting", "none").samples().captions == [['"open'], ['a 5" nail']]


def test_root_is_where_paths_start(write, images, tmp_path):
    table = write_table(tmp_path, f"image,caption\n3.jpg,a\n{images / 'pics' / '0.jpg'},absolute\n")
    assert write("csv", "--csv", table, "--root", images / "pics").samples().images == [photo(3), photo(0)]


def test_unusable_rows_are_named_by_line(write, images, tmp_path):
    table = write_table(
        images, 'image,caption\npics/0.jpg,one\n,no path\n"pics/1.jpg"\npics/9.jpg,gone\npics/2.jpg, \n'
    )
    done = write("csv", "--csv", table)
    assert done.status == 0 and len(read_folder(tmp_path / "to")) == 1
    assert "skipped pairs.csv, line 3: no image path" in done.err
    assert "skipped pairs.csv, line 4: too few columns" in done.err
    assert "pics/9.jpg: no such file" in done.err and "pics/2.jpg: no caption" in done.err
    assert "4 items skipped" in done.out and "1 empty captions dropped" in done.out


@pytest.mark.parametrize(
    ("text", "flags", "parts"),
    [
        ("img,captoin\n", ("--image-column", "img"), ("no column 'caption' (--caption-column)", "mean 'captoin'?")),
        ("name;text\n", ("--caption-column", "text"), ("no column 'image' (--image-column)", "name, text")),
        ("image,caption\n", ("--separator", "tab"), ("no column 'image'",)),
        ("", (), ("no column 'image'",)),
        ("image,caption\na,b\n", ("--encoding", "utf-9"), ("utf-9", "--encoding")),
        ("image,caption\na,b\n", ("--encoding", "utf-16"), ("is not utf-16", "--encoding")),
        ("image,caption\n", (), ("no item that can be written (0 skipped)",)),
    ],
)
def test_a_table_that_cannot_be_used(write, images, tmp_path, text, flags, parts):
    table = write_table(images, text)
    error = write("csv", "--csv", table, *flags).error
    for part in parts:
        assert part in error, error
    assert not (tmp_path / "to").exists()


def test_latin_1_is_named_not_guessed(write, images, tmp_path):
    table = write_table(images, "image,caption\npics/0.jpg,caf\u00e9\n", "latin-1")
    error = write("csv", "--csv", table).error
    assert "pairs.csv, line 2 is not utf-8-sig (byte 0xe9" in error and "give --encoding, such as cp1252" in error
    assert write("csv", "--csv", table, "--encoding", "latin-1").status == 0
    assert captions_of(read_folder(tmp_path / "to")[0]) == ["café"]


def test_missing_table_names_the_nearest(write, images, tmp_path):
    write_table(images, "image,caption\n")
    error = write("csv", "--csv", images / "pair.csv").error
    assert "--csv: no such file" in error and "did you mean 'pairs.csv'?" in error
    error = write("csv", "--csv", tmp_path / "rw" / "pairs.csv").error
    assert "--csv: no such file" in error and "did you mean 'raw'?" in error
    error = write("csv", "--csv", images / "pairs.csv", "--root", images / "pix").error
    assert "--root: no such folder" in error and "pics" in error
