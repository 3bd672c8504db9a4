"""Measure large folders of shards: indexing against ``tar tf``, and the time to the middle of an epoch.

100 shards of 10,000 samples by default, each a one-pixel PNG and a caption: headers are nearly all of it, which is the
hardest case for an index. ``tar tf`` reads one shard after the other, as a loop of a shell does. The first batch is
timed in a process of its own, from opening the stream, and without what other benchmarks keep in memory; imports, which
a training pays once, are not counted. Pages of the files may be cached: it is the work that is measured, not the disk.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from bimodal_cl.data import Manifest, open_stream
from bimodal_cl.errors import UserError
from tests.benchmarks.measure.fresh_process import in_fresh_process
from tests.benchmarks.measure.table import format_table
from tests.benchmarks.measure.timing import describe_range, describe_time

GLOBAL_BATCH = 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--num-shards", type=int, default=100)
    parser.add_argument("--samples", type=int, default=10_000, help="samples per shard")
    parser.add_argument("--rounds", type=int, default=5, help="how often each row is timed")
    parser.add_argument("--folder", type=Path, help="where the shards are made, and kept (default: a temporary one)")


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    if arguments.quick:
        arguments.num_shards, arguments.samples, arguments.rounds = 4, 50, 2
    with _folder(arguments.folder) as folder:
        write_shards(folder, arguments.num_shards, arguments.samples)
        total = arguments.num_shards * arguments.samples
        times = time_index(folder, arguments.rounds)
        tar = statistics.median(times["tar tf"])
        rows = [
            [name, *describe_range(seconds), f"{total / median:,.0f}", f"{tar / median:.2f}"]
            for name, seconds in times.items()
            for median in [statistics.median(seconds)]
        ]
        print(f"\n{arguments.num_shards} shards of {arguments.samples} samples: medians of {arguments.rounds} rounds")
        print(format_table(["index", "time", "range", "samples/s", "speed over tar tf"], rows))

        batch = min(GLOBAL_BATCH, max(total // 4, 1))
        print(f"\nfirst batch of {batch} in the middle of an epoch of {total:,}: medians of {arguments.rounds}")
        rows = []
        for name, tables in (("row tables", True), ("without: headers are read", False)):
            for workers in (0, 2):
                seconds = [
                    in_fresh_process(time_first_batch, folder, batch, workers, tables)
                    for _ in range(arguments.rounds if tables else 1)
                ]
                rows.append([f"{name}, {workers} workers", *describe_range(seconds)])
        print(format_table(["position", "time", "range"], rows))
        begin = time.perf_counter()
        Manifest.load(folder)
        print(f"of it, the manifest: {describe_time(time.perf_counter() - begin)}")


def write_shards(folder: Path, num_shards: int, samples: int) -> None:
    """Write shards of one-pixel pictures with captions, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1), (200, 30, 90)).save(buffer, "PNG")
    for shard in range(num_shards):
        path = folder / f"{shard:05d}.tar"
        if path.exists():
            continue
        partial = path.with_suffix(".partial")
        with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar:
            for sample in range(samples):
                for extension, data in (("png", buffer.getvalue()), ("txt", b"picture %d" % sample)):
                    info = tarfile.TarInfo(f"{shard:05d}{sample:06d}.{extension}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        partial.replace(path)


def time_index(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Time ``bimodal-prep index`` as a command, Python's start included, and ``tar tf``, in turn."""
    paths = sorted(folder.glob("*.tar"))
    times: dict[str, list[float]] = {"tar tf": [], "bimodal-prep index": [], "bimodal-prep index, one process": []}
    for _ in range(rounds):
        times["tar tf"].append(_time(lambda: [_run("tar", "tf", str(path)) for path in paths]))
        for name, flags in (("bimodal-prep index", ()), ("bimodal-prep index, one process", ("--workers", "1"))):
            (folder / "manifest.json").unlink(missing_ok=True)
            for table in folder.glob("rows/*"):
                table.unlink()
            times[name].append(_time(lambda flags=flags: _run("bimodal-prep", "index", str(folder), *flags)))
    return times


def time_first_batch(folder: Path, batch_size: int, num_workers: int, row_tables: bool) -> float:
    """Return the seconds from opening the middle of an epoch to its first batch."""
    multiprocessing.set_start_method("fork", force=True)  # for workers, as in a training
    if not row_tables:
        (folder / "rows").rename(folder / "rows-aside")
    try:
        begin = time.perf_counter()
        steps = Manifest.load(folder).num_images // batch_size
        stream = open_stream(folder, batch_size, 8, start_step=steps // 2, num_workers=num_workers)
        batches = iter(stream)
        next(batches)
        seconds = time.perf_counter() - begin
        del batches
    finally:
        if not row_tables:
            (folder / "rows-aside").rename(folder / "rows")
    return seconds


def _time(work: object) -> float:
    begin = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - begin


def _run(program: str, *arguments: str) -> None:
    beside = Path(sys.executable).with_name(program)  # the environment's commands are in the folder of its Python
    command = [str(beside) if beside.exists() else program, *arguments]
    try:
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    except FileNotFoundError:
        raise UserError(f"{program} is not installed") from None
    if done.returncode:
        raise UserError(f"{' '.join(command)}: {done.stderr.decode().strip()}")


@contextmanager
def _folder(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)
