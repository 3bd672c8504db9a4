"""Every reader takes every format, and names what it leaves out; compressed and hidden-away tars are named."""

import gzip
import io
import os

import numpy as np
import pytest
from PIL import Image

from bimodal_cl.data import Manifest
from bimodal_cl.data.pairs import read_pairs
from bimodal_cl.data.shards.row_table import load_row_table, row_table_path
from tests.test_data_prep.raw_material import captions_of, open_bytes, photo, read_folder, write_files, write_tar

FORMAT_OF = {
    **{".jfif": "JPEG", ".jpe": "JPEG", ".ppm": "PPM", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP"},
    **{".avif": "AVIF", ".jp2": "JPEG2000", ".gif": "GIF", ".tga": "TGA", ".webp": "WEBP", ".apng": "PNG"},
    **{".pcx": "PCX", ".dds": "DDS", ".qoi": "QOI", ".sgi": "SGI", ".ico": "ICO", ".mpo": "MPO", ".TIF": "TIFF"},
}


def gradient(format):
    across, down = np.meshgrid(np.linspace(0, 255, 24), np.linspace(0, 255, 16))
    out = io.BytesIO()
    Image.fromarray(np.stack([across, down, 255 - across], axis=-1).astype(np.uint8)).save(out, format)
    return out.getvalue()


IMAGES = {ending: gradient(format) for ending, format in FORMAT_OF.items()}


def mean_difference(data, ending):
    expected = np.asarray(open_bytes(IMAGES[ending]).convert("RGB"), dtype=float)
    return np.abs(np.asarray(open_bytes(data).convert("RGB"), dtype=float) - expected).mean()


@pytest.mark.parametrize("source", ["folder", "csv"])
def test_folders_and_tables_take_every_format(write, tmp_path, source):
    raw = tmp_path / "raw"
    for number, (ending, data) in enumerate(IMAGES.items()):
        write_files(raw, {f"{number}{ending}": data, f"{number}.txt": f"picture {ending}"})
    lines = [f"raw/{number}{ending},picture {ending}" for number, ending in enumerate(IMAGES)]
    write_files(tmp_path, {"t.csv": "\n".join(["image,caption", *lines])})
    given = ("folder", "--images", raw) if source == "folder" else ("csv", "--csv", tmp_path / "t.csv")
    done = write(*given, "--quality", 95)
    assert "left out" not in done.out + done.err
    samples = done.samples()
    assert len(samples) == len(IMAGES)
    for sample in samples:
        (caption,) = captions_of(sample)
        (image,) = (data for ending, data in sample[1].items() if ending != "txt")
        assert mean_difference(image, caption.removeprefix("picture ")) < 8


def test_shards_take_every_format(prep, tmp_path):
    members = []
    for number, (ending, data) in enumerate(IMAGES.items()):
        members += [(f"{number}{ending}", data), (f"{number}{('.txt', '.caption', '.text')[number % 3]}", b"a text")]
    write_tar(tmp_path / "0.tar", members)
    done = prep("index", tmp_path)
    assert done.status == 0 and f"{len(IMAGES)} images, {len(IMAGES)} captions (whole) in 1 shards" in done.out
    assert prep("verify", tmp_path).status == 0
    pairs = read_pairs(tmp_path, range(len(IMAGES)))
    table = load_row_table(Manifest.load(tmp_path), 0)
    for number, ending in enumerate(IMAGES):
        expected = np.asarray(open_bytes(IMAGES[ending]).convert("RGB"), dtype=int)
        assert np.abs(np.asarray(pairs[number].image, dtype=int) - expected).max() <= 1
        assert pairs[number].captions == ["a text"] and table.extension(number) == ending.lower()
    assert prep("verify", tmp_path, "--repair", "--to", tmp_path / "clean").status == 0
    assert prep("index", tmp_path / "clean").status == 0


def test_a_folder_names_what_it_leaves_out(write, tmp_path):
    raw = tmp_path / "raw"
    write_files(raw, {"a.jpg": photo(0), "a.txt": "a", "b.tif": photo(1, format="TIFF"), "b.TXT": "b"})
    write_files(raw, {"c.heic": "?", "c.txt": "of what is not read", "d.svg": "<svg/>", "deep/e.svg": "<svg/>"})
    write_files(raw, {"img_001": photo(2), "f.jpg_large": photo(3), "g.jpeg?x=1": photo(4), "h.json": "{}"})
    write_files(raw, {".DS_Store": "", "Thumbs.db": "", "__MACOSX/._a.jpg": "", "._a.jpg": ""})
    done = write("folder", "--images", raw)
    assert "written: 2 images, 2 captions" in done.out
    assert done.out.splitlines()[-1] == (
        "  files left out: 2 .svg, 1 .heic, 1 .jpeg?x=1 (images), 1 .jpg_large (images), 1 .json, 1 .txt, "
        "1 without an ending (images), 4 hidden"
    )
    assert done.samples().captions == [["a"], ["b"]]


def test_a_folder_of_nothing_usable(write, tmp_path):
    write_files(tmp_path / "raw", {"a.heic": "?", "a.txt": "a", "b": photo(0)})
    error = write("folder", "--images", tmp_path / "raw").error
    assert error == (
        "no image (.jpg, .jpeg, .png, .webp, .jpe, .jfif, .apng, .gif, ...) in "
        f"{tmp_path / 'raw'}; it holds 1 .heic, 1 .txt, 1 without an ending (images)"
    )


def test_captions_beside_images_in_order_of_preference(write, tmp_path):
    write_files(tmp_path / "raw", {f"{name}.png": photo(0, format="PNG") for name in "abc"})
    write_files(tmp_path / "raw", {"a.text": "text", "a.caption": "caption", "a.txt": "txt"})
    write_files(tmp_path / "raw", {"b.text": "text", "b.caption": "caption", "c.text": "text"})
    done = write("folder", "--images", tmp_path / "raw")
    assert done.samples().captions == [["txt"], ["caption"], ["text"]]
    assert done.out.splitlines()[-1] == "  files left out: 2 .text, 1 .caption"


def test_an_index_counts_the_members_of_no_sample(prep, tmp_path):
    members = [("a.jpg", photo(0)), ("a.txt", b"a"), ("a.json", b"{}"), ("b.heic", b"?"), ("b.txt", b"b")]
    write_tar(tmp_path / "0.tar", [*members, ("c.mp4", b""), ("d.mp4", b""), ("LICENSE", b""), ("._a.jpg", b"")])
    for _ in range(2):  # the second time from the row table
        done = prep("index", tmp_path)
        assert done.status == 0 and "  1 no_image (kept): " in done.out
        assert done.out.splitlines()[-1] == (
            "  members of no sample: 2 .mp4, 1 .heic, 1 .txt, 1 without an ending, 1 hidden"
        )
    done = prep("verify", tmp_path)
    assert done.out.splitlines()[-1] == "  members of no sample: 2 .mp4, 1 .heic, 1 .txt, 1 without an ending, 1 hidden"


@pytest.mark.parametrize(
    ("members", "what"),
    [
        (("a.heic", "a.txt", "b.heic"), "no images in 1 shard; they hold 2 .heic, 1 .txt"),
        (("a.txt", "b.txt"), "no images in 1 shard; they hold 2 .txt"),
        (("a.jpg", "a.desc"), "no captions in 1 shard; they hold 1 .desc, 1 .jpg"),
        (("a.jpg",), "no captions in 1 shard; they hold 1 .jpg"),
        (("README", ".hidden"), "no images in 1 shard; they hold 1 without an ending, 1 hidden"),
        ((), "no images in 1 shard; they hold nothing"),
    ],
)
def test_an_index_of_nothing_usable_is_refused_with_what_it_found(prep, tmp_path, members, what):
    write_tar(tmp_path / "0.tar", [(name, photo(0) if name.endswith("jpg") else b"x") for name in members])
    for _ in range(2):
        assert prep("index", tmp_path).error == (
            f"{tmp_path / '0.tar'}: {what}; a sample is an image (.jpg, .png, .webp, .tif, ...) and a .txt, .caption "
            "or .text of the same name"
        )
        assert [path.name for path in tmp_path.iterdir()] == ["0.tar"]


@pytest.mark.parametrize(
    ("members", "why"),
    [
        (("a.jpg", "b.jpg", "a.txt", "b.txt"), ": its text is not next to the image in the shard"),
        (("images/a.jpg", "captions/a.txt"), ""),
        (("a.jpg", "a.txt "), ": its text is blank"),
    ],
)
def test_an_index_without_a_usable_caption_says_why(prep, tmp_path, members, why):
    contents = {"jpg": photo(0), "txt": b"x", "txt ": b" \n"}
    write_tar(tmp_path / "0.tar", [(name.strip(), contents[name.partition(".")[2]]) for name in members])
    error = prep("index", tmp_path).error
    assert "no captions in 1 shard; they hold" in error and error.endswith(f".text of the same name{why}")


def test_one_shard_of_several_without_an_image_is_named(prep, tmp_path):
    write_tar(tmp_path / "0.tar", [("a.jpg", photo(0)), ("a.txt", b"a")])
    write_tar(tmp_path / "1.tar", [("b.heic", b"?"), ("b.txt", b"b")])
    done = prep("index", tmp_path)
    assert done.status == 0 and "1.tar: holds no image\n" in done.err


@pytest.mark.parametrize("name", ["0.tar.gz", "0.tgz", "0.tar"])
def test_compressed_tars(prep, write, tmp_path, name):
    shards = tmp_path / "shards"
    write_tar(shards / "x", [("a.jpg", photo(0)), ("a.txt", b"a")])
    (shards / name).write_bytes(gzip.compress((shards / "x").read_bytes()))
    (shards / "x").unlink()
    plain = f"`gzip -dc < {name} > plain.tar` unpacks it"
    error = prep("index", shards / name).error
    assert error == f"shard {shards / name}: is compressed (gzip); shards must be plain tars, since rows are read " + (
        f"in any order: {plain}"
    )
    error = prep("index", shards).error
    if name == "0.tar":
        assert plain in error
        done = prep("verify", shards)
        assert done.status == 1 and "0.tar: unreadable: is compressed (gzip); shards must be plain tars" in done.out
        assert plain in write("img2dataset", shards).error
        assert plain in prep("index", shards, "--damaged", "keep").error
    else:
        ending = name.removeprefix("0")
        holds = f"no .tar in {shards}: it holds 1 {ending}; shards must be plain tars: unpack them"
        assert error == prep("verify", shards).error == holds


def test_compressed_tars_and_sub_folders_beside_plain_tars_are_noted(prep, tmp_path):
    sample = [("a.jpg", photo(0)), ("a.txt", b"a")]
    for name in ("0.tar", "1.tar.gz", "2.tgz", "more/3.tar"):
        write_tar(tmp_path / name, sample)
    done = prep("index", tmp_path)
    assert done.status == 0 and "1 images, 1 captions" in done.out
    pattern = tmp_path / "**" / "*.tar"
    left_out = f"{tmp_path}: left out: 1 .tar in sub-folders ({pattern}), 1 .tar.gz, 1 .tgz\n"
    assert left_out in done.err
    (tmp_path / "manifest.json").unlink()
    assert left_out in prep("verify", tmp_path).err


def test_img2dataset_names_what_stands_beside_its_parts(write, tmp_path):
    write_tar(tmp_path / "in" / "00000.tar", [("a.jpg", photo(0)), ("a.txt", b"a")])
    write_files(tmp_path / "in", {"00000_stats.json": "{}", "00001.tar.gz": "", "LIST": "", "more/x.jpg": ""})
    done = write("img2dataset", tmp_path / "in")
    assert done.status == 0
    assert f"{tmp_path / 'in'}: left out: 1 .gz, 1 folders, 1 without an ending\n" in done.err
    (tmp_path / "in" / "00000.tar").unlink()
    error = write("img2dataset", tmp_path / "in", to="other").error
    assert error.endswith("; it holds 1 .json, 1 .tar.gz, 1 folders, 1 without an ending")


def test_tars_in_sub_folders_are_found(prep, tmp_path):
    for number, name in enumerate(("2/00000.tar", "10/00001.tar", "10/deep/00002.tar", ".cache/x.tar")):
        write_tar(tmp_path / name, [(f"{number}.jpg", photo(number)), (f"{number}.txt", b"%d" % number)])
    assert "3 images, 0 faults" in prep("verify", tmp_path).out
    done = prep("index", tmp_path)
    assert done.status == 0 and f"{tmp_path / 'manifest.json'}: 3 images" in done.out
    names = [shard.name for shard in Manifest.load(tmp_path).shards]
    assert names == ["2/00000.tar", "10/00001.tar", "10/deep/00002.tar"]
    assert [read_pairs(tmp_path, [number])[number].captions for number in range(3)] == [["0"], ["1"], ["2"]]
    assert "3 images, 0 faults" in prep("verify", tmp_path).out


def test_the_table_of_an_index_that_knew_fewer_formats_is_read_and_indexed_anew(prep, tmp_path):
    write_tar(tmp_path / "0.tar", [("a.jpg", photo(0)), ("a.txt", b"a")])
    assert prep("index", tmp_path).status == 0
    path = row_table_path(tmp_path, "0.tar")
    header, _, rows = path.read_bytes().partition(b"\n")
    old = header.replace(b'"rules": 2, ', b"").replace(b'"left_out": {}, ', b"")
    assert len(old) < len(header) - 20
    stamp = path.stat().st_mtime_ns
    path.write_bytes(old + b"\n" + rows)
    os.utime(path, ns=(stamp, stamp))
    assert load_row_table(Manifest.load(tmp_path), 0).extension(0) == ".jpg"
    done = prep("index", tmp_path)
    assert done.status == 0 and "were read before" not in done.out
    assert "1 of the shards were read before" in prep("index", tmp_path).out


def test_a_huge_mislabelled_image_and_a_limit_above_pillows(prep, tmp_path, monkeypatch):
    """189 megapixels and ``--max-pixels 400000000`` in small: Pillow's own limit lies between image and ours."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # it refuses above twice that
    files = {"a.png": photo(0, (64, 40)), "b.webp": photo(1, (64, 40), "TIFF"), "c.jpg": photo(2, (64, 40), "WEBP")}
    members = [member for name, data in files.items() for member in ((name, data), (f"{name[0]}.txt", b"text"))]
    write_tar(tmp_path / "0.tar", members)
    done = prep("verify", tmp_path, "--max-pixels", 64 * 40, "--workers", 1)
    assert done.status == 0, done
    assert done.out.splitlines()[:4] == [
        "0.tar a: note: wrong_extension: is JPEG, not .png",
        "0.tar b: note: wrong_extension: is TIFF, not .webp",
        "0.tar c: note: wrong_extension: is WEBP, not .jpg",
        f"{tmp_path}: 3 images, 0 faults, 3 notes",
    ]
    assert Image.MAX_IMAGE_PIXELS == 1000
    done = prep("verify", tmp_path, "--max-pixels", 64 * 40 - 1, "--workers", 1)
    assert done.status == 1 and done.out.count("too_many_pixels: image") == 3
    repaired = prep("verify", tmp_path, "--max-pixels", 64 * 40, "--repair", "--to", tmp_path / "to", "--workers", 1)
    assert repaired.status == 0 and [sorted(members) for _, members in read_folder(tmp_path / "to")] == [
        ["jpg", "txt"],
        ["tif", "txt"],
        ["txt", "webp"],
    ]


def test_img2dataset_folders_take_every_format_and_name_the_rest(write, tmp_path):
    write_files(tmp_path / "in" / "00000", {"0.jfif": photo(0), "0.caption": "zero", "1.tif": photo(1, format="TIFF")})
    write_files(tmp_path / "in" / "00000", {"1.txt": "one", "2.heic": "?", "2.txt": "two", "3.json": "{}"})
    done = write("img2dataset", tmp_path / "in")
    assert "written: 2 images, 2 captions" in done.out
    assert "00000: left out: 1 .heic, 1 .json, 1 .txt\n" in done.err
    assert done.samples().captions == [["zero"], ["one"]]


def test_img2dataset_tars_take_every_format_and_name_the_rest(write, tmp_path):
    members = [
        ("0.tif", photo(0, format="TIFF")),
        ("0.text", b"zero"),
        ("1.heic", b"?"),
        ("1.txt", b"one"),
        ("LIST", b""),
    ]
    write_tar(tmp_path / "in" / "00000.tar", members)
    done = write("img2dataset", tmp_path / "in")
    assert done.status == 0 and "written: 1 images, 1 captions" in done.out
    assert "skipped 00000.tar 1: no image (only .heic, .txt)\n" in done.err
    assert "00000.tar: left out: 1 without an ending\n" in done.err


def test_shards_by_their_names_in_capitals_and_what_macos_writes_beside_them(prep, tmp_path):
    write_tar(tmp_path / "0.TAR", [("a.jpg", photo(0)), ("a.txt", b"a")])
    write_tar(tmp_path / "1.tar", [("b.jpg", photo(1)), ("b.txt", b"b")])
    (tmp_path / "._1.tar").write_bytes(b"Mac OS X")
    assert "2 images, 2 captions (whole) in 2 shards" in prep("index", tmp_path).out
    assert "2 images, 0 faults" in prep("verify", tmp_path).out
