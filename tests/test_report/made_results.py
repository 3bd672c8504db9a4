"""Runs of four recipes with two seeds each, whose results are scored from drawn ranks, without a model."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save_file

from bimodal_cl.metrics import RankedQueries
from bimodal_cl.scoring.retrieval import score_retrieval
from bimodal_cl.scoring.uncertainty import Resampled, resample_classes, resample_retrieval
from eval.outcomes import write_outcomes

CLASSES = ["circle", "square", "triangle", "diamond", "bar", "a class of a rather long name"]
SKILL = {"clip": 0.35, "macl": 0.37, "sogclr": 0.5, "isogclr": 0.9}  # how far right answers are ahead
IMAGES = 300


def write_made_result(folder: Path, task: str, metrics: dict, resampled: Resampled, counts: dict, **more: Any) -> Path:
    result = {
        "dataset": "made",
        "model": "tiny",
        "pretrained": str(folder),
        "task": task,
        "metrics": metrics,
        "intervals": resampled.intervals(),
        "language": "en",
        "provenance": {
            "checkpoint": "checkpoints/step_00002000",
            "checkpoint_sha256": f"{abs(hash(folder)):064x}",
            "step": 2000,
            "data": "data/train",
            "counts": counts,
            "command": f"bimodal-eval score {folder}",
        },
        **more,
    }
    path = folder / f"{task}_made.json"
    write_outcomes(path, result, resampled.outcomes)
    path.write_text(json.dumps(result))
    return path


def write_retrieval(folder: Path, skill: float, seed: int, examples: list, captions: str = "made") -> Path:
    rng = np.random.default_rng(seed)
    owners = np.repeat(np.arange(IMAGES), 2)
    hard = np.random.default_rng(99).exponential(60, 2 * IMAGES)  # the same queries are hard for all models
    ranks = 1 + np.floor(hard * rng.uniform(0.3, 1, 2 * IMAGES) * (1 - skill)).astype(np.int64)
    best = ranks.reshape(-1, 2).min(axis=1)
    ranked = RankedQueries(ranks, best, 1 / best)
    texts = [f"{captions} {number}" for number in range(len(owners))]
    counts = {"num_images": IMAGES, "num_texts": len(owners), "num_skipped": 0}
    resampled = resample_retrieval(ranked, owners, texts)
    metrics = score_retrieval(ranked)
    backwards = [
        {
            "image_id": one["image_id"],
            "text_ids": [2 * one["image_id"], 2 * one["image_id"] + 1],
            "captions": [one["caption"]],
            "rank": 1,
            "top": [2 * one["image_id"], 5],
            "top_captions": [one["caption"], "another caption"],
        }
        for one in examples
    ]
    more = {"examples": examples, "caption_examples": backwards}
    return write_made_result(folder, "zeroshot_retrieval", metrics, resampled, counts, **more)


def write_zero_shot(folder: Path, skill: float, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    targets = np.repeat(np.arange(len(CLASSES)), 50)
    right = rng.random(len(targets)) < skill
    predictions = np.where(right, targets, rng.integers(0, len(CLASSES), len(targets)))
    ranks = np.where(predictions == targets, 1, rng.integers(2, len(CLASSES) + 1, len(targets)))
    resampled = resample_classes(ranks, predictions, targets, len(CLASSES), names=CLASSES)
    hits = predictions == targets
    metrics = {"acc1": float(hits.mean()), "acc5": float((ranks <= 5).mean()), "ece": 0.08}
    metrics["mean_per_class_recall"] = metrics["acc1"]
    counts = np.zeros((len(CLASSES), len(CLASSES)), dtype=int)
    np.add.at(counts, (targets, predictions), 1)
    edges = np.linspace(0, 1, 11)
    bins = [
        {"low": low, "high": high, "count": 30, "confidence": (low + high) / 2, "accuracy": 0.8 * (low + high) / 2}
        for low, high in pairwise(edges.tolist())
    ]
    path = write_made_result(
        folder,
        "zeroshot_classification",
        metrics,
        resampled,
        {"num_images": len(targets), "num_classes": len(CLASSES)},
        confusion_matrix={"classes": CLASSES, "counts": counts.tolist()},
        calibration={"temperature": 0.01, "fitted_temperature": 0.03, "bins": bins, "bins_fitted": bins},
    )
    result = json.loads(path.read_text())
    result["provenance"]["chance"] = {"acc1": 1 / len(CLASSES), "acc5": 5 / len(CLASSES)}
    path.write_text(json.dumps(result))
    return path


def make_runs(finished: Path, root: Path) -> list[Path]:
    """Copy a finished run for four losses and two seeds, each with results of its own."""
    config = yaml.safe_load((finished / "config.yaml").read_text())
    examples = json.loads((finished / "results/zeroshot_retrieval_retrieval.json").read_text())["examples"]
    runs = []
    for loss, skill in SKILL.items():
        for seed in (0, 1):
            run = root / f"{loss}_s{seed}"
            shutil.copytree(finished, run, symlinks=True, ignore=shutil.ignore_patterns("results", "report.html"))
            own = config["loss"] if loss == "isogclr" else {"name": loss}
            (run / "config.yaml").write_text(yaml.safe_dump({**config, "loss": own, "seed": seed, "output": str(run)}))
            if loss != "isogclr":
                save_file({"logit_scale": np.array(2.6, dtype=np.float32)}, run / "checkpoints/latest/loss.safetensors")
            (run / "results").mkdir()
            place = 10 * list(SKILL).index(loss) + seed
            write_retrieval(run / "results", skill + 0.01 * seed, place, examples)
            write_zero_shot(run / "results", skill, place)
            runs.append(run)
    return runs
