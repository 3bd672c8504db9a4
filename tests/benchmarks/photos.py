"""Make JPEGs of 500 x 375 pixels for benchmarks: mosaics of real photos, or synthetic images."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from bimodal_cl.errors import UserError

WIDTH, HEIGHT = 500, 375
QUALITY = 94  # gives about 100 kB, as web photos of this size have
_TILE = 125  # 4 x 3 tiles make a picture
_COLUMNS, _ROWS = WIDTH // _TILE, HEIGHT // _TILE
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def make_photos(source: Path | None, count: int) -> list[bytes]:
    """Make JPEGs of 500 x 375 pixels, quality 94, 4:2:0.

    Args:
        source: a folder or tar of photos: each picture is a mosaic of twelve of them, cut to squares of 125 pixels
            each, so that small photos keep the detail that they have. ``None``: colours whose amplitude falls with
            the frequency as in photos.
        count: how many.

    Raises:
        UserError: the source holds too few images.
    """
    if source is None:
        return [_encode(_draw_picture(np.random.default_rng(number))) for number in range(count)]
    tiles = _read_tiles(source)
    return [_encode(_join_tiles(list(islice(tiles, _COLUMNS * _ROWS)), source, count)) for _ in range(count)]


def describe_photos(photos: list[bytes], source: Path | None) -> str:
    """Describe the photos in one line."""
    kind = f"mosaics of the photos of {source}" if source else "synthetic pictures"
    size = np.median([len(photo) for photo in photos]) / 1000
    return f"{len(photos)} JPEGs of {WIDTH} x {HEIGHT}, quality {QUALITY}, 4:2:0, median {size:.0f} kB: {kind}"


def _join_tiles(tiles: list[Image.Image], source: Path, count: int) -> Image.Image:
    if len(tiles) < _COLUMNS * _ROWS:
        raise UserError(f"{source}: holds fewer than the {count * _COLUMNS * _ROWS} images that {count} mosaics take")
    photo = Image.new("RGB", (WIDTH, HEIGHT))
    for place, tile in enumerate(tiles):
        photo.paste(tile, (place % _COLUMNS * _TILE, place // _COLUMNS * _TILE))
    return photo


def _read_tiles(source: Path) -> Iterator[Image.Image]:
    for file in _read_files(source):
        yield ImageOps.fit(Image.open(io.BytesIO(file)).convert("RGB"), (_TILE, _TILE), Image.Resampling.LANCZOS)


def _read_files(source: Path) -> Iterator[bytes]:
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.suffix.lower() in _SUFFIXES:
                yield path.read_bytes()
        return
    try:
        with tarfile.open(source) as tar:
            for member in tar:
                if member.isfile() and member.name.lower().endswith(_SUFFIXES):
                    file = tar.extractfile(member)
                    assert file is not None
                    yield file.read()
    except (OSError, tarfile.TarError) as error:
        raise UserError(f"{source}: neither a folder nor a tar of photos: {error}") from None


def _draw_picture(rng: np.random.Generator) -> Image.Image:
    down, across = np.fft.fftfreq(HEIGHT)[:, None], np.fft.fftfreq(WIDTH)[None]
    amplitude = 1 / np.maximum(np.hypot(down, across), 1 / WIDTH)
    waves = np.fft.ifft2(np.fft.fft2(rng.standard_normal((3, HEIGHT, WIDTH))) * amplitude).real
    waves /= waves.std(axis=(1, 2), keepdims=True)
    brightness, blue, red = waves
    pixels = 120 + 45 * np.stack([brightness + 0.3 * red, brightness, brightness + 0.3 * blue], axis=-1)
    return Image.fromarray(np.uint8(np.clip(pixels, 0, 255)))


def _encode(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=QUALITY, subsampling="4:2:0")
    return out.getvalue()
