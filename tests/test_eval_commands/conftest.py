"""A tiny saved model, tiny shards and tiny labelled images."""

from __future__ import annotations

import io
import json
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from bimodal_cl.models import build_model
from eval.cli import main
from tests.test_data.tiny_shards import write_manifest, write_tar

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (20, 40, 230), "white": (240, 240, 240)}
COLOURS |= {"black": (10, 10, 10), "yellow": (230, 220, 20)}


def draw(colour, seed, size=24):
    noise = np.random.default_rng(seed).integers(-25, 26, (size, size, 3))
    return Image.fromarray(np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8))


def as_png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def run_command(command, model, data, folder, *flags):
    """Score with a command that must succeed, and return the result that it writes into a folder."""
    assert main([command, str(model), "--data", str(data), "--to", str(folder), *map(str, flags)]) == 0
    (path,) = folder.glob("*.json")
    return json.loads(path.read_text())


retrieve, zero_shot = partial(run_command, "retrieval"), partial(run_command, "zero-shot")


@pytest.fixture(scope="session")
def tiny_model():
    """A vision transformer of one layer on 16 pixels and a text transformer of one layer; random weights."""
    torch.manual_seed(7)
    vision = {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    return build_model(embed_dim=16, vision=vision, text=text).eval()


@pytest.fixture(scope="session")
def run_folder(tiny_model, tmp_path_factory):
    """A run with two checkpoints of the tiny model; the second is the latest."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    for step in (4, 8):
        checkpoint = run / "checkpoints" / f"step_{step:08d}"
        checkpoint.mkdir(parents=True)
        tiny_model.save(checkpoint)
        (checkpoint / "state.json").write_text(json.dumps({"step": step}))
    (run / "checkpoints" / "latest").symlink_to("step_00000008")
    return run


@pytest.fixture
def shards(tmp_path):
    """Two shards of 11 images with one to three captions each."""
    folder = tmp_path / "colours" / "test"
    counts, drawn = [], 0
    for shard, rows in enumerate((7, 4)):
        members, num_texts = [], 0
        for row in range(rows):
            colour = list(COLOURS)[drawn % 6]
            captions = [f"{colour} number {drawn} {'seen again ' * extra}".strip() for extra in range(1 + drawn % 3)]
            members.append((f"{row:04d}.png", as_png(draw(colour, drawn))))
            members.append((f"{row:04d}.txt", "\n".join(captions).encode()))
            num_texts += len(captions)
            drawn += 1
        write_tar(folder / f"{shard:05d}.tar", members)
        counts.append((f"{shard:05d}.tar", rows, num_texts))
    write_manifest(folder, counts)
    return folder


@pytest.fixture
def class_folders(tmp_path):
    """Six classes with one to three images each, in ``test/``."""
    folder = tmp_path / "six_colours"
    for number, colour in enumerate(COLOURS):
        (folder / "test" / f"{colour}_square").mkdir(parents=True)
        for index in range(1 + number % 3):
            draw(colour, 100 * number + index).save(folder / "test" / f"{colour}_square" / f"{index}.png")
    return folder


@pytest.fixture
def wds_folder(tmp_path):
    """The same images in CLIP_benchmark's layout, with its own prompts."""
    folder = tmp_path / "wds_six_colours"
    names = sorted(COLOURS)
    members = []
    for number, colour in enumerate(COLOURS):
        for index in range(1 + number % 3):
            members.append((f"s{number}{index}.png", as_png(draw(colour, 100 * number + index))))
            members.append((f"s{number}{index}.cls", str(names.index(colour)).encode()))
    write_tar(folder / "test" / "0.tar", members)
    (folder / "test" / "nshards.txt").write_text("1\n")
    (folder / "classnames.txt").write_text("\n".join(names))
    (folder / "zeroshot_classification_templates.txt").write_text("a {c} tile\nthe colour {c}\n")
    return folder
