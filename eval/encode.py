"""The model a command scores: which weights it has, where its results go, and the flags all scoring commands share."""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.text_files import read_text

if TYPE_CHECKING:
    import torch

    from bimodal_cl.models import DualEncoder

PRECISIONS = ("fp32", "bf16", "fp16")
# Where a folder's weights are, in the order in which they are looked for.
_WEIGHTS = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
)


@dataclass(frozen=True)
class ScoredModel:
    """A model and where it comes from.

    ``name`` and ``pretrained`` as in CLIP_benchmark's results: architecture and weights. ``checkpoint``: the folder
    the weights were read from, None for a published tag; ``sha256``: of its weights' file; ``step``: optimizer
    steps, None where nobody wrote them down; ``run``: the folder of the run it belongs to.
    """

    encoder: DualEncoder
    name: str
    pretrained: str
    checkpoint: Path | None = None
    sha256: str | None = None
    step: int | None = None
    run: Path | None = None

    def provenance(self) -> dict[str, Any]:
        """What the results say about the weights."""
        return {
            "checkpoint": str(self.checkpoint) if self.checkpoint else self.pretrained,
            "checkpoint_sha256": self.sha256,
            "step": self.step,
        }


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the models and the flags of every command that scores them."""
    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="+",
        help="a run's folder (its newest checkpoint), a checkpoint's folder, an open_clip pair ARCHITECTURE/WEIGHTS, "
        "or a Hugging Face CLIP folder",
    )
    parser.add_argument(
        "--batch-size", type=positive_integer, default=64, help="images decoded at once; no score depends on it"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto: cuda where there is one")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="type of the products (autocast)")
    parser.add_argument("--workers", type=natural_number, default=0, help="processes that decode; 0: this one")
    parser.add_argument("--name", default=None, help="the data set's name in the results (default: its folder's)")
    parser.add_argument(
        "--to",
        metavar="DIR",
        default=None,
        help="folder for the results (default: MODEL/results for a run, results/MODEL otherwise)",
    )


def positive_integer(text: str) -> int:
    """An integer of at least 1, for argparse."""
    if not re.fullmatch(r"\+?\d+", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, got '{text}'")
    return int(text)


def natural_number(text: str) -> int:
    """An integer of at least 0, for argparse."""
    if not re.fullmatch(r"\+?\d+", text):
        raise argparse.ArgumentTypeError(f"must be an integer of at least 0, got '{text}'")
    return int(text)


def resolve_device(name: str) -> torch.device:
    """The device a flag names.

    Raises:
        UserError: torch knows no such device, or this machine does not have it.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name}: {reason}{did_you_mean(name, ('auto', 'cpu', 'cuda', 'mps'))}") from None
    return device


def autocast_type(precision: str) -> torch.dtype | None:
    """What ``bimodal_cl.validation`` calls ``autocast``, from ``--precision``."""
    import torch

    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def open_model(given: str, device: torch.device) -> ScoredModel:
    """Load a model by path or tag, in evaluation mode, and establish which weights it has.

    Raises:
        UserError: there is no such model, or it cannot be read.
    """
    path = Path(given)
    if not path.exists():
        _refuse_near_miss(path)

    from bimodal_cl.models import load_model

    if not path.is_dir():
        architecture, _, weights = given.partition("/")
        return ScoredModel(load_model(given, device), architecture, weights)
    run = path if (path / "checkpoints").is_dir() else None
    # `latest` may move on while a run trains: load the very folder whose hash is written down.
    checkpoint = _newest_checkpoint(path) if run else path
    weights_file = next((checkpoint / name for name in _WEIGHTS if (checkpoint / name).is_file()), None)
    return ScoredModel(
        encoder=load_model(checkpoint, device),
        name=(checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint).resolve().name,
        pretrained=str(checkpoint),
        checkpoint=checkpoint,
        sha256=_hash_file(weights_file) if weights_file else None,
        step=_read_step(checkpoint),
        run=run,
    )


def result_folder(model: ScoredModel, given: str, to: str | None, num_models: int) -> Path:
    """Where a model's results go: ``--to`` (with a folder a model, where there are several), else beside the run."""
    if to is not None:
        return Path(to) / slug(given) if num_models > 1 else Path(to)
    return model.run / "results" if model.run else Path("results") / slug(given)


def slug(name: str) -> str:
    """A name that every file system takes as one file's."""
    return re.sub(r"[^\w.+-]+", "_", name.strip("/.")) or "unnamed"


def _refuse_near_miss(path: Path) -> None:
    """A folder's name with a typo is told from an open_clip pair by a folder that has nearly that name."""
    if path.parent.is_dir():
        folders = [each.name for each in path.parent.iterdir() if each.is_dir()]
        if difflib.get_close_matches(path.name, folders, n=1):
            raise UserError(f"MODEL {path}: no such folder{did_you_mean(path.name, folders)}")


def _newest_checkpoint(run: Path) -> Path:
    """The folder ``checkpoints/latest`` points to; the run itself where there is none, for ``load_model`` to refuse."""
    latest = run / "checkpoints" / "latest"
    if not latest.is_dir():
        return run
    beside = latest.with_name(latest.resolve().name)
    return beside if beside.is_dir() else latest.resolve()


def _read_step(checkpoint: Path) -> int | None:
    try:
        return int(json.loads(read_text(checkpoint / "state.json"))["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
