"""Decoding of odd images, and the two transforms against torchvision's."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from bimodal_cl.data.images.decode import BadImage, decode_image, open_encoded
from bimodal_cl.data.images.transforms import TrainTransform
from bimodal_cl.data.order.draws import Purpose, draw_uniform
from tests.test_data.cropping import crop_decoded


def encode(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format=format, **options)
    return out.getvalue()


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours, so that resampling differences show and noise does not."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    waves = [np.sin(9 * x + 5 * y + seed + c) * np.cos(7 * y - 3 * x * c) for c in range(3)]
    return Image.fromarray(np.uint8(127 + 120 * np.stack(waves, axis=-1)))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "WEBP"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.putpixel((1, 1), (0, 0, 0, 255))
    if mode == "P":
        data = encode(image.quantize(8))
    elif mode == "WEBP":
        data = encode(image, "WEBP", lossless=True)
    else:
        data = encode(image.convert(mode))
    decoded = decode_image(data)
    assert decoded.mode == "RGB"
    assert (decoded.getpixel((0, 0)), decoded.getpixel((1, 1))) == ((255, 255, 255), (0, 0, 0))


def test_half_transparent_is_half_white() -> None:
    assert decode_image(encode(Image.new("RGBA", (2, 2), (200, 0, 0, 128)))).getpixel((0, 0)) == (227, 127, 127)


def test_transparent_colour_of_an_rgb_png() -> None:
    image = Image.new("RGB", (2, 1), (10, 20, 30))
    image.putpixel((1, 0), (1, 2, 3))
    decoded = decode_image(encode(image, transparency=(1, 2, 3)))
    assert (decoded.getpixel((0, 0)), decoded.getpixel((1, 0))) == ((10, 20, 30), (255, 255, 255))


@pytest.mark.parametrize("mode", ["L", "1", "RGB"])
def test_other_modes_become_rgb(mode: str) -> None:
    decoded = decode_image(encode(Image.new("RGB", (3, 2), "white").convert(mode)))
    assert (decoded.mode, decoded.getpixel((2, 1))) == ("RGB", (255, 255, 255))


def test_sixteen_bits_become_eight_and_are_not_clipped() -> None:
    grey = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    decoded = np.asarray(decode_image(encode(Image.fromarray(grey))))
    assert decoded.shape == (8, 8, 3)
    np.testing.assert_array_equal(decoded[..., 0], grey >> 8)


def test_cmyk() -> None:
    decoded = decode_image(encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"))
    red, green, blue = decoded.getpixel((8, 8))  # type: ignore[misc]
    assert red > 240 and green < 15 and blue < 15


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = photo(40, 24)
    turned = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_image(encode(turned, "PNG", exif=exif))
    assert decoded.size == (40, 24)
    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(upright))


def test_damaged_exif_does_not_lose_the_image() -> None:
    data = encode(photo(16, 16), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert decode_image(data).size == (16, 16)


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for format in ("GIF", "WEBP"):
        data = encode(frames[0], format, save_all=True, append_images=frames[1:])
        assert decode_image(data).getpixel((0, 0))[0] > 200  # type: ignore[index]


def bomb(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(10_000, 10_000), (60_000, 60_000)])
def test_a_decompression_bomb_is_refused_from_its_header(size: tuple[int, int]) -> None:
    with pytest.raises(BadImage, match="pixels") as error:
        decode_image(bomb(*size))
    assert error.value.kind == "too_many_pixels"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<html>404</html>", r"^not an image that can be read \(its bytes are HTML\)$"),
        (b"nothing", r"^not an image that can be read \(its bytes are not JPEG, PNG, WEBP, GIF, BMP, TIFF"),
        (encode(photo(64, 64), "JPEG")[:400], "runcated"),
        (encode(photo(64, 64), "PNG")[:400], "truncated"),
        (encode(photo(64, 64), "WEBP")[:400], "."),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", r"its bytes are PostScript"),
    ],
)
def test_what_is_no_image_says_so(data: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=reason) as error:
        decode_image(data)
    assert error.value.kind == "undecodable"


def test_no_bytes_are_a_kind_of_their_own() -> None:
    for read in (decode_image, open_encoded):
        with pytest.raises(BadImage, match="zero bytes") as error:
            read(b"")
        assert error.value.kind == "zero_bytes"


def test_a_crop_is_a_function_of_three_integers() -> None:
    image, transform = photo(90, 70), TrainTransform(32, scale=(0.3, 0.9))
    encoded = open_encoded(encode(image, "PNG"))
    crop = transform.apply(encoded, 1, 2, 3)
    assert torch.equal(crop, transform.apply(encoded, 1, 2, 3))
    assert torch.equal(crop, crop_decoded(transform, image, 1, 2, 3))
    for other in ((0, 2, 3), (1, 0, 3), (1, 2, 0)):
        assert not torch.equal(crop, transform.apply(encoded, *other))


@pytest.mark.parametrize("size", [(500, 375), (100, 640), (1, 1), (3, 900)])
def test_crops_stay_inside_and_keep_their_ranges(size: tuple[int, int]) -> None:
    transform = TrainTransform(8, scale=(0.2, 0.8), ratio=(0.75, 1.5))
    width, height = size
    boxes = np.array(
        [transform.crop_box(*size, draw_uniform(Purpose.AUGMENTATION, n, np.arange(23))) for n in range(400)]
    )
    left, top, right, bottom = boxes.T
    assert (left >= 0).all() and (top >= 0).all() and (right <= width).all() and (bottom <= height).all()
    assert (right > left).all() and (bottom > top).all()
    if size == (500, 375):
        area = (right - left) * (bottom - top) / (width * height)
        ratio = (right - left) / (bottom - top)
        assert area.min() > 0.19 and area.max() < 0.81
        assert ratio.min() > 0.74 and ratio.max() < 1.52
        # Means of torchvision's own draws from the same distribution.
        torch.manual_seed(0)
        pixels = torch.zeros(1, height, width)
        theirs = [v2.RandomResizedCrop(8, (0.2, 0.8), (0.75, 1.5)).make_params([pixels]) for _ in range(400)]
        their_area = np.array([crop["height"] * crop["width"] for crop in theirs]) / (width * height)
        assert abs(area.mean() - their_area.mean()) < 0.04
        their_ratio = np.array([crop["width"] / crop["height"] for crop in theirs])
        assert abs(np.log(ratio).mean() - np.log(their_ratio).mean()) < 0.05
        their_centre = np.array([crop["left"] + crop["width"] / 2 for crop in theirs])
        assert abs(((left + right) / 2).mean() - their_centre.mean()) < 15


def test_half_of_the_images_are_flipped_if_asked() -> None:
    image = Image.new("RGB", (16, 16))
    image.paste("white", (0, 0, 8, 16))
    whole = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
    encoded = open_encoded(encode(image, "PNG"))
    flipped = [bool(TrainTransform(16, flip=True, **whole).apply(encoded, 0, 0, n)[0, 0, 0] == 0) for n in range(200)]
    assert 70 < sum(flipped) < 130
    assert not any(bool(TrainTransform(16, **whole).apply(encoded, 0, 0, n)[0, 0, 0] == 0) for n in range(50))
