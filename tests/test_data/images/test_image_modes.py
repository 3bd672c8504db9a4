"""Every mode of Pillow as a viewer shows it: the values are computed here, from the definition of each mode."""

from __future__ import annotations

import colorsys
import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from bimodal_cl.data.images.decode import BadImage, decode_image, open_encoded
from bimodal_cl.files.image_modes import UndefinedRange, to_rgb
from data_prep.writing.image_bytes import store_image

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
ACROSS = RAMP.T.copy()
COLOURS = np.stack([RAMP, ACROSS, 255 - RAMP], axis=-1)
ALPHA = ACROSS
RAMP16 = (RAMP.astype(np.uint16) << 8) + 77
PALETTE = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)


def stored(image: Image.Image, format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(values)[..., None], 3, axis=-1)


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return colours * share + 255 * (1 - share)


def of_bands(mode: str, *bands: np.ndarray) -> Image.Image:
    """An image whose bytes are these bands; Pillow makes no arrays of some modes."""
    return Image.frombytes(mode, (16, 16), np.stack(bands, axis=-1).astype(np.uint8).tobytes())


def with_palette(mode: str = "P") -> Image.Image:
    image = Image.fromarray(RAMP).convert("P")
    image.putpalette(PALETTE.tobytes())
    if mode == "PA":
        image = image.convert("PA")
        image.putalpha(Image.fromarray(ALPHA))
    return image


def from_ycc() -> np.ndarray:
    """ITU-R BT.601 with the full range, as JFIF has it."""
    y, cb, cr = RAMP.astype(float), ACROSS - 128.0, (255 - RAMP) - 128.0
    return np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=-1).clip(0, 255)


def from_cmyk(*inks: np.ndarray) -> np.ndarray:
    cyan, magenta, yellow, key = (ink / 255 for ink in inks)
    return 255 * np.stack([(1 - ink) * (1 - key) for ink in (cyan, magenta, yellow)], axis=-1)


def from_lab(lightness: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """CIE 1976 of the white D50 to XYZ, to linear sRGB (with Bradford's adaptation to D65 in the matrix), to sRGB."""
    fy = (lightness / 2.55 + 16) / 116
    f = np.stack([fy + a / 500, fy, fy - b / 200], axis=-1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.9642, 1.0, 0.8249]
    matrix = [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.033454],
        [0.0719453, -0.2289914, 1.4052427],
    ]
    linear = (xyz @ np.asarray(matrix).T).clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


LAB_L = RAMP // 4 + 128
LAB_A, LAB_B = (ACROSS.astype(int) // 8 - 16), (RAMP.astype(int) // 8 - 16)  # colours that sRGB has
WHITE_IS_ZERO = {262: 0}  # Pillow inverts 8 bits as it writes them, and 16 bits not

FILES: dict[str, tuple[Callable[[], bytes], np.ndarray, float]] = {
    "1": (lambda: stored(Image.fromarray(RAMP > 99), "PNG"), grey(np.where(RAMP > 99, 255, 0)), 0),
    "1 TIFF": (lambda: stored(Image.fromarray(RAMP > 99), "TIFF"), grey(np.where(RAMP > 99, 255, 0)), 0),
    "1 PBM": (lambda: stored(Image.fromarray(RAMP > 99), "PPM"), grey(np.where(RAMP > 99, 255, 0)), 0),
    "L": (lambda: stored(Image.fromarray(RAMP), "PNG"), grey(RAMP), 0),
    "L white is zero": (lambda: stored(Image.fromarray(RAMP), "TIFF", tiffinfo=WHITE_IS_ZERO), grey(RAMP), 0),
    "L PGM": (lambda: stored(Image.fromarray(RAMP), "PPM"), grey(RAMP), 0),
    "LA": (lambda: stored(of_bands("LA", RAMP, ALPHA), "PNG"), on_white(grey(RAMP), ALPHA), 1),
    "P": (lambda: stored(with_palette(), "PNG"), PALETTE[RAMP], 0),
    "P GIF": (lambda: stored(with_palette(), "GIF"), PALETTE[RAMP], 0),
    "P TIFF": (lambda: stored(with_palette(), "TIFF"), PALETTE[RAMP], 0),
    "P transparent": (
        lambda: stored(with_palette(), "PNG", transparency=7),
        np.where(grey(RAMP) == 7, 255, PALETTE[RAMP]),
        0,
    ),
    "P alpha": (
        lambda: stored(with_palette(), "PNG", transparency=bytes(range(256))),
        on_white(PALETTE[RAMP], RAMP),
        1,
    ),
    "PA TIFF": (lambda: stored(with_palette("PA"), "TIFF"), on_white(PALETTE[RAMP], ALPHA), 1),
    "RGB PPM": (lambda: stored(Image.fromarray(COLOURS), "PPM"), COLOURS, 0),
    "RGB transparent": (
        lambda: stored(Image.fromarray(COLOURS), "PNG", transparency=(3, 48, 252)),
        np.where((COLOURS == (3, 48, 252)).all(axis=-1, keepdims=True), 255, COLOURS),
        0,
    ),
    "RGBA": (lambda: stored(of_bands("RGBA", *np.moveaxis(COLOURS, -1, 0), ALPHA), "PNG"), on_white(COLOURS, ALPHA), 1),
    "RGBX TIFF": (lambda: stored(of_bands("RGBX", *np.moveaxis(COLOURS, -1, 0), ALPHA), "TIFF"), COLOURS, 0),
    "CMYK TIFF": (
        lambda: stored(of_bands("CMYK", RAMP, ACROSS, 255 - RAMP, ACROSS // 2), "TIFF"),
        from_cmyk(RAMP, ACROSS, 255 - RAMP, ACROSS // 2),
        1.5,
    ),
    "YCbCr TIFF": (lambda: stored(of_bands("YCbCr", RAMP, ACROSS, 255 - RAMP), "TIFF"), from_ycc(), 2),
    "LAB TIFF": (
        lambda: stored(of_bands("LAB", LAB_L, LAB_A % 256, LAB_B % 256), "TIFF"),
        from_lab(LAB_L, LAB_A, LAB_B),
        2,
    ),
    "I;16 PNG": (lambda: stored(Image.fromarray(RAMP16), "PNG"), grey(RAMP), 0),
    "I;16 TIFF": (lambda: stored(Image.fromarray(RAMP16), "TIFF"), grey(RAMP), 0),
    "I;16B TIFF": (
        lambda: stored(Image.frombytes("I;16B", (16, 16), RAMP16.astype(">u2").tobytes()), "TIFF"),
        grey(RAMP),
        0,
    ),
    "I;16 transparent": (
        lambda: stored(Image.fromarray(RAMP16), "PNG", transparency=int(RAMP16[3, 3])),
        np.where(grey(RAMP16) == RAMP16[3, 3], 255, grey(RAMP)),
        0,
    ),
    "I;16 white is zero": (
        lambda: stored(Image.fromarray(RAMP16), "TIFF", tiffinfo=WHITE_IS_ZERO),
        grey(255 - RAMP),
        0,
    ),
    "I;16 of 8 bits": (lambda: stored(Image.fromarray(RAMP.astype(np.uint16)), "PNG"), grey(RAMP), 0),
    "I;16 black": (lambda: stored(Image.fromarray(np.zeros((16, 16), np.uint16)), "PNG"), grey(0 * RAMP), 0),
    "I PGM": (lambda: b"P5 16 16 65535\n" + RAMP16.astype(">u2").tobytes(), grey(RAMP), 0),
    "I TIFF of 16 bits": (lambda: stored(Image.fromarray(RAMP16.astype(np.int32)), "TIFF"), grey(RAMP), 0),
    "I TIFF of 8 bits": (lambda: stored(Image.fromarray(RAMP.astype(np.int32)), "TIFF"), grey(RAMP), 0),
    "F TIFF to 1": (lambda: stored(Image.fromarray(RAMP / np.float32(255)), "TIFF"), grey(RAMP), 0),
    "F TIFF to 255": (lambda: stored(Image.fromarray(RAMP.astype(np.float32)), "TIFF"), grey(RAMP), 0),
    "F PFM to 1": (lambda: stored(Image.fromarray(RAMP / np.float32(255)), "PPM"), grey(RAMP), 0),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_every_mode(name: str) -> None:
    make, expected, tolerance = FILES[name]
    data = make()
    decoded = decode_image(data)
    assert decoded.mode == "RGB" and decoded.size == (16, 16)
    assert np.abs(np.asarray(decoded) - np.asarray(expected, dtype=float)).max() <= tolerance
    is_deep = name.startswith(("I", "F"))
    assert ("sixteen_bit" in open_encoded(data).notes) == is_deep  # never in silence


MEMORY: dict[str, tuple[Callable[[], Image.Image], np.ndarray, float]] = {
    "La": (lambda: of_bands("La", np.minimum(RAMP, ALPHA), ALPHA), grey(np.minimum(RAMP, ALPHA) + 255.0 - ALPHA), 2),
    "RGBa": (
        lambda: of_bands("RGBa", *(np.minimum(band, ALPHA) for band in np.moveaxis(COLOURS, -1, 0)), ALPHA),
        np.minimum(COLOURS, ALPHA[..., None]) + 255.0 - ALPHA[..., None],
        2,
    ),
    "HSV": (
        lambda: of_bands("HSV", RAMP, ACROSS, 255 - RAMP),
        np.array(
            [
                [255 * channel for channel in colorsys.hsv_to_rgb(*(np.asarray(hsv) / 255))]
                for hsv in np.stack([RAMP, ACROSS, 255 - RAMP], axis=-1).reshape(-1, 3)
            ]
        ).reshape(16, 16, 3),
        2,
    ),
    "I;16L": (lambda: Image.frombytes("I;16L", (16, 16), RAMP16.astype("<u2").tobytes()), grey(RAMP), 0),
    "I;16N": (lambda: Image.frombytes("I;16N", (16, 16), RAMP16.tobytes()), grey(RAMP), 0),
}


def test_colours_of_sixteen_bits() -> None:
    """A TIFF written by hand, for Pillow writes none; and a PPM."""
    deep = (COLOURS.astype(np.uint16) << 8) + 77
    tags = [(256, 3, 1, 16), (257, 3, 1, 16), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 14)]
    tags += [(277, 3, 1, 3), (278, 3, 1, 16), (279, 4, 1, deep.nbytes)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    header = b"II*\0" + struct.pack("<I", 14 + deep.nbytes) + struct.pack("<HHH", 16, 16, 16)
    tiff = header + deep.astype("<u2").tobytes() + struct.pack("<H", len(tags)) + entries + bytes(4)
    assert np.array_equal(np.asarray(decode_image(tiff)), COLOURS)
    assert open_encoded(tiff).notes == ("sixteen_bit",)
    ppm = b"P6 16 16 65535\n" + deep.astype(">u2").tobytes()
    assert np.abs(np.asarray(decode_image(ppm), dtype=int) - COLOURS).max() <= 1


@pytest.mark.parametrize("mode", MEMORY)
def test_modes_that_no_file_has(mode: str) -> None:
    make, expected, tolerance = MEMORY[mode]
    shown = to_rgb(make())
    assert shown.mode == "RGB" and np.abs(np.asarray(shown) - expected).max() <= tolerance


def test_cmyk_of_adobe_is_inverted() -> None:
    """Raw values from another decoder, which heeds no marker: Adobe's files store 255 - ink."""
    inks = [RAMP.repeat(4, 0).repeat(4, 1), np.full((64, 64), 40), np.full((64, 64), 200), np.full((64, 64), 30)]
    image = Image.frombytes("CMYK", (64, 64), np.stack(inks, axis=-1).astype(np.uint8).tobytes())
    data = stored(image, "JPEG", quality=95)
    assert b"Adobe" in data
    raw = simplejpeg.decode_jpeg(data, "CMYK").astype(float)
    expected = raw[..., :3] * raw[..., 3:] / 255
    assert np.abs(np.asarray(decode_image(data)) - expected).max() <= 1.5
    assert np.abs(expected - from_cmyk(*inks)).mean() < 6


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0, -1]], np.int32), "mode I with values from -1 to 0"),
        (np.array([[0, 65536]], np.int32), "mode I with values from 0 to 65536"),
        (np.array([[-0.5, 1]], np.float32), r"mode F with values from -0\.5 to 1"),
        (np.array([[0, 300]], np.float32), "mode F with values from 0 to 300"),
        (np.array([[0, np.nan]], np.float32), "mode F with values from nan to nan"),
        (np.array([[0, np.inf]], np.float32), "mode F with values from 0 to inf"),
    ],
)
def test_what_has_no_defined_range_is_refused_by_name(values: np.ndarray, message: str) -> None:
    image = Image.fromarray(values)
    with pytest.raises(UndefinedRange, match=f"{message}: it is unknown which of them is white"):
        to_rgb(image)
    with pytest.raises(BadImage, match=message) as error:
        decode_image(stored(image, "TIFF"))
    assert error.value.kind == "undefined_range"


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_ten_or_twelve_bits_in_sixteen_are_not_taken_for_black(format: str) -> None:
    """A sensor's 12 bits, or millimetres of depth: the high byte of each is 15 at most."""
    data = stored(Image.fromarray(RAMP.astype(np.uint16) * 16), format)
    with pytest.raises(BadImage, match=r"mode I;16 with values from 0 to 4080: almost black as 16 bits") as error:
        decode_image(data)
    assert error.value.kind == "undefined_range"
    with pytest.raises(BadImage, match="from 0 to 4080"):
        store_image(data)
    bright = np.asarray(decode_image(stored(Image.fromarray(RAMP.astype(np.uint16) * 17), format)))
    assert np.array_equal(bright, grey(RAMP * 17.0 // 256))


@pytest.mark.parametrize("format", ["GIF", "TIFF", "PNG", "WEBP", "AVIF"])
def test_the_first_frame(format: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ((250, 20, 20), (20, 20, 250))]
    data = stored(frames[0], format, save_all=True, append_images=frames[1:])
    red, _, blue = np.asarray(decode_image(data)).mean(axis=(0, 1))
    assert red > 230 and blue < 40
    assert "animated" in open_encoded(data).notes


@pytest.mark.parametrize("format", ["TIFF", "JPEG", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_in_every_format_that_has_it(format: str, orientation: int) -> None:
    """A white corner stands where the tag says: row and column 0 are (top, left), (top, right), ... of TIFF 6."""
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = stored(Image.fromarray(pixels), format, exif=exif)
    shown = np.asarray(decode_image(data))
    tall = orientation >= 5
    assert shown.shape == ((32, 16, 3) if tall else (16, 32, 3))
    assert open_encoded(data).size == (shown.shape[1], shown.shape[0])
    top, left = orientation in (1, 2, 5, 6), orientation in (1, 4, 5, 8)
    corner = shown[slice(0, 4) if top else slice(-4, None), slice(0, 4) if left else slice(-4, None)]
    assert corner.min() > 200 and shown.astype(float).mean() < 80
    assert ("exif_rotated" in open_encoded(data).notes) == (orientation != 1)
