"""Measure samples per second of our loader and open_clip's on the same shards, and our time by stage.

Both crop as open_clip does (area 0.9 to 1, ratio 3/4 to 4/3, bicubic), shuffle, tokenize with open_clip's tokenizer and
have the same number of workers and the same batch. Each gives what its trainer takes: open_clip's loader normalized
float32, ours uint8, which the device normalizes. Without ``--open-clip-python`` only ours is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from open_clip.tokenizer import SimpleTokenizer

from bimodal_cl.data import Manifest, Stream, open_stream
from bimodal_cl.data.pipeline.profile import profile_stream
from tests.benchmarks.decoders import SCALE
from tests.benchmarks.measure.command import run_command
from tests.benchmarks.measure.machine import num_threads
from tests.benchmarks.measure.table import format_table
from tests.benchmarks.open_clip_loader import take_batches
from tests.benchmarks.photos import describe_photos, make_photos

OPEN_CLIP_LOADER = Path(__file__).with_name("open_clip_loader.py")
WARM_UP_BATCHES = 4  # per worker: uses up what was prefetched at the start


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument(
        "--open-clip-python", type=Path, help="interpreter that has open_clip_torch and webdataset 0.2.86"
    )
    parser.add_argument("--shards", type=Path, help="folder of shards with a manifest, instead of shards made for it")
    parser.add_argument("--photos", type=Path, help="folder or tar of photos to make the pictures of")
    parser.add_argument("--num-photos", type=int, default=512, help="different pictures")
    parser.add_argument("--num-samples", type=int, default=4096, help="samples in the shards that are made")
    parser.add_argument("--sides", type=int, nargs="+", default=[224, 112], help="of the images, pixels")
    parser.add_argument("--batch-size", type=int, default=64, help="samples per batch")
    parser.add_argument("--num-workers", type=int, help="processes of each loader (default: as many as --threads)")
    parser.add_argument("--num-batches", type=int, default=40, help="batches that are measured each time")
    parser.add_argument("--rounds", type=int, default=5, help="how often each loader is measured")


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    if arguments.quick:
        arguments.num_photos, arguments.num_samples, arguments.sides = 4, 32, [64]
        arguments.batch_size, arguments.num_batches, arguments.rounds = 4, 2, 1
    if arguments.open_clip_python:
        run_command([str(arguments.open_clip_python), "-c", "import open_clip_train.data"])
    workers = arguments.num_workers or num_threads(arguments.threads)
    with contextlib.ExitStack() as stack:
        folder = arguments.shards or stack.enter_context(make_shards(arguments, workers))
        manifest = Manifest.load(folder)
        print(f"{manifest.num_images} samples in {len(manifest.shards)} shards")
        for side in arguments.sides:
            _compare(manifest, side, workers, arguments)


def _compare(manifest: Manifest, side: int, workers: int, arguments: argparse.Namespace) -> None:
    task = {
        "side": side,
        "batch_size": arguments.batch_size,
        "num_workers": workers,
        "warm_up": WARM_UP_BATCHES * workers,
        "count": arguments.num_batches,
    }
    loaders = {"ours": [sys.executable, "-m", "tests.benchmarks.loader", str(manifest.folder)]}
    if arguments.open_clip_python:
        loaders["open_clip"] = [str(arguments.open_clip_python), str(OPEN_CLIP_LOADER)]
        needed = (task["warm_up"] + task["count"] + workers) * arguments.batch_size
        theirs = {"shards": in_braces(manifest), "num_samples": max(manifest.num_images, needed)}
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in loaders}
    for _ in range(arguments.rounds):
        for name, command in loaders.items():
            text = json.dumps(task if name == "ours" else {**task, **theirs})
            results[name].append(json.loads(run_command([*command, text]).splitlines()[-1]))
    print(f"\n{side} x {side}, batches of {arguments.batch_size}, {workers} workers; medians of {arguments.rounds}")
    speeds = {name: [result["samples"] / result["seconds"] for result in rounds] for name, rounds in results.items()}
    baseline = statistics.median(speeds[list(speeds)[-1]])
    rows = []
    for name, rounds in results.items():
        speed = statistics.median(speeds[name])
        span = f"{min(speeds[name]):.0f} .. {max(speeds[name]):.0f}"
        cpu = 1e3 * statistics.median(result["cpu"] / result["samples"] for result in rounds)
        rows.append([name, f"{speed:.0f}", span, f"{cpu:.2f}", f"{speed / baseline:.2f}"])
    print(format_table(["loader", "samples/s", "range", "CPU ms a sample", "ratio"], rows))
    for name, rounds in results.items():
        print(f"{name}: {rounds[0]['versions']}")
    print("\n".join(["", "ours by stage:", *results["ours"][-1]["profile"]]))


def measure_ours(folder: str, side: int, batch_size: int, num_workers: int, warm_up: int, count: int) -> dict[str, Any]:
    """Measure ``open_stream`` in this process and its workers; a second pass measures the stages."""
    stream = _open_ours(folder, side, batch_size, num_workers)
    seconds, cpu = take_batches(stream, warm_up, count)
    versions = f"bimodal_cl {version('bimodal_cl')}, simplejpeg {version('simplejpeg')}"
    profile = profile_stream(_open_ours(folder, side, batch_size, num_workers), count).lines()
    return {"seconds": seconds, "cpu": cpu, "samples": count * batch_size, "versions": versions, "profile": profile}


def _open_ours(folder: str | Manifest, side: int, batch_size: int, num_workers: int) -> Stream:
    tokenize = SimpleTokenizer()
    return open_stream(
        folder, batch_size, side, num_epochs=1000, num_workers=num_workers, scale=SCALE, tokenize=tokenize
    )


def in_braces(manifest: Manifest) -> str:
    """Return the paths of a manifest's shards as open_clip takes them."""
    paths = [manifest.location(number) for number in range(len(manifest.shards))]
    return paths[0] if len(paths) == 1 else "{" + ",".join(paths) + "}"


@contextlib.contextmanager
def make_shards(arguments: argparse.Namespace, workers: int) -> Iterator[Path]:
    """Write shards with ``bimodal-prep``; open_clip's loader needs at least one per worker."""
    photos = make_photos(arguments.photos, arguments.num_photos)
    print(describe_photos(photos, arguments.photos))
    with tempfile.TemporaryDirectory() as temporary:
        raw, shards = Path(temporary, "raw"), Path(temporary, "shards")
        raw.mkdir()
        for number in range(arguments.num_samples):
            (raw / f"{number:06d}.jpg").write_bytes(photos[number % len(photos)])
            (raw / f"{number:06d}.txt").write_text(CAPTIONS[number % len(CAPTIONS)].format(number))
        size = -(-arguments.num_samples // max(4, 2 * workers))
        source = ["write", "folder", "--images", str(raw), "--to", str(shards), "--shard-size", str(size)]
        run_command([sys.executable, "-m", "data_prep.cli", *source])
        yield shards


CAPTIONS = (
    "A black and white dog is running through shallow water near the shore, number {}.",
    "Two children in bright jackets play on a wooden swing in the park, number {}.",
    "A man wearing a red helmet rides a mountain bike down a rocky trail, number {}.",
    "Several people stand in line outside a small restaurant at night, number {}.",
)


if __name__ == "__main__":
    print(json.dumps(measure_ours(sys.argv[1], **json.loads(sys.argv[2]))))
