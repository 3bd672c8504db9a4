"""A small finished run: shards with drawn pictures, tables, a log and results of an evaluation."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw
from safetensors.numpy import save_file

from eval import cli
from tests.test_data.tiny_shards import write_manifest, write_tar
from tests.test_report.made_results import make_runs

COLORS = {"red": "#d33", "green": "#2a2", "blue": "#33d", "yellow": "#dc2", "purple": "#82b", "orange": "#e80"}
SHAPES = ("circle", "square", "triangle", "diamond", "bar")
CONCEPTS = [f"{color} {shape}" for color in COLORS for shape in SHAPES]
NUM_SHARDS, ROWS = 3, 60
NUM_IMAGES = NUM_SHARDS * ROWS
HOSTILE = "a <script>alert('x')</script> & \"red circle\" with $math$ in it"


def draw(concept: str, rng: np.random.Generator) -> bytes:
    color, shape = concept.split()
    image = Image.new("RGB", (64, 64), tuple(rng.integers(215, 250, 3).tolist()))
    x, y = rng.integers(20, 44, 2).tolist()
    side = int(rng.integers(9, 17))
    points = {
        "triangle": [(x, y - side), (x - side, y + side), (x + side, y + side)],
        "diamond": [(x, y - side), (x - side, y), (x, y + side), (x + side, y)],
        "square": [(x - side, y - side), (x + side, y - side), (x + side, y + side), (x - side, y + side)],
        "bar": [(x - side, y - 5), (x + side, y - 5), (x + side, y + 5), (x - side, y + 5)],
    }
    pen = ImageDraw.Draw(image)
    if shape == "circle":
        pen.ellipse((x - side, y - side, x + side, y + side), fill=COLORS[color])
    else:
        pen.polygon(points[shape], fill=COLORS[color])
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return stream.getvalue()


def write_shards(folder: Path) -> list[str]:
    """Write shards of two captions an image and return each image's concept, Zipf-distributed."""
    rng = np.random.default_rng(0)
    weights = 1 / np.arange(1, len(CONCEPTS) + 1)
    concepts = [CONCEPTS[index] for index in rng.choice(len(CONCEPTS), NUM_IMAGES, p=weights / weights.sum())]
    counts = []
    for shard in range(NUM_SHARDS):
        path = folder / f"{shard:05d}.tar"
        members = []
        for image_id in range(shard * ROWS, (shard + 1) * ROWS):
            concept = concepts[image_id]
            first = HOSTILE if image_id == 7 else f"there is a {concept} on a pale ground"
            captions = f"{first}\nthe picture shows one {concept}\n".encode()
            members += [(f"{image_id:06d}.jpg", draw(concept, rng)), (f"{image_id:06d}.txt", captions)]
        write_tar(path, members)
        counts.append((path.name, ROWS, 2 * ROWS))
    write_manifest(folder, counts)
    drawn = [{"concept": concept, "count": concepts.count(concept)} for concept in CONCEPTS]
    (folder.parent / "concepts.json").write_text(json.dumps({"concepts": drawn}))
    return concepts


def write_log(path: Path, steps: int) -> None:
    rng = np.random.default_rng(1)
    lines = []
    for step in range(10, steps + 1, 10):
        done = step / steps
        lines.append(
            {
                "event": "train",
                "step": step,
                "epoch": step // 100,
                "samples_seen": step * 64,
                "loss": 2.2 * np.exp(-3 * done) + 0.3 + 0.08 * rng.standard_normal(),
                "tau_image": 0.01 + 0.03 * done + 0.001 * rng.standard_normal(),
                "tau_text": 0.01 + 0.045 * done + 0.001 * rng.standard_normal(),
                "tau_image_p05": 0.007 + 0.01 * done,
                "tau_image_p95": 0.014 + 0.06 * done,
                "tau_text_p05": 0.006 + 0.02 * done,
                "tau_text_p95": 0.014 + 0.08 * done,
                "uniformity_image": -3.4 * done - 0.1,
                "uniformity_text": -3.1 * done - 0.2,
                "alignment": 0.75 * (1 - np.exp(-4 * done)) + 0.01 * rng.standard_normal(),
                "learning_rate": 5e-4 * min(done / 0.1, 0.5 * (1 + np.cos(np.pi * done))),
                "grad_norm": 1.0,
                "samples_per_second": 210 + 5 * rng.standard_normal(),
                "seconds": 3.1,
            }
        )
        if step % (steps // 10) == 0:
            score = {"event": "evaluate", "step": step, "epoch": step // 100}
            for direction, top in (("image_retrieval", 0.71), ("text_retrieval", 0.66)):
                for cut, factor in ((1, 0.45), (5, 1.0), (10, 1.2)):
                    score[f"retrieval/{direction}_recall@{cut}"] = top * factor * (1 - np.exp(-4 * done))
            score["zero_shot/acc1"], score["zero_shot/acc5"] = 0.63 * done**0.5, 0.9 * done**0.4
            lines.append(score)
    lines.append({"event": "summary", "step": steps, "seconds": steps * 0.31})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_tables(checkpoint: Path, concepts: list[str]) -> None:
    """Tables in which frequent concepts have large temperatures and the last 5 images were never visited."""
    rng = np.random.default_rng(2)
    rank = np.array([CONCEPTS.index(concept) for concept in concepts])
    tables = {}
    for kind, ranks, center in (("image", rank, 0.03), ("text", np.repeat(rank, 2), 0.045)):
        size = len(ranks)
        tau = np.clip(center * np.exp(-0.03 * ranks + 0.35 * rng.standard_normal(size)), 0.005, 1).astype(np.float32)
        log_u = rng.normal(-2, 1, size).astype(np.float32)
        never = slice(size - 5 * (1 if kind == "image" else 2), None)
        log_u[never], tau[never] = -np.inf, 0.01
        tables |= {f"{kind}_anchors.tau": tau, f"{kind}_anchors.log_u": log_u, f"{kind}_anchors.tau_grad": 0 * tau}
    save_file(tables, checkpoint / "loss.safetensors")


def write_results(folder: Path, concepts: list[str], data: str) -> None:
    folder.mkdir()
    rng = np.random.default_rng(3)
    same = {concept: [i for i, each in enumerate(concepts) if each == concept] for concept in concepts}
    examples = []
    for image_id in rng.choice(NUM_IMAGES, 12, replace=False).tolist():
        near = [each for each in same[concepts[image_id]] if each != image_id][:4]
        rank = int(rng.choice([1, 1, 2, 4, 9, 31]))
        top = (near + rng.choice(NUM_IMAGES, 9, replace=False).tolist())[:5]
        if rank <= 5:
            top.insert(rank - 1, image_id)
        top = list(dict.fromkeys(top))[:5]
        caption = f"there is a {concepts[image_id]} on a pale ground"
        examples.append({"caption": caption, "text_id": 2 * image_id, "image_id": image_id, "rank": rank, "top": top})
    provenance = {"checkpoint": "checkpoints/step_00002000", "step": 2000, "data": data}
    head = {"model": "tiny", "pretrained": "runs/demo", "language": "en"}
    recalls = {
        f"{kind}_retrieval_recall@{cut}": value
        for kind, base in (("image", 0.31), ("text", 0.28))
        for cut, value in ((1, base), (5, 2.2 * base), (10, 2.7 * base))
    }
    retrieval = {
        **head,
        "dataset": "retrieval",
        "task": "zeroshot_retrieval",
        "metrics": {**recalls, "image_retrieval_median_rank": 3.0, "text_retrieval_median_rank": 4.0},
        "provenance": {**provenance, "counts": {"images": 500, "texts": 1000}},
        "examples": examples,
    }
    per_class = [
        {"class": each, "count": 20, "recall": float(value)}
        for each, value in zip(CONCEPTS, np.linspace(0.95, 0, len(CONCEPTS)).round(2), strict=True)
    ]
    zero_shot = {
        **head,
        "dataset": "concepts",
        "task": "zeroshot_classification",
        "metrics": {"acc1": 0.634, "acc5": 0.912, "mean_per_class_recall": 0.634},
        "provenance": {**provenance, "counts": {"images": 600, "classes": 30}},
        "per_class": per_class,
        "confusions": [{"class": CONCEPTS[-1 - i], "predicted": CONCEPTS[-2 - i], "count": 17 - i} for i in range(15)],
    }
    (folder / "zeroshot_retrieval_retrieval.json").write_text(json.dumps(retrieval))
    (folder / "zeroshot_classification_concepts.json").write_text(json.dumps(zero_shot))


def make_run(root: Path, steps: int = 2000) -> Path:
    """Write ``root/data/...`` and the run ``root/runs/demo``, whose config names the data relative to it."""
    concepts = write_shards(root / "data" / "train")
    run = root / "runs" / "demo"
    checkpoint = run / "checkpoints" / f"step_{steps:08d}"
    checkpoint.mkdir(parents=True)
    config = {
        "data": {"train": "data/train", "val": "data/retrieval", "image_size": 64},
        "model": {
            "embed_dim": 128,
            "vision": {"layers": 4, "width": 192, "patch_size": 8},
            "text": {"layers": 3, "width": 192, "context_length": 32},
        },
        "loss": {"name": "isogclr", "tau_init": 0.01, "tau_min": 0.005, "rho": 4.0, "rho_fraction": None},
        "optim": {"learning_rate": 5e-4, "weight_decay": 0.1, "warmup_steps": 200, "betas": [0.9, 0.98]},
        "train": {"batch_size": 64, "epochs": 20, "precision": "no", "seed": 0},
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    write_log(run / "metrics.jsonl", steps)
    write_tables(checkpoint, concepts)
    (checkpoint / "state.json").write_text(json.dumps({"step": steps, "epoch": 19}))
    (run / "checkpoints" / "latest").symlink_to(checkpoint.name)
    write_results(run / "results", concepts, "data/train")
    return run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that no test may change; see ``run``."""
    return make_run(tmp_path_factory.mktemp("project"))


@pytest.fixture
def run(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished run that a test may change, with its data found from the working directory."""
    monkeypatch.chdir(finished_run.parents[1])
    return shutil.copytree(finished_run, tmp_path / "demo", symlinks=True)


@pytest.fixture(scope="session")
def finished_runs(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Eight runs of four losses that no test may change; see ``made_runs``."""
    return make_runs(finished_run, finished_run.parents[1] / "compared")


@pytest.fixture
def made_runs(finished_runs: list[Path], tmp_path: Path) -> list[Path]:
    """Copies of the eight runs that a test may change."""
    copies = tmp_path / "runs"
    shutil.copytree(finished_runs[0].parent, copies, symlinks=True)
    return [copies / run.name for run in finished_runs]


@pytest.fixture(scope="session")
def compared(finished_runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page, the tables and the figures of the eight runs."""
    folder = tmp_path_factory.mktemp("written")
    words = ["--to", folder / "report.html", "--tables", folder / "tables", "--figures", folder / "figures"]
    assert cli.main(["report", *map(str, [*finished_runs, *words])]) == 0
    return folder
