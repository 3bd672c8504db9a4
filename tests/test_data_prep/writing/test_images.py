"""Bytes of images: untouched where possible, and what happens to the others."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from bimodal_cl.data.images.decode import MAX_PIXELS, BadImage, decode_image
from data_prep.writing.image_bytes import store_image
from tests.test_data_prep.raw_material import image_of, open_bytes, photo, read_folder, write_files, write_photos

ORIENTATION = 0x0112


def exif(orientation):
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags.tobytes()


@pytest.mark.parametrize(
    ("data", "extension"),
    [
        (photo(1), ".jpg"),
        (photo(1, quality=30, progressive=True, exif=exif(6)), ".jpg"),
        (photo(1, mode="CMYK"), ".jpg"),
        (photo(1, format="PNG", mode="RGBA"), ".png"),
        (photo(1, format="PNG", mode="P"), ".png"),
        (photo(1, format="WEBP", lossless=True), ".webp"),
        (photo(1) + b"bytes after the end", ".jpg"),
    ],
)
def test_untouched_byte_for_byte(data, extension):
    for max_side in (None, 24, 4000):
        stored = store_image(data, max_side)
        assert (stored.data, stored.extension, stored.reencoded) == (data, extension, "")


def test_content_decides_the_extension(write, tmp_path):
    raw = write_files(
        tmp_path / "raw", {"a.png": photo(1), "a.txt": "x", "b.JPG": photo(2, format="WEBP"), "b.txt": "y"}
    )
    assert write("folder", "--images", raw).status == 0
    samples = dict(read_folder(tmp_path / "to"))
    assert samples["a"]["jpg"] == photo(1) and samples["b"]["webp"] == photo(2, format="WEBP")


@pytest.mark.parametrize("format", ["BMP", "GIF", "TIFF"])
def test_formats_that_shards_do_not_hold_become_jpeg(format):
    data = photo(3, format=format)
    stored = store_image(data, quality=95)
    assert (stored.extension, stored.reencoded) == (".jpg", f"{format} as JPEG")
    picture = open_bytes(stored.data)
    assert picture.format == "JPEG" and picture.size == (24, 16)
    before = np.asarray(open_bytes(data).convert("RGB").convert("L"), dtype=float)
    assert np.abs(np.asarray(picture.convert("L"), dtype=float) - before).mean() < 6


def test_max_side_and_quality(prep, tmp_path):
    files = {
        "wide": photo(0, (80, 40)),
        "tall": photo(1, (30, 90)),
        "small": photo(2, (32, 32)),
        "line": photo(3, (200, 1)),
    }
    raw = write_files(tmp_path / "raw", {f"{name}.jpg": data for name, data in files.items()})
    write_files(raw, {f"{name}.txt": name for name in files})
    sizes = {}
    for quality in (95, 30):
        to = tmp_path / str(quality)
        done = prep("write", "folder", "--images", raw, "--max-side", 32, "--quality", quality, "--to", to)
        assert done.status == 0 and "3 images encoded again: resized" in done.out
        images = {key: image_of((key, members)) for key, members in read_folder(to)}
        assert images["small"] == files["small"]
        shapes = {key: open_bytes(data).size for key, data in images.items()}
        assert shapes == {"wide": (32, 16), "tall": (11, 32), "small": (32, 32), "line": (32, 1)}
        sizes[quality] = len(images["wide"])
    assert sizes[30] < sizes[95]


def test_resizing_turns_upright_and_keeps_what_is_seen():
    pixels = np.zeros((40, 80, 3), dtype=np.uint8)
    pixels[:, :40] = (255, 0, 0)  # left half red; turned by EXIF 6 (90 degrees clockwise) it is the upper half
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", exif=exif(6), quality=95)
    picture = open_bytes(store_image(buffer.getvalue(), 20).data)
    assert picture.size == (10, 20) and picture.getexif().get(ORIENTATION, 1) == 1
    small = np.asarray(picture, dtype=int)
    assert (small[:8, :, 0] > 200).all() and (small[12:, :, 0] < 50).all()


def test_resizing_lays_transparency_on_white_and_scales_16_bits():
    buffer = io.BytesIO()
    Image.new("RGBA", (40, 40), (255, 0, 0, 0)).save(buffer, "PNG")
    assert np.asarray(open_bytes(store_image(buffer.getvalue(), 20).data)).min() > 250
    buffer = io.BytesIO()
    Image.fromarray(np.full((40, 40), 128 * 256, dtype=np.uint16)).save(buffer, "PNG")
    assert np.abs(np.asarray(open_bytes(store_image(buffer.getvalue(), 20).data)).astype(int) - 128).max() <= 2


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "zero bytes"),
        (b"GIF89a", "."),
        (b"<html></html>", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "not an image"),
        (photo(1)[:-100], "truncated"),
        (photo(1, (300, 300), progressive=True)[:20_000], "truncated"),
        (photo(1, (300, 300), format="PNG")[:20_000], "."),
        (photo(1, (300, 300), format="WEBP")[:-400], "."),
    ],
)
def test_images_that_do_not_decode(data, reason):
    for max_side in (None, 100):
        with pytest.raises(BadImage, match=reason):
            store_image(data, max_side)


def test_what_is_written_is_what_the_stream_can_decode():
    """A header alone claims more pixels than the stream accepts; nothing of that size is decoded."""
    png = bytearray(photo(1, format="PNG"))
    side = int(MAX_PIXELS**0.5) + 1
    png[16:24] = struct.pack(">II", side, side)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BadImage, match=rf"{side} x {side} pixels, more than .*--max-side"):
            store_image(bytes(png))


def test_damaged_exif_does_not_cost_the_image():
    for damage in (b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\xff\xff\xff\xff\0\0\0\0"):
        data = photo(1, (64, 64), exif=damage)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert store_image(data).data == data
            assert decode_image(store_image(data, 16).data).size == (16, 16)


@pytest.mark.parametrize(
    ("flag", "value"), [("--max-side", 0), ("--quality", 0), ("--quality", 101), ("--shard-size", 0)]
)
def test_options_out_of_range(write, tmp_path, flag, value):
    raw = write_photos(tmp_path / "raw", [0])
    error = write("folder", "--images", raw, flag, value).error
    assert flag in error and f"got {value}" in error
    assert not (tmp_path / "to").exists()
