"""Score a data set with CLIP_benchmark's command and with ours, on the same model with the same settings."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bimodal_cl.errors import UserError
from tests.benchmarks.clip_benchmark.data_sets import SPLIT, DataSet
from tests.benchmarks.measure.command import TimedCommand, run_command, time_command

_PACKAGES = ("clip-benchmark", "open_clip_torch", "torch", "torchvision", "webdataset", "numpy", "pillow")
RECALL_KS = ("1", "5", "10")  # those of our command; CLIP_benchmark's default is 5 alone


@dataclass(frozen=True)
class Settings:
    """What both sides share.

    Args:
        model: folder of an export that open_clip loads as ``local-dir:``.
        batch_size: images of a batch of the loader.
        num_workers: loader processes.
        threads: CPU threads; None: as torch chooses.
        device: ``"cpu"`` or ``"cuda"``.
    """

    model: Path
    batch_size: int
    num_workers: int
    threads: int | None
    device: str

    def time(self, command: Sequence[str]) -> TimedCommand:
        """Run a command and measure it; CLIP_benchmark takes a GPU wherever it sees one."""
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if self.device == "cpu" else {}
        return time_command(list(command), self.threads, HF_HUB_OFFLINE="1", **hidden)


@dataclass(frozen=True)
class Scored:
    """A side's scores of a data set.

    Args:
        took: time of the whole command.
        file: its result.
    """

    took: TimedCommand
    file: Path

    def result(self) -> dict[str, Any]:
        """Return the result."""
        return json.loads(self.file.read_text(encoding="utf-8"))


def score_ours(data_set: DataSet, data: Path, settings: Settings, folder: Path) -> Scored:
    """Run ``bimodal-eval``, with its result below a folder."""
    command = "retrieval" if data_set.prompts is None else "zero-shot"
    flags = {
        "--data": data,
        "--split": SPLIT,
        "--name": f"wds/{data_set.name}",
        "--to": folder,
        "--batch-size": settings.batch_size,
        "--num-workers": settings.num_workers,
        "--precision": "fp32",
        "--device": settings.device,
    }
    took = settings.time([sys.executable, "-m", "eval.cli", command, f"local-dir:{settings.model}", *_words(flags)])
    return Scored(took, Path(took.printed.splitlines()[-1]))


def score_theirs(python: Path, data_set: DataSet, data: Path, settings: Settings, folder: Path) -> Scored:
    """Run CLIP_benchmark's ``eval`` in its own interpreter, with its result in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{data_set.task}_{data_set.name}.json"
    flags = {
        "--pretrained_model": f"local-dir:{settings.model},",  # an architecture and its weights, which it names itself
        "--dataset": f"wds/{data_set.name}",
        "--dataset_root": data,
        "--split": SPLIT,
        "--task": data_set.task,
        "--batch_size": settings.batch_size,
        "--num_workers": settings.num_workers,
        "--output": file,
    }
    command = [str(python), "-m", "clip_benchmark.cli", "eval", "--no_amp", *_words(flags)]
    return Scored(settings.time([*command, "--recall_k", *RECALL_KS]), file)


def build_table(python: Path, files: Sequence[Path], table: Path) -> list[dict[str, str]]:
    """Run CLIP_benchmark's ``build`` on results; return the rows of its CSV, one for each file in their order.

    Raises:
        UserError: the command fails, or has another number of rows.
    """
    run_command([str(python), "-m", "clip_benchmark.cli", "build", *map(str, files), "--output", str(table)])
    with table.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    if len(rows) != len(files):
        raise UserError(f"CLIP_benchmark's build wrote {len(rows)} rows for {len(files)} results")
    return rows


def describe_versions(python: Path) -> str:
    """Return the versions of the packages in CLIP_benchmark's interpreter that its scores depend on.

    Raises:
        UserError: it has no CLIP_benchmark, or this does not start.
    """
    code = "import sys, clip_benchmark.cli; from importlib.metadata import version\n"
    code += "print(*(f'{name} {version(name)}' for name in sys.argv[1:]), sep=', ')"
    return run_command([str(python), "-c", code, *_PACKAGES]).splitlines()[-1]


def _words(flags: dict[str, Any]) -> list[str]:
    return [str(word) for pair in flags.items() for word in pair]
