"""Measure our whole training command against open_clip's, on the same shards with the same model, in turn.

Both train the same towers on the same number of pairs of the same shards, float32, on the CPU: crop as open_clip does
(area 0.9 to 1), open_clip's tokenizer, the clip loss, AdamW, a cosine, no gradient clipping, a log line every ten
steps, a checkpoint with the optimizer at the end, no evaluation. What is compared is pairs per second of the whole
command, from its start to its exit, and of its steps alone, those at the start left out. Without
``--open-clip-python`` only ours is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bimodal_cl.data import Manifest
from tests.benchmarks import loader
from tests.benchmarks.measure.command import run_command, time_command
from tests.benchmarks.measure.table import format_table

OPEN_CLIP_COMMAND = Path(__file__).with_name("open_clip_command.py")
LOG_EVERY = 10  # steps between log lines, and steps at the start that the rate of the steps leaves out
LEARNING_RATE, WEIGHT_DECAY, WARMUP_STEPS = 5e-4, 0.2, 10

TEXT = {"context_length": 30, "width": 128, "heads": 2, "layers": 2}
MODELS: dict[str, dict[str, Any]] = {
    "small": {  # configs/train/flickr8k_clip.yaml
        "embed_dim": 256,
        "image_size": 64,
        "vision": {"patch_size": 8, "width": 128, "head_width": 32, "layers": 4, "pool_type": "avg"},
        "text": TEXT,
    },
    "medium": {
        "embed_dim": 256,
        "image_size": 224,
        "vision": {"patch_size": 32, "width": 256, "head_width": 64, "layers": 6},
        "text": {**TEXT, "width": 256, "heads": 4},
    },
    "tiny": {
        "embed_dim": 16,
        "image_size": 32,
        "vision": {"patch_size": 16, "width": 32, "head_width": 16, "layers": 1},
        "text": {"context_length": 16, "width": 16, "heads": 1, "layers": 1},
    },
}


@dataclass(frozen=True)
class Result:
    """One run of a training command.

    Args:
        command: pairs per second, from the command's start to its exit.
        steps: pairs per second of its steps, without those at the start.
        cpu: milliseconds of CPU time a pair, of all processes of the command.
        account: milliseconds of a step by part, where the run took it.
        versions: of the packages that matter.
    """

    command: float
    steps: float
    cpu: float
    account: dict[str, float]
    versions: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument(
        "--open-clip-python", type=Path, help="interpreter that has open_clip_torch 3.3.0 and webdataset 0.2.86"
    )
    parser.add_argument("--shards", type=Path, help="folder of shards with a manifest, instead of shards made for it")
    parser.add_argument("--photos", type=Path, help="folder or tar of photos to make the pictures of")
    parser.add_argument("--num-photos", type=int, default=512, help="different pictures")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["small", "medium"], help="sizes of the model")
    parser.add_argument("--batch-size", type=int, default=128, help="pairs of a step")
    parser.add_argument("--num-workers", type=int, default=1, help="loader processes of each command")
    parser.add_argument("--num-steps", type=int, nargs="+", default=[40, 20], help="optimizer steps, for each model")
    parser.add_argument("--rounds", type=int, default=3, help="how often each command is run")


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    if arguments.quick:
        arguments.models, arguments.num_photos, arguments.batch_size = ["tiny"], 4, 4
        arguments.num_steps, arguments.rounds, arguments.num_workers = [40], 1, 0
    arguments.sides, arguments.num_samples = [], arguments.batch_size * max(arguments.num_steps)
    if arguments.open_clip_python:
        run_command([str(arguments.open_clip_python), "-c", "import open_clip_train.data"])
    with contextlib.ExitStack() as stack:
        folder = arguments.shards or stack.enter_context(loader.make_shards(arguments, arguments.num_workers))
        manifest = Manifest.load(folder)
        print(f"{manifest.num_images} samples in {len(manifest.shards)} shards")
        for number, name in enumerate(arguments.models):
            steps = arguments.num_steps[min(number, len(arguments.num_steps) - 1)]
            _compare(manifest, name, steps, arguments)


def _compare(manifest: Manifest, name: str, steps: int, arguments: argparse.Namespace) -> None:
    commands = {"ours": train_ours}
    if arguments.open_clip_python:
        commands["open_clip"] = train_open_clip
    results: dict[str, list[Result]] = {command: [] for command in commands}
    for _ in range(arguments.rounds):
        for command, train in commands.items():
            with tempfile.TemporaryDirectory() as temporary:
                results[command].append(train(manifest, MODELS[name], steps, arguments, Path(temporary)))
    vision, side = MODELS[name]["vision"], MODELS[name]["image_size"]
    print(
        f"\n{name}: {side} px, {vision['layers']} blocks of width {vision['width']}, {steps} steps of "
        f"{arguments.batch_size} pairs, {arguments.num_workers} workers; medians of {arguments.rounds}"
    )
    medians = {command: statistics.median(each.command for each in runs) for command, runs in results.items()}
    in_steps = {command: statistics.median(each.steps for each in runs) for command, runs in results.items()}
    rows = []
    for command, runs in results.items():
        speeds = [each.command for each in runs]
        rows.append(
            [
                command,
                f"{medians[command]:.1f}",
                f"{min(speeds):.1f} .. {max(speeds):.1f}",
                f"{medians[command] / medians[list(medians)[-1]]:.2f}",
                f"{in_steps[command]:.1f}",
                f"{in_steps[command] / in_steps[list(in_steps)[-1]]:.2f}",
                f"{statistics.median(each.cpu for each in runs):.2f}",
            ]
        )
    head = ["command", "pairs/s", "range", "ratio", "pairs/s in steps", "ratio", "CPU ms a pair"]
    print(format_table(head, rows))
    for command, runs in results.items():
        print(f"{command}: {runs[0].versions}")
    with tempfile.TemporaryDirectory() as temporary:
        accounts = {"ours": profile_ours(manifest, MODELS[name], max(10, steps // 2), arguments, Path(temporary))}
    if "open_clip" in results:
        parts = [each.account for each in results["open_clip"]]
        accounts["open_clip"] = {part: statistics.median(each[part] for each in parts) for part in parts[0]}
    print("\nms of a step by part (ours: by --profile-steps; open_clip's: medians of its runs):")
    parts = list(dict.fromkeys(part for account in accounts.values() for part in account))
    print(
        format_table(
            ["part", *accounts],
            [[part, *(f"{account.get(part, 0.0):.1f}" for account in accounts.values())] for part in parts],
        )
    )


def train_ours(
    manifest: Manifest, model: dict[str, Any], steps: int, arguments: argparse.Namespace, folder: Path
) -> Result:
    """Run ``bimodal-train`` once."""
    config = _write_config(manifest, model, steps, arguments, folder)
    took = time_command([sys.executable, "-m", "bimodal_cl.train", "--config", str(config)], arguments.threads)
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    late = [line for line in lines if line["event"] == "train"][1:]
    pairs = steps * arguments.batch_size
    rate = (steps - LOG_EVERY) * arguments.batch_size / sum(line["seconds"] for line in late)
    return Result(pairs / took.wall, rate, 1e3 * took.cpu / pairs, {}, "this checkout")


def profile_ours(
    manifest: Manifest, model: dict[str, Any], steps: int, arguments: argparse.Namespace, folder: Path
) -> dict[str, float]:
    """Run ``bimodal-train --profile-steps``; return milliseconds of a step by part, named as open_clip's are."""
    config = _write_config(manifest, model, 3 * steps, arguments, folder)
    command = [sys.executable, "-m", "bimodal_cl.train", "--config", str(config), "--profile-steps", str(steps)]
    time_command(command, arguments.threads)
    parts = {
        name: ranks[0]
        for name, ranks in json.loads((folder / "run/profile/steps.json").read_text())["milliseconds"].items()
    }
    account = {
        "wait for data": parts["wait for data"],
        "forward": parts["towers forward"],
        "loss": parts["loss"],
        "backward": parts["backward"],
        "optimizer": parts["optimizer"],
        "rest": parts["transfer"] + parts["log and rest"],
    }
    return {**account, "step": sum(account.values())}


def train_open_clip(
    manifest: Manifest, model: dict[str, Any], steps: int, arguments: argparse.Namespace, folder: Path
) -> Result:
    """Run open_clip's command once, in its own interpreter."""
    pairs = steps * arguments.batch_size
    flags = {
        "--train-data": loader.in_braces(manifest),
        "--dataset-type": "webdataset",
        "--train-num-samples": pairs,
        "--batch-size": arguments.batch_size,
        "--epochs": 1,
        "--workers": arguments.num_workers,
        "--precision": "fp32",
        "--device": "cpu",
        "--lr": LEARNING_RATE,
        "--wd": WEIGHT_DECAY,
        "--warmup": WARMUP_STEPS,
        "--beta1": 0.9,
        "--beta2": 0.98,
        "--eps": 1e-6,
        "--logs": folder,
        "--name": "run",
        "--log-every-n-steps": LOG_EVERY,
    }
    task = {
        "model": {
            "embed_dim": model["embed_dim"],
            "vision_cfg": {"image_size": model["image_size"], **model["vision"]},
            "text_cfg": model["text"],
        },
        "folder": str(folder),
        "arguments": [str(word) for pair in flags.items() for word in pair],
        "warm_up": LOG_EVERY,
    }
    command = [str(arguments.open_clip_python), str(OPEN_CLIP_COMMAND), json.dumps(task)]
    took = time_command(command, arguments.threads)
    found = json.loads(took.printed.splitlines()[-1])
    assert found["steps"] == steps, found
    rate = 1e3 * arguments.batch_size / found["account"]["step"]
    return Result(pairs / took.wall, rate, 1e3 * took.cpu / pairs, found["account"], found["versions"])


def _write_config(
    manifest: Manifest, model: dict[str, Any], steps: int, arguments: argparse.Namespace, folder: Path
) -> Path:
    values = {
        "output": str(folder / "run"),
        "data": {"train": str(manifest.folder), "num_workers": arguments.num_workers, "crop_scale": [0.9, 1.0]},
        "model": model,
        "loss": {"name": "clip"},
        "optim": {
            "learning_rate": LEARNING_RATE,
            "weight_decay": WEIGHT_DECAY,
            "warmup_steps": WARMUP_STEPS,
            "max_grad_norm": None,
        },
        "train": {
            "num_steps": steps,
            "global_batch_size": arguments.batch_size,
            "log_every": LOG_EVERY,
            "device": "cpu",
        },
        "checkpoint": {"every": steps},
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(values))  # YAML reads JSON
    return path
