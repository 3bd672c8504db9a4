"""Images of which the header alone is read at first, and no more decoded than a crop needs."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from bimodal_cl.data.images.decode import BadImage, EncodedImage, align_box, decode_image, open_encoded
from bimodal_cl.data.images.jpeg import DIVISORS, decode_scaled, read_header
from bimodal_cl.data.images.transforms import TrainTransform, resize
from bimodal_cl.data.shards.faults import USED_KINDS
from bimodal_cl.preprocess import EvalTransform
from tests.test_data.cropping import crop_decoded

FLICKR8K = Path(__file__).parents[4] / "shared" / "data" / "flickr8k.tar"

# What EncodedImage.decode_crop says of the difference from a full decode: grey levels, mean of |difference| over many
# images, and over one.
TOLERANCE, TOLERANCE_OF_ONE = 3.0, 8.0


def encode(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format=format, **options)
    return out.getvalue()


def draw_picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Colours whose amplitude falls with the frequency, as a photo's does."""
    rng = np.random.default_rng(seed)
    down, across = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    amplitude = 1 / np.maximum(np.hypot(down, across), 1 / max(width, height)) ** 1.2
    waves = np.fft.ifft2(np.fft.fft2(rng.standard_normal((3, height, width))) * amplitude).real
    waves = waves[:1] + 0.3 * waves[1:2] * np.array([1, 0, -1])[:, None, None]
    return Image.fromarray(np.uint8(np.clip(127 + 50 * waves / waves.std(), 0, 255)).transpose(1, 2, 0))


def compare(image: Image.Image, encoded: EncodedImage, transform: TrainTransform, image_id: int = 0) -> float:
    """Mean difference between the pixels from a full decode and those of ``apply``."""
    full = crop_decoded(transform, image, 1, 2, image_id)
    applied = transform.apply(encoded, 1, 2, image_id)
    assert applied.dtype == torch.uint8 and applied.shape == full.shape
    return float((full.float() - applied.float()).abs().mean())


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("side", [32, 112, 224])
@pytest.mark.parametrize("progressive", [False, True])
def test_reduced_decoding_stays_within_the_tolerance(subsampling: str, side: int, progressive: bool) -> None:
    differences = []
    for seed, size in enumerate([(500, 375), (375, 500), (333, 251)]):
        data = encode(draw_picture(*size, seed), quality=90, subsampling=subsampling, progressive=progressive)
        encoded = open_encoded(data)
        assert encoded.size == size and encoded.jpeg is not None
        transform = TrainTransform(side, scale=(0.3, 1.0), flip=True)
        differences += [compare(decode_image(data), encoded, transform, image_id) for image_id in range(3)]
    assert np.mean(differences) < TOLERANCE and max(differences) < TOLERANCE_OF_ONE
    assert (max(differences) == 0) == (side == 224)  # which all of the pixels are needed for


def read_photos(path: Path, count: int) -> Iterator[bytes]:
    with tarfile.open(path) as tar:
        for info in tar:
            if info.name.endswith(".jpg"):
                file = tar.extractfile(info)
                assert file is not None
                yield file.read()
                count -= 1
                if count == 0:
                    return


@pytest.mark.skipif(not FLICKR8K.exists(), reason=f"no {FLICKR8K}")
def test_reduced_decoding_of_real_photos_stays_within_the_tolerance() -> None:
    differences = []
    for number, data in enumerate(read_photos(FLICKR8K, 100)):
        image, encoded = decode_image(data), open_encoded(data)
        differences += [compare(image, encoded, TrainTransform(side), number) for side in (12, 24, 48, 100)]
    assert np.mean(differences) < TOLERANCE and max(differences) < TOLERANCE_OF_ONE


@pytest.mark.parametrize("side", [20, 50, 90, 130, 170, 210])
def test_a_crop_stays_where_it_is_at_any_scale(side: int) -> None:
    """A picture whose colours are its coordinates shows a shift of a fraction of a pixel of the result."""
    y, x = np.mgrid[0:400, 0:500]
    picture = Image.fromarray(np.uint8(np.round(np.stack([x / 2, y / 2, 0 * x], axis=-1))))
    encoded = open_encoded(encode(picture, quality=95, subsampling="4:4:4"))
    (left, top, right, bottom), _ = align_box((101, 53, 437, 361), encoded.size, side)
    inner = resize(encoded.decode_crop((101, 53, 437, 361), side), side)[:, 2:-2, 2:-2].double()
    centres = torch.arange(2, side - 2) + 0.5
    across = (left + centres * (right - left) / side - 0.5) / 2
    down = (top + centres * (bottom - top) / side - 0.5) / 2
    assert (inner[0].mean(dim=0) - across).abs().max() < 0.8
    assert (inner[0].mean(dim=0) - across).mean().abs() < 0.3
    assert (inner[1].mean(dim=1) - down).mean().abs() < 0.3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_a_rotated_file_gives_the_upright_crop(orientation: int, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(draw_picture(203, 158), format, exif=exif)
    encoded, upright = open_encoded(data), decode_image(data)
    assert encoded.size == upright.size and encoded.orientation == orientation
    assert encoded.notes == (("exif_rotated",) if orientation != 1 else ())
    assert (encoded.jpeg is not None) == (format == "JPEG")
    for image_id in range(4):
        assert compare(upright, encoded, TrainTransform(48, scale=(0.2, 0.6), flip=True), image_id) < TOLERANCE


@pytest.mark.parametrize("format", ["PNG", "WEBP", "BMP", "GIF"])
def test_other_formats_give_the_pixels_of_a_full_decode(format: str) -> None:
    data = encode(draw_picture(90, 60), format)
    assert compare(decode_image(data), open_encoded(data), TrainTransform(32, flip=True), 5) == 0


def test_evaluation_decodes_fully() -> None:
    data = encode(draw_picture(500, 375))
    assert torch.equal(EvalTransform(64)(open_encoded(data).decode()), EvalTransform(64)(decode_image(data)))


def grey16() -> Image.Image:
    return Image.fromarray(np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16))


def rgb16_png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\x12\x34\x56\x78\x9a\xbc" * 8 for _ in range(8))
    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def frames(format: str) -> bytes:
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    return encode(pictures[0], format, save_all=True, append_images=pictures[1:])


PLAIN = Image.new("RGB", (8, 8), "red")
ODD = {
    "plain": (encode(PLAIN), ".jpg", ()),
    "upper case": (encode(PLAIN), "JPEG", ()),
    "grey": (encode(PLAIN.convert("L")), ".jpeg", ()),
    "unknown extension": (encode(PLAIN, "PNG"), "", ()),
    "png named jpg": (encode(PLAIN, "PNG"), ".jpg", ("wrong_extension",)),
    "jpg named webp": (encode(PLAIN), ".webp", ("wrong_extension",)),
    "cmyk": (encode(PLAIN.convert("CMYK")), ".jpg", ("cmyk",)),
    "palette": (encode(PLAIN.quantize(4), "PNG"), ".png", ("palette",)),
    "palette with a clear colour": (encode(PLAIN.quantize(4), "PNG", transparency=0), ".png", ("palette", "alpha")),
    "alpha": (encode(PLAIN.convert("RGBA"), "PNG"), ".png", ("alpha",)),
    "clear colour": (encode(PLAIN, "PNG", transparency=(1, 2, 3)), ".png", ("alpha",)),
    "alpha webp": (encode(Image.new("RGBA", (8, 8), (1, 2, 3, 4)), "WEBP"), ".webp", ("alpha",)),
    "grey of 16 bits": (encode(grey16(), "PNG"), ".png", ("sixteen_bit",)),
    "rgb of 16 bits": (rgb16_png(), ".png", ("sixteen_bit",)),
    "animated gif": (frames("GIF"), ".gif", ("palette", "animated")),
    "animated webp": (frames("WEBP"), ".webp", ("animated",)),
    "animated png": (frames("PNG"), ".png", ("animated",)),
    "ribbon": (encode(Image.new("RGB", (170, 8))), ".jpg", ("extreme_aspect",)),
    "tower": (encode(Image.new("RGB", (8, 170)), "PNG"), ".png", ("extreme_aspect",)),
    "not so long": (encode(Image.new("RGB", (160, 8))), ".jpg", ()),
}


@pytest.mark.parametrize("name", ODD)
def test_oddities_are_noted_from_the_header(name: str) -> None:
    data, extension, notes = ODD[name]
    encoded = open_encoded(data, extension=extension)
    assert encoded.notes == notes and set(notes) <= set(USED_KINDS)
    assert compare(encoded.decode(), encoded, TrainTransform(4)) < TOLERANCE


@pytest.mark.parametrize("extra", [b"", b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"])
def test_too_many_pixels_are_refused_from_the_header(extra: bytes) -> None:
    data = encode(Image.new("RGB", (64, 48)), exif=extra)
    assert open_encoded(data, max_pixels=64 * 48).size == (64, 48)
    with pytest.raises(BadImage, match="64 x 48 pixels, more than 3071") as error:
        open_encoded(data, max_pixels=64 * 48 - 1)
    assert error.value.kind == "too_many_pixels"


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("progressive", [False, True])
def test_an_incomplete_file_is_undecodable_at_every_scale(share: float, progressive: bool) -> None:
    data = encode(draw_picture(160, 120), progressive=progressive)
    for side in (8, 64, 120):
        with pytest.raises(BadImage) as error:
            TrainTransform(side).apply(open_encoded(data[: int(share * len(data))]))
        assert error.value.kind == "undecodable"


def test_a_file_that_the_fast_decoder_complains_of_is_decoded_slowly() -> None:
    """A few wrong bytes in the middle are an error to the one decoder and none to the other."""
    data = encode(draw_picture(64, 48))
    odd = data[:-300] + b"\xff\0" * 9 + data[-282:]
    header = read_header(odd)
    assert header is not None and decode_scaled(data, header, 4) is not None
    assert decode_scaled(odd, header, 4) is None
    assert compare(decode_image(odd), open_encoded(odd), TrainTransform(16)) == 0


def test_what_the_header_reader_leaves_to_pillow() -> None:
    plain = encode(draw_picture(64, 48))
    assert read_header(plain) == (64, 48, False)
    assert read_header(encode(draw_picture(64, 48), exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0")) == (64, 48, True)
    assert read_header(encode(draw_picture(64, 48).convert("CMYK"))) is None
    start = plain.index(b"\xff\xc0")
    for byte, value in ((start + 1, 0xC3), (start + 1, 0xC9), (start + 4, 12), (start, 0)):
        assert read_header(plain[:byte] + bytes([value]) + plain[byte + 1 :]) is None
    frame = plain[start : start + 19]
    assert read_header(plain[:start] + frame + plain[start:]) is None  # two frames
    for length in (0, 1, 2, 20, start + 9):
        assert read_header(plain[:length]) is None


def test_a_box_is_moved_to_whole_pixels_of_the_smallest_scale() -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(2000):
        width, height, side = (int(n) for n in rng.integers([2, 2, 1], [900, 900, 300]))
        left, top = int(rng.integers(width - 1)), int(rng.integers(height - 1))
        box = left, top, int(rng.integers(left + 1, width + 1)), int(rng.integers(top + 1, height + 1))
        aligned, divisor = align_box(box, (width, height), side)
        seen.add(divisor)
        short = min(box[2] - left, box[3] - top)
        assert divisor == 1 or short >= divisor * side
        assert divisor == 8 or short < 2 * divisor * side
        assert all(edge % divisor == 0 for edge in aligned)
        assert 0 <= aligned[0] < aligned[2] <= width and 0 <= aligned[1] < aligned[3] <= height
        moved = [abs(edge - other) for edge, other in zip(box, aligned, strict=True)]
        at_end = [False, False, width - box[2] < divisor, height - box[3] < divisor]
        assert all(by < divisor if end else by <= divisor / 2 for by, end in zip(moved, at_end, strict=True))
    assert seen == {1, 2, 4, 8}


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (8, 5), (3, 900), (65, 17)])
@pytest.mark.parametrize("divisor", DIVISORS)
def test_scaled_sizes_are_rounded_up(size: tuple[int, int], divisor: int) -> None:
    data = encode(draw_picture(*size))
    header = read_header(data)
    assert header is not None
    pixels = decode_scaled(data, header, divisor)
    if max(size) < 8:
        assert pixels is None
    else:
        assert pixels is not None
        assert pixels.shape == (-(-size[1] // divisor), -(-size[0] // divisor), 3)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_resizing_gives_the_pixels_of_pillow(interpolation) -> None:
    picture = draw_picture(300, 200)
    for side in (20, 64, 199, 256):
        theirs = np.array(picture.resize((side, side), Image.Resampling[interpolation.upper()]), dtype=int)
        ours = resize(np.array(picture), side, interpolation).numpy().transpose(1, 2, 0)
        assert ours.flags.c_contiguous  # channels of a pixel together
        assert np.abs(ours - theirs).mean() < 0.1 and np.quantile(np.abs(ours - theirs), 0.999) <= 2


COUNT_THREADS = """
from pathlib import Path
import numpy as np, torch
from bimodal_cl.data.images.transforms import resize
def count():
    return len(list(Path("/proc/self/task").iterdir()))
torch.set_num_threads(4)
before = count()
resize(np.zeros((400, 500, 3), np.uint8)[3:390, 2:490], 224)
after = count()
torch.ones(10**6).exp()
print(before, after, count())
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_resizing_starts_no_threads() -> None:
    done = subprocess.run([sys.executable, "-c", COUNT_THREADS], capture_output=True, text=True, check=True)
    before, after, with_threads = (int(number) for number in done.stdout.split())
    assert before == after < with_threads


def test_no_pixel_is_decoded_to_open_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: loads.append(self.format))
    for format in ("PNG", "WEBP", "JPEG", "BMP", "GIF"):
        open_encoded(encode(draw_picture(20, 10), format))
    assert loads == []


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_png_with_exif_is_turned(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10)).save(buffer, "PNG", exif=exif)
    encoded = open_encoded(buffer.getvalue())
    assert encoded.size == ((10, 20) if orientation == 6 else (20, 10))
    assert encoded.notes == (() if orientation == 1 else ("exif_rotated",))
