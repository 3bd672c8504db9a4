"""The fault zoo: a folder of shards with every kind of fault planted in known numbers; written with tarfile alone."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

Member = tuple[str, bytes]
CUT = "00100.tar"
GARBAGE_INSIDE = "00101.tar"
GARBAGE_ONLY = "00102.tar"
EMPTY = "00103.tar"
SAMPLES_BEFORE_DAMAGE = 6


@dataclass
class Group:
    """Members that stand together in a shard: one sample, or several where the fault lies between them.

    Args:
        members: names and bytes, in order.
        images: rows of it, as an index counts them.
        texts: captions of those rows, of one line each.
        planted: kind and key of each fault.
    """

    members: list[Member]
    images: int = 1
    texts: int = 1
    planted: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class FaultZoo:
    """What :func:`write_fault_zoo` wrote.

    Args:
        folder: the shards; no manifest.
        num_images, num_texts: rows and captions that ``bimodal-prep index --damaged keep`` must count.
        planted: how often each kind of ``bimodal_cl/data/shards/faults.py`` stands in the shards ("unreadable" is no
            property of a file).
        places: shard and key ("" where it is the shard as a whole) of each planted fault, by kind.
        damaged: shards that ``bimodal-prep index`` refuses unless it is told to keep what stands before the damage.
    """

    folder: Path
    num_images: int
    num_texts: int
    planted: dict[str, int]
    places: dict[str, list[tuple[str, str]]]
    damaged: tuple[str, ...] = (CUT, GARBAGE_INSIDE, GARBAGE_ONLY, EMPTY)


def write_fault_zoo(folder: Path, num_shards: int = 4, multiple_of: int = 16, seed: int = 0) -> FaultZoo:
    """Write tars with every fault, one a sample, among about twice as many good samples.

    A stray text whose image stands elsewhere in the shard is part of that image's "not_adjacent" and not a "no_image".

    Args:
        folder: made if missing.
        num_shards: shards whose samples are faulty; four damaged ones come on top.
        multiple_of: good samples are added until the rows are a multiple of this, so that no tail is dropped.
        seed: of the order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    groups = list(_faulty_groups())
    rows = sum(group.images for group in groups) + 2 * SAMPLES_BEFORE_DAMAGE
    good = 2 * len(groups)
    good += -(rows + good) % multiple_of
    groups += [_good(f"good{n:03d}", n) for n in range(good)]
    Random(seed).shuffle(groups)
    zoo = FaultZoo(folder, rows + good, sum(group.texts for group in groups) + 2 * SAMPLES_BEFORE_DAMAGE, {}, {})
    for shard in range(num_shards):
        name = f"{shard:05d}.tar"
        mine = groups[shard::num_shards]
        _write_tar(folder / name, [member for group in mine for member in group.members])
        for kind, key in (fault for group in mine for fault in group.planted):
            zoo.places.setdefault(kind, []).append((name, key))
    _write_damaged(folder)
    zoo.places["truncated"] = [(CUT, ""), (EMPTY, "")]
    zoo.places["garbage"] = [(GARBAGE_INSIDE, ""), (GARBAGE_ONLY, "")]
    zoo.planted.update({kind: len(places) for kind, places in zoo.places.items()})
    return zoo


def picture(number: int, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Image.Image:
    """A smooth picture, another one for every number; transparent in part where the mode allows it."""
    width, height = size
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    phase = np.random.default_rng(number).uniform(0, 6, 3)
    waves = [np.sin(4 * across + 3 * down + p) for p in phase]
    pixels = (127.5 + 127.5 * np.stack(waves, axis=-1)).astype(np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray((255 * across).astype(np.uint8)))
    return image


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def bomb_png(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes whose header promises ``width`` x ``height`` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(4096))) + chunk(b"IEND", b"")
    )


def bomb_jpeg(width: int, height: int) -> bytes:
    """A small JPEG whose frame header is altered to promise ``width`` x ``height`` pixels."""
    data = encode(picture(0), "JPEG")
    at = data.index(b"\xff\xc0") + 5  # marker, length, precision; then height and width
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def _caption(number: int) -> bytes:
    return f"picture number {number} of the zoo".encode()


def _good(key: str, number: int) -> Group:
    return Group(_sample(key, encode(picture(number), "JPEG"), _caption(number)))


def _sample(key: str, image: bytes, text: bytes | None, extension: str = "jpg") -> list[Member]:
    return [(f"{key}.{extension}", image), *([] if text is None else [(f"{key}.txt", text)])]


def _faulty_groups() -> Iterator[Group]:
    yield from _faulty_images()
    yield from _faulty_texts()
    yield from _faulty_structure()
    for number, key in enumerate(("dots.in.name", "a.jpg.b"), 900):  # a key ends at the last dot
        yield Group(_good(key, number).members, planted=[("dotted_key", key)])


def _faulty_images() -> Iterator[Group]:
    jpeg, png = encode(picture(1, (80, 60)), "JPEG"), encode(picture(2, (80, 60)), "PNG")
    frames = [picture(n) for n in range(3, 6)]
    exif = [Image.Exif() for _ in range(3)]
    for tags, orientation in zip(exif, (3, 6, 8), strict=True):
        tags[0x0112] = orientation
    grey16 = Image.fromarray((np.asarray(picture(6, mode="L")).astype(np.uint16) << 8) + 77)
    deep = Image.fromarray(np.arange(1200, dtype=np.int32).reshape(30, 40) - 600)
    bright = np.linspace(0, 1000, 1200, dtype=np.float32).reshape(30, 40)
    images = {
        "zero_bytes": [("jpg", b""), ("png", b"")],
        "undecodable": [("jpg", b"<html>not found</html>"), ("jpg", jpeg[: len(jpeg) // 2]), ("png", png[:-400])],
        "too_many_pixels": [
            ("png", bomb_png(40_000, 40_000)),
            ("png", bomb_png(10_000, 9_000)),
            ("jpg", bomb_jpeg(60_000, 60_000)),
        ],
        "undefined_range": [("tif", encode(deep, "TIFF")), ("pfm", encode(Image.fromarray(bright), "PPM"))],
        "wrong_extension": [
            ("jpg", encode(picture(7), "PNG")),
            ("png", encode(picture(8), "JPEG")),
            ("jpeg", encode(picture(9), "WEBP")),
            ("jpg", encode(picture(10), "BMP")),
            ("webp", encode(picture(10), "TIFF")),
        ],
        "cmyk": [("jpg", encode(picture(11, mode="CMYK"), "JPEG")), ("jpg", encode(picture(12, mode="CMYK"), "JPEG"))],
        "palette": [("png", encode(picture(13, mode="P"), "PNG")), ("png", encode(picture(14, mode="P"), "PNG"))],
        "alpha": [
            ("png", encode(picture(15, mode="RGBA"), "PNG")),
            ("png", encode(picture(16, mode="LA"), "PNG")),
            ("webp", encode(picture(17, mode="RGBA"), "WEBP")),
        ],
        "sixteen_bit": [("png", encode(grey16, "PNG"))],
        "animated": [
            ("png", encode(frames[0], "PNG", save_all=True, append_images=frames[1:])),
            ("webp", encode(frames[0], "WEBP", save_all=True, append_images=frames[1:])),
        ],
        "exif_rotated": [("jpg", encode(picture(18 + n), "JPEG", exif=tags)) for n, tags in enumerate(exif)],
        "extreme_aspect": [
            ("jpg", encode(picture(21, (420, 10)), "JPEG")),
            ("jpg", encode(picture(22, (10, 420)), "JPEG")),
        ],
    }
    for kind, variants in images.items():
        for number, (extension, data) in enumerate(variants):
            key = f"{kind}{number}"
            yield Group(_sample(key, data, _caption(number), extension), planted=[(kind, key)])


def _faulty_texts() -> Iterator[Group]:
    texts = {
        "no_caption": [None, None],
        "empty_caption": [b"", b" \n\t\n", b"\xef\xbb\xbf"],
        "not_utf8": [b"caf\xe9 at night", b"\xfe\xfd", "Größe".encode("latin-1")],
    }
    for kind, variants in texts.items():
        for number, text in enumerate(variants):
            key = f"{kind}{number}"
            image = encode(picture(30 + number), "JPEG")
            yield Group(_sample(key, image, text), texts=int(kind == "not_utf8"), planted=[(kind, key)])


def _faulty_structure() -> Iterator[Group]:
    first, second, third = (_sample(f"not_adjacent{n}", encode(picture(40 + n), "JPEG"), _caption(n)) for n in range(3))
    between = _sample("between0", encode(picture(43), "JPEG"), _caption(43))
    # Two images, then their two texts; and a text with another sample between it and its image.
    crossed = [first[0], second[0], first[1], second[1]]
    yield Group(crossed, 2, 0, [("not_adjacent", "not_adjacent0"), ("not_adjacent", "not_adjacent1")])
    yield Group([third[1], *between, third[0]], 2, 1, [("not_adjacent", "not_adjacent2")])

    twice = [_sample("duplicate_key0", encode(picture(50 + n), "JPEG"), _caption(n)) for n in range(2)]
    yield Group([*twice[0], *twice[1]], 2, 2, [("duplicate_key", "duplicate_key0")])
    again = [_sample("duplicate_key1", encode(picture(52 + n), "JPEG"), _caption(n)) for n in range(3)]
    between = _sample("between1", encode(picture(55), "JPEG"), _caption(55))
    planted = [("duplicate_key", "duplicate_key1")] * 2
    yield Group([*again[0], *between, *again[1], *again[2]], 4, 4, planted)

    for number, (first, second) in enumerate((("jpg", "png"), ("png", "webp"))):
        key = f"second_image{number}"
        images = [
            (f"{key}.{ending}", encode(picture(70), "JPEG" if ending == "jpg" else ending))
            for ending in (first, second)
        ]
        yield Group([*images, (f"{key}.txt", _caption(70))], planted=[("second_image", key)])
    texts = [("second_text0.caption", b"not this one"), ("second_text0.txt", _caption(71))]
    yield Group([("second_text0.jpg", encode(picture(71), "JPEG")), *texts], planted=[("second_text", "second_text0")])

    for number in range(2):
        key = f"no_image{number}"
        yield Group([(f"{key}.txt", b"a text without an image"), (f"{key}.json", b"{}")], 0, 0, [("no_image", key)])
    yield Group([("photo.heic", b"...."), ("README", b"read me"), ("._photo.jpg", b"resource fork")], 0, 0)


def _write_damaged(folder: Path) -> None:
    """A tar that ends inside an image, one with garbage for a header, one of garbage alone, and one of no bytes."""
    for shard, (name, kind) in enumerate(((CUT, "truncated"), (GARBAGE_INSIDE, "garbage"))):
        keys = [f"before_{kind}{n}" for n in range(SAMPLES_BEFORE_DAMAGE)] + ["lost0", "lost1"]
        groups = [_good(key, 60 + 10 * shard + n) for n, key in enumerate(keys)]
        _write_tar(folder / name, [member for group in groups for member in group.members])
        data = bytearray((folder / name).read_bytes())
        header = data.index(b"lost0.jpg")
        if name == CUT:
            del data[header + 512 + 100 :]
        else:
            data[header : header + 512] = np.random.default_rng(1).integers(1, 256, 512, dtype=np.uint8).tobytes()
        (folder / name).write_bytes(data)
    (folder / GARBAGE_ONLY).write_bytes(np.random.default_rng(2).integers(1, 256, 4096, dtype=np.uint8).tobytes())
    (folder / EMPTY).write_bytes(b"")


def _write_tar(path: Path, members: list[Member]) -> None:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
