"""Images to prepare, and shards read back with tarfile and json alone: the code under test does not judge itself."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
MAIN = "from data_prep.cli import main; sys.exit(main(sys.argv[1:]))"
Sample = tuple[str, dict[str, bytes]]  # key, members by extension


class Samples(list[Sample]):
    """Samples in order, and what they hold."""

    @property
    def sample_keys(self) -> list[str]:
        return [key for key, _ in self]

    @property
    def captions(self) -> list[list[str]]:
        return [captions_of(sample) for sample in self]

    @property
    def images(self) -> list[bytes]:
        return [image_of(sample) for sample in self]


def photo(number: int, size: tuple[int, int] = (24, 16), format: str = "JPEG", mode: str = "RGB", **save: Any) -> bytes:
    """A noisy image, another one for every number."""
    width, height = size
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, format, **save)
    return buffer.getvalue()


def open_bytes(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def write_files(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def write_photos(folder: Path, numbers: Sequence[int], text: str = "picture {n}\n") -> Path:
    """``img0.jpg`` and ``img0.txt``, ..."""
    for n in numbers:
        write_files(folder, {f"img{n}.jpg": photo(n), f"img{n}.txt": text.format(n=n)})
    return folder


def write_karpathy(folder: Path, splits: Sequence[str], captions: int = 2) -> Path:
    """``data.json`` and ``images/0.jpg``, ...: image n in the n-th split named, with captions "n caption c"."""
    records = []
    for n, split in enumerate(splits):
        write_files(folder / "images", {f"{n}.jpg": photo(n)})
        sentences = [{"raw": f"{n} caption {c}", "tokens": []} for c in range(captions)]
        records.append({"filename": f"{n}.jpg", "imgid": n, "split": split, "sentences": sentences})
    (folder / "data.json").write_text(json.dumps({"dataset": "made", "images": records}))
    return folder


def write_tar(path: Path, members: Sequence[tuple[str, bytes]], format: int = tarfile.GNU_FORMAT) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def read_tar(path: Path) -> list[Sample]:
    samples: list[Sample] = []
    with tarfile.open(path) as tar:
        for info in tar:
            key, _, extension = info.name.partition(".")  # as WebDataset does
            file = tar.extractfile(info)
            assert file is not None
            if not samples or samples[-1][0] != key:
                samples.append((key, {}))
            assert extension not in samples[-1][1]
            samples[-1][1][extension] = file.read()
    return samples


def read_folder(folder: Path) -> Samples:
    """All samples in the order of the manifest, which must fit the tars in every number."""
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["version"] == 1 and manifest["captions"] == "lines"
    assert sorted(entry["name"] for entry in manifest["shards"]) == sorted(tar.name for tar in folder.glob("*.tar"))
    samples = Samples()
    for entry in manifest["shards"]:
        data = (folder / entry["name"]).read_bytes()
        rows = read_tar(folder / entry["name"])
        assert entry["bytes"] == len(data) and entry["sha256"] == hashlib.sha256(data).hexdigest()
        assert entry["num_images"] == len(rows)
        assert entry["num_texts"] == sum(len(captions_of(row)) for row in rows)
        samples += rows
    assert manifest["num_images"] == len(samples)
    assert manifest["num_texts"] == sum(len(captions_of(row)) for row in samples)
    assert len({key for key, _ in samples}) == len(samples)
    return samples


def captions_of(sample: Sample) -> list[str]:
    return sample[1]["txt"].decode().split("\n")


def image_of(sample: Sample) -> bytes:
    (image,) = (data for extension, data in sample[1].items() if extension not in ("txt", "json"))
    return image


def photos(numbers: Iterable[int]) -> list[bytes]:
    return [photo(number) for number in numbers]


def start_prep(*arguments: str | Path, code: str = MAIN, **options: Any) -> subprocess.Popen[str]:
    """Start ``bimodal-prep`` as a process of its own, which heeds Ctrl-C.

    A suite that runs in the background is started with Ctrl-C ignored, and its children would inherit that.
    """
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [sys.executable, "-c", f"{heed}; import sys; {code}", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, text=True, **pipes, **options)


def file_bytes(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
