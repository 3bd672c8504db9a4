"""The list of formats against the installed Pillow: each is known there, opens, and comes back as it was written."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from bimodal_cl.data.images.decode import BadImage, decode_image, open_encoded
from bimodal_cl.files.image_formats import EXTENSIONS_OF_FORMAT, IMAGE_EXTENSIONS, IMAGE_FORMATS, name_other_content

Image.init()  # which fills Pillow's own lists

# For which Pillow needs other programs, has no decoder of its own, or which are no pictures (see the module).
NOT_READ = {"EPS", "WMF", "MPEG", "IPTC", "GRIB", "BUFR", "HDF5", "FITS", "PCD", "PALM", "PDF"}
LOSSY = {"JPEG", "WEBP", "AVIF", "MPO", "JPEG2000", "ICNS"}
ONE_BIT = {"MSP", "XBM"}
FEW_COLOURS = {"GIF", "BLP"}


def test_the_list_is_pillows() -> None:
    theirs: dict[str, set[str]] = {}
    for extension, name in Image.registered_extensions().items():
        theirs.setdefault(name, set()).add(extension)
    assert {name: set(extensions) for name, extensions in EXTENSIONS_OF_FORMAT.items()} == {
        name: extensions for name, extensions in theirs.items() if name not in NOT_READ
    }
    assert set(IMAGE_FORMATS) <= set(Image.OPEN) and set(EXTENSIONS_OF_FORMAT) - set(IMAGE_FORMATS) == {"MPO"}


def test_numbers_in_row_tables() -> None:
    """Tables that are there keep their meaning: these places never change."""
    assert IMAGE_EXTENSIONS[:12] == (
        *(".jpg", ".jpeg", ".png", ".webp"),
        *(".jpe", ".jfif", ".apng", ".gif", ".bmp", ".tif", ".tiff", ".avif"),
    )
    assert len(set(IMAGE_EXTENSIONS)) == len(IMAGE_EXTENSIONS) < 256
    assert set(IMAGE_EXTENSIONS) == {each for names in EXTENSIONS_OF_FORMAT.values() for each in names}


def picture(format: str) -> Image.Image:
    across, down = np.meshgrid(np.linspace(0, 255, 32), np.linspace(0, 255, 32))
    image = Image.fromarray(np.stack([across, down, 255 - across], axis=-1).astype(np.uint8))
    if format in FEW_COLOURS:
        return image.quantize(64)
    return image.convert("1") if format in ONE_BIT else image


@pytest.mark.parametrize("format", sorted(set(EXTENSIONS_OF_FORMAT) & set(Image.SAVE)))
def test_round_trip(format: str) -> None:
    image = picture(format)
    out = io.BytesIO()
    image.save(out, format)
    for extension in EXTENSIONS_OF_FORMAT[format]:
        encoded = open_encoded(out.getvalue(), extension=extension)
        assert "wrong_extension" not in encoded.notes and (format == "ICNS" or encoded.size == image.size)
    assert "wrong_extension" in open_encoded(out.getvalue(), extension=".gbr").notes
    decoded = encoded.decode()
    if format == "ICNS":  # an icon is stored in several sizes, of which the largest is shown
        decoded = decoded.resize(image.size, Image.Resampling.BOX)
    difference = np.abs(np.asarray(decoded, int) - np.asarray(image.convert("RGB"), int))
    assert difference.mean() < 6 if format in LOSSY else difference.max() == 0


def test_xpm_which_pillow_only_reads() -> None:
    text = b'/* XPM */\nstatic char *x[] = {\n"2 1 2 1",\n"a c #ff0000",\n"b c #0000ff",\n"ab"\n};\n'
    assert np.asarray(decode_image(text)).tolist() == [[[255, 0, 0], [0, 0, 255]]]


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "a video (MP4)"),
        (b"\0\0\0\x20ftypavif\0\0\0\0", "a damaged AVIF"),
        (b"\xff\x0a\x00\x01", "JPEG XL"),
        (b"\n <svg xmlns='http://www.w3.org/2000/svg'>", "SVG"),
        (b"<!DOCTYPE HTML><p>404", "HTML"),
        (b"%PDF-1.7\n", "PDF"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer, not the file itself"),
    ],
)
def test_what_is_something_else_is_called_by_its_name(data: bytes, name: str) -> None:
    assert name_other_content(data) == name
    with pytest.raises(BadImage) as error:
        decode_image(data)
    assert (
        error.value.kind == "undecodable"
        and str(error.value) == f"not an image that can be read (its bytes are {name})"
    )
