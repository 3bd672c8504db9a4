"""Train a small model on Flickr8k with our commands and export it, where no model is given."""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

from bimodal_cl.errors import UserError
from tests.benchmarks.measure.command import run_command
from tests.benchmarks.measure.machine import ROOT

CONFIG = ROOT / "configs/train/flickr8k_clip.yaml"


def make_model(source: Path, folder: Path, num_steps: int) -> Path:
    """Prepare Flickr8k, train for some steps of ``configs/train/flickr8k_clip.yaml``, and export.

    Args:
        source: folder of ``flickr8k.tar``.
        folder: where raw data, shards, run and export are written.
        num_steps: optimizer steps.

    Returns:
        The export's folder.

    Raises:
        UserError: the tar is missing, or a command fails.
    """
    raw, shards, run, export = (folder / name for name in ("raw", "shards", "run", "export"))
    try:
        with tarfile.open(source / "flickr8k.tar") as tar:
            tar.extractall(raw, filter="data")
    except (OSError, tarfile.TarError) as error:
        raise UserError(f"{source / 'flickr8k.tar'}: cannot be read: {error}") from None
    (listing,) = raw.rglob("*.json")
    images = next(path for path in raw.rglob("*") if path.is_dir() and path.name == "images")
    prepare = ["write", "karpathy", "--json", str(listing), "--images", str(images), "--to", str(shards)]
    train = ["--config", str(CONFIG), "--output", str(run), "--data.train", str(shards / "train")]
    train += ["--data.val", str(shards / "val"), "--train.num_epochs", "null", "--train.num_steps", str(num_steps)]
    for module, words in {
        "data_prep.cli": prepare,
        "bimodal_cl.train": train,
        "eval.cli": ["export", str(run), "--to", str(export)],
    }.items():
        run_command([sys.executable, "-m", module, *words])
    return export
