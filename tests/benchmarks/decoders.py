"""From a JPEG's bytes to a resized crop, on one core: what each library takes, and how far its pixels are off.

Crops are open_clip's (area 0.9 to 1, ratio 3/4 to 4/3), the same for every row. "In eighths" decodes at the smallest
number of eighths of the size at which the crop has a pixel for each of the result. Pixels are compared with those of
Pillow that decodes fully. Rows whose library is not installed say so.
"""

from __future__ import annotations

import argparse
import importlib
import io
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bimodal_cl.data.images.decode import align_box, decode_image, open_encoded
from bimodal_cl.data.images.transforms import TrainTransform, resize
from bimodal_cl.data.order.draws import Purpose, draw_uniform
from tests.benchmarks.measure.table import format_table
from tests.benchmarks.measure.timing import time_in_turn
from tests.benchmarks.photos import HEIGHT, WIDTH, describe_photos, make_photos

SCALE = (0.9, 1.0)

Box = tuple[int, int, int, int]
Decode = Callable[[bytes, Box, int], np.ndarray]  # file, crop, side: uint8 [side, side, 3]


@dataclass(frozen=True)
class Decoder:
    """A way to the pixels.

    Attributes:
        name: of the row.
        package: that must be installed.
        build: makes it; imports the package.
    """

    name: str
    package: str
    build: Callable[[], Decode]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--photos", type=Path, help="folder or tar of photos to make the pictures of")
    parser.add_argument("--num-photos", type=int, default=64, help="pictures")
    parser.add_argument("--sides", type=int, nargs="+", default=[224, 112], help="of the resized crop, pixels")
    parser.add_argument("--rounds", type=int, default=9, help="how often each row is timed")


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    if arguments.quick:
        arguments.num_photos, arguments.rounds = 4, 3
    torch.set_num_threads(1)
    photos = make_photos(arguments.photos, arguments.num_photos)
    print(describe_photos(photos, arguments.photos))
    print(", ".join(sorted({f"{decoder.package} {_version(decoder.package)}" for decoder in DECODERS})))
    for side in arguments.sides:
        print(f"\ndecode, crop, resize to {side} x {side}; medians of {arguments.rounds}, one thread")
        head = ["decoder", "images/s", "against Pillow", "mean difference", "99.9 % below"]
        print(format_table(head, measure(photos, side, arguments.rounds)))


def measure(photos: list[bytes], side: int, rounds: int) -> list[list[str]]:
    """The rows of the table for one size."""
    boxes = [_draw_box(side, number) for number in range(len(photos))]
    built = {decoder.name: _build(decoder) for decoder in DECODERS}
    decoders = {name: decode for name, decode in built.items() if not isinstance(decode, str)}
    missing = [[name, f"not here: {why}"] for name, why in built.items() if isinstance(why, str)]
    reference = [_pillow(photo, box, side) for photo, box in zip(photos, boxes, strict=True)]
    differences = {name: _compare(decode, photos, boxes, side, reference) for name, decode in decoders.items()}

    def decode_all(decode: Decode) -> None:
        for photo, box in zip(photos, boxes, strict=True):
            decode(photo, box, side)

    times = time_in_turn({name: partial(decode_all, decode) for name, decode in decoders.items()}, rounds)
    speeds = {name: len(photos) / statistics.median(seconds) for name, seconds in times.items()}
    baseline = next(iter(speeds.values()))
    rows = [
        [name, f"{speed:.0f}", f"{speed / baseline:.2f}", *(f"{value:.1f}" for value in differences[name])]
        for name, speed in speeds.items()
    ]
    return [*rows, *missing]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"


def _build(decoder: Decoder) -> Decode | str:
    """Its function, or why it is not here."""
    try:
        version(decoder.package)
        return decoder.build()
    except (ImportError, PackageNotFoundError, RuntimeError) as error:
        return str(error).splitlines()[0]


def _draw_box(side: int, number: int) -> Box:
    draws = draw_uniform(Purpose.AUGMENTATION, 0, 0, number, np.arange(23))
    return align_box(TrainTransform(side, SCALE).crop_box(WIDTH, HEIGHT, draws), (WIDTH, HEIGHT), side)[0]


def _compare(
    decode: Decode, photos: list[bytes], boxes: list[Box], side: int, reference: list[np.ndarray]
) -> tuple[float, float]:
    differences = [
        np.abs(decode(photo, box, side).astype(int) - expected)
        for photo, box, expected in zip(photos, boxes, reference, strict=True)
    ]
    return float(np.mean(differences)), float(np.quantile(differences, 0.999))


def _eighths(box: Box, side: int) -> int:
    """The scale, in eighths, at which the crop still has a pixel for every pixel of the result."""
    return min(8, math.ceil(8 * side / min(box[2] - box[0], box[3] - box[1])))


def _resize_pillow(image: Image.Image, box: tuple[float, ...], side: int) -> np.ndarray:
    return np.array(image.resize((side, side), Image.Resampling.BICUBIC, box=box))  # type: ignore[arg-type]


def _resize_torch(pixels: np.ndarray, box: Box, side: int) -> np.ndarray:
    left, top, right, bottom = box
    return resize(pixels[top:bottom, left:right], side).permute(1, 2, 0).numpy()


def _pillow(data: bytes, box: Box, side: int) -> np.ndarray:
    return _resize_pillow(decode_image(data), box, side)


def _pillow_draft(data: bytes, box: Box, side: int) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    least = _eighths(box, side) / 8
    image.draft("RGB", (math.ceil(WIDTH * least), math.ceil(HEIGHT * least)))
    factor = image.width / WIDTH
    return _resize_pillow(image, tuple(edge * factor for edge in box), side)


def _simplejpeg(resized_by: str) -> Decode:
    simplejpeg = importlib.import_module("simplejpeg")

    def decode(data: bytes, box: Box, side: int) -> np.ndarray:
        pixels = simplejpeg.decode_jpeg(data, "RGB")
        if resized_by == "torch":
            return _resize_torch(pixels, box, side)
        return _resize_pillow(Image.fromarray(pixels), box, side)

    return decode


def _simplejpeg_in_eighths() -> Decode:
    simplejpeg = importlib.import_module("simplejpeg")

    def decode(data: bytes, box: Box, side: int) -> np.ndarray:
        factor = _eighths(box, side) / 8
        least = math.ceil(HEIGHT * factor), math.ceil(WIDTH * factor)
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=least[0], min_width=least[1])
        return _resize_pillow(Image.fromarray(pixels), tuple(edge * factor for edge in box), side)

    return decode


def _torchvision() -> Decode:
    torchvision_io = importlib.import_module("torchvision.io")

    def decode(data: bytes, box: Box, side: int) -> np.ndarray:
        encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return _resize_torch(torchvision_io.decode_jpeg(encoded).permute(1, 2, 0).numpy(), box, side)

    return decode


def _turbojpeg() -> Decode:
    module = importlib.import_module("turbojpeg")
    decoder = module.TurboJPEG()

    def decode(data: bytes, box: Box, side: int) -> np.ndarray:
        eighths = _eighths(box, side)
        divisor = math.gcd(eighths, 8)
        factor = (eighths // divisor, 8 // divisor)
        pixels = decoder.decode(data, pixel_format=module.TJPF_RGB, scaling_factor=factor)
        return _resize_pillow(Image.fromarray(pixels), tuple(edge * eighths / 8 for edge in box), side)

    return decode


def _opencv(reduced: bool) -> Decode:
    cv2: Any = importlib.import_module("cv2")
    cv2.setNumThreads(1)
    flags = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}

    def decode(data: bytes, box: Box, side: int) -> np.ndarray:
        divisor = max((n for n in flags if reduced and 8 // n >= _eighths(box, side)), default=1)
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags[divisor])
        left, top, right, bottom = (round(edge / divisor) for edge in box)
        resized = cv2.resize(pixels[top:bottom, left:right], (side, side), interpolation=cv2.INTER_AREA)
        return cv2.cvtColor(resized, cv2.COLOR_BGR2RGB)

    return decode


def _spdl() -> Decode:
    io_module = importlib.import_module("spdl.io")

    def decode(data: bytes, box: Box, side: int) -> np.ndarray:
        left, top, right, bottom = box
        graph = f"crop={right - left}:{bottom - top}:{left}:{top},scale={side}:{side}:flags=bicubic,format=rgb24"
        return io_module.to_numpy(io_module.load_image(data, filter_desc=graph))

    return decode


def _ours() -> Decode:
    def decode(data: bytes, box: Box, side: int) -> np.ndarray:
        return resize(open_encoded(data).decode_crop(box, side), side).permute(1, 2, 0).numpy()

    return decode


DECODERS = (
    Decoder("Pillow", "pillow", lambda: _pillow),
    Decoder("Pillow, draft", "pillow", lambda: _pillow_draft),
    Decoder("simplejpeg, resized by Pillow", "simplejpeg", partial(_simplejpeg, "Pillow")),
    Decoder("simplejpeg, resized by torch", "simplejpeg", partial(_simplejpeg, "torch")),
    Decoder("simplejpeg in eighths, resized by Pillow", "simplejpeg", _simplejpeg_in_eighths),
    Decoder("torchvision.io, resized by torch", "torchvision", _torchvision),
    Decoder("PyTurboJPEG in eighths, resized by Pillow", "PyTurboJPEG", _turbojpeg),
    Decoder("OpenCV, resized by area", "opencv-python-headless", partial(_opencv, False)),
    Decoder("OpenCV reduced, resized by area", "opencv-python-headless", partial(_opencv, True)),
    Decoder("SPDL, resized by FFmpeg", "spdl", _spdl),
    Decoder("ours, from the header on", "bimodal_cl", _ours),
)
