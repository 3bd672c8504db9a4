"""Tiny shards, written with tarfile alone: the code under test does not write its own evidence."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

Member = tuple[str, bytes]


def encode_image(number: int, size: tuple[int, int] = (12, 10), format: str = "PNG", mode: str = "RGB") -> bytes:
    """An image of one colour from which its number can be read again: red = number % 256, green = number // 256."""
    image = Image.new("RGB", size, (number % 256, number // 256, 77)).convert(mode)
    out = io.BytesIO()
    image.save(out, format=format)
    return out.getvalue()


def write_tar(path: Path, members: Sequence[Member], format: int = tarfile.GNU_FORMAT) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def write_manifest(folder: Path, counts: Sequence[tuple[str, int, int]], captions: str = "lines") -> None:
    """Write a manifest from (name, images, texts) of shards that stand in the folder."""
    shards = [
        {"name": name, "num_images": images, "num_texts": texts, "bytes": (folder / name).stat().st_size}
        for name, images, texts in counts
    ]
    content = {
        "version": 1,
        "captions": captions,
        "shards": shards,
        "num_images": sum(images for _, images, _ in counts),
        "num_texts": sum(texts for _, _, texts in counts),
    }
    (folder / "manifest.json").write_text(json.dumps(content))


def caption_count(image_id: int) -> int:
    """Captions of an image in the shards below: 1, 2, 3, 1, 2, 3, ..."""
    return 1 + image_id % 3
