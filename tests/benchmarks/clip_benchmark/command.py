"""Score CIFAR-10, clothing and Flickr8k with CLIP_benchmark's command and with ours, in turn, on the same model.

The model is an export that open_clip loads as ``local-dir:``: a given one, or one that is trained for it on Flickr8k.
The data sets are written from the tars in CLIP_benchmark's ``wds_`` layout, with the same prompts for both, and both
read them with the same batch size and loader processes, in float32. Compared are every metric that CLIP_benchmark has,
and the wall time of the whole command, from its start to its exit. Ours also computes intervals, ranks, recall by class
and examples. At the end, CLIP_benchmark's ``build`` reads our results. Without ``--clip-benchmark-python`` only ours is
measured.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
from pathlib import Path

from bimodal_cl.cli.arguments import natural_number, positive_integer
from tests.benchmarks.clip_benchmark.agreement import LIMIT, compare_metrics, find_misread
from tests.benchmarks.clip_benchmark.data_sets import DATA_SETS, DataSet, write_data_set
from tests.benchmarks.clip_benchmark.made_model import make_model
from tests.benchmarks.clip_benchmark.sides import (
    Scored,
    Settings,
    build_table,
    describe_versions,
    score_ours,
    score_theirs,
)
from tests.benchmarks.measure.table import format_table

_OURS, _THEIRS = "ours", "CLIP_benchmark"
_QUICK_IMAGES = 24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument(
        "--clip-benchmark-python", metavar="PYTHON", type=Path, help="interpreter that has clip-benchmark 1.6.2"
    )
    parser.add_argument(
        "--data", metavar="DIR", type=Path, help="folder of " + ", ".join(data_set.tar for data_set in DATA_SETS)
    )
    parser.add_argument("--model", metavar="DIR", type=Path, help="an export, instead of a model trained for it")
    parser.add_argument("--num-steps", type=positive_integer, default=200, help="optimizer steps of that training")
    parser.add_argument("--work", metavar="DIR", type=Path, help="keep data sets, model and results in this folder")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where both score")
    parser.add_argument("--batch-size", type=positive_integer, default=64, help="images of a batch of either loader")
    parser.add_argument("--num-workers", type=natural_number, default=1, help="loader processes of each command")
    parser.add_argument(
        "--num-images", metavar="N", type=positive_integer, help="largest size of a data set (default: all)"
    )
    parser.add_argument("--rounds", type=positive_integer, default=3, help="how often each command is run")


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    if arguments.data is None:
        print("--data DIR is not given: nothing to measure")
        return
    if arguments.quick:
        arguments.num_images, arguments.rounds, arguments.num_workers, arguments.num_steps = _QUICK_IMAGES, 1, 0, 2
    with contextlib.ExitStack() as stack:
        work = (arguments.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))).resolve()
        if arguments.clip_benchmark_python:
            print(describe_versions(arguments.clip_benchmark_python))
        shards = max(1, arguments.num_workers)
        sizes = {
            data_set: write_data_set(data_set, arguments.data, _folder(data_set, work), shards, arguments.num_images)
            for data_set in DATA_SETS
        }
        model = arguments.model or make_model(arguments.data.resolve(), work, arguments.num_steps)
        settings = Settings(
            model.resolve(), arguments.batch_size, arguments.num_workers, arguments.threads, arguments.device
        )
        print(f"model {model}; {arguments.rounds} rounds in turn, batches of {settings.batch_size}", end=", ")
        print(f"{settings.num_workers} workers, float32 on {settings.device}", flush=True)
        scored = _score(settings, work, arguments)
        _show_metrics(scored)
        _show_times(scored, sizes)
        if arguments.clip_benchmark_python:
            _show_build(arguments.clip_benchmark_python, scored, work / "build.csv")


def _score(settings: Settings, work: Path, arguments: argparse.Namespace) -> dict[DataSet, dict[str, list[Scored]]]:
    """Return all rounds of both sides by data set."""
    python = arguments.clip_benchmark_python
    sides = [_OURS, _THEIRS] if python else [_OURS]
    found: dict[DataSet, dict[str, list[Scored]]] = {data_set: {side: [] for side in sides} for data_set in DATA_SETS}
    for number in range(arguments.rounds):
        for data_set, rounds in found.items():
            data = _folder(data_set, work)
            for side in rounds:
                folder = work / "results" / side / str(number)
                if side == _OURS:
                    rounds[side].append(score_ours(data_set, data, settings, folder))
                else:
                    rounds[side].append(score_theirs(python, data_set, data, settings, folder))
    return found


def _show_metrics(scored: dict[DataSet, dict[str, list[Scored]]]) -> None:
    rows, wrong, count = [], [], 0
    for data_set, rounds in scored.items():
        results = {side: [each.result()["metrics"] for each in runs] for side, runs in rounds.items()}
        if _THEIRS not in results:
            rows += [[data_set.name, name, f"{value:.8f}"] for name, value in results[_OURS][0].items()]
            continue
        # Every round of both, so that a score that changes between rounds shows.
        for ours, theirs in zip(results[_OURS], results[_THEIRS], strict=True):
            for each in compare_metrics(ours, theirs):
                shown = "none" if each.ours is None else f"{each.ours:.8f}"
                row = [data_set.name, each.metric, shown, f"{each.theirs:.8f}", f"{each.difference:+.1e}"]
                count += 1
                if row not in rows:
                    rows.append(row)
                if not each.holds:
                    wrong.append(f"{data_set.name} {each.metric}")
    print()
    print(format_table(["data set", "metric", _OURS, _THEIRS, "difference"][: len(rows[0])], rows))
    if count:
        verdict = f"differ: {', '.join(dict.fromkeys(wrong))}" if wrong else f"all {count} are equal up to {LIMIT:.0e}"
        print(f"shared metrics of all rounds: {verdict}")


def _show_times(scored: dict[DataSet, dict[str, list[Scored]]], sizes: dict[DataSet, int]) -> None:
    rows = []
    totals: dict[str, list[float]] = {}
    for data_set, rounds in scored.items():
        walls = {side: [each.took.wall for each in runs] for side, runs in rounds.items()}
        for side, seconds in walls.items():
            before = totals.get(side, [0.0] * len(seconds))
            totals[side] = [sum(pair) for pair in zip(before, seconds, strict=True)]
            cpu = statistics.median(each.took.cpu for each in rounds[side])
            rows.append([f"{data_set.name}, {sizes[data_set]:,} images", *_time_cells(side, walls), f"{cpu:.1f}"])
    rows += [["all", *_time_cells(side, totals), ""] for side in totals]
    print()
    print(format_table(["data set", "command", "seconds", "range", "ours / other", "CPU seconds"], rows))


def _time_cells(side: str, walls: dict[str, list[float]]) -> list[str]:
    """Return name, median, range and, for ours, the median of the rounds' ratios."""
    ratio = ""
    if side == _OURS and _THEIRS in walls:
        pairs = zip(walls[_OURS], walls[_THEIRS], strict=True)
        ratio = f"{statistics.median(ours / theirs for ours, theirs in pairs):.2f}"
    seconds = walls[side]
    return [side, f"{statistics.median(seconds):.1f}", f"{min(seconds):.1f} .. {max(seconds):.1f}", ratio]


def _show_build(python: Path, scored: dict[DataSet, dict[str, list[Scored]]], table: Path) -> None:
    ours = [rounds[_OURS][0] for rounds in scored.values()]
    rows = build_table(python, [each.file for each in ours], table)
    wrong = [
        f"{each.file.name}: {', '.join(misread)}"
        for each, row in zip(ours, rows, strict=True)
        if (misread := find_misread(row, each.result()))
    ]
    count = sum(len(each.result()["metrics"]) for each in ours)
    verdict = f"misread: {'; '.join(wrong)}" if wrong else f"{len(rows)} results, {count} metrics, all as we wrote them"
    print(f"\nCLIP_benchmark's build of our JSON files: {verdict}")


def _folder(data_set: DataSet, work: Path) -> Path:
    return work / f"wds_{data_set.name}"
