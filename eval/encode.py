"""Load the model that a command scores, identify its weights, and choose the folder of its results."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bimodal_cl.cli.arguments import natural_number, path_text, positive_integer
from bimodal_cl.cli.parser import Parser
from bimodal_cl.cli.processes import count_processes, local_rank
from bimodal_cl.cli.synonyms import find_value
from bimodal_cl.errors import UserError, did_you_mean, one_line
from bimodal_cl.files.checksums import hash_files
from bimodal_cl.models.locate.source import AVERAGED, TRAINED, WEIGHTS
from bimodal_cl.models.weights.file_names import EMA_FILE
from bimodal_cl.run_folder import STATE_FILE, RunFolder, read_state

if TYPE_CHECKING:
    import torch

    from bimodal_cl.models import DualEncoder

PRECISIONS = ("float32", "bf16", "fp16")
ENGLISH = "en"
_DEVICES = ("cuda", "cpu", "mps", "auto")
_DESCRIPTIONS = (".json", ".txt", ".model", ".yaml")  # endings of a model's files that are no weights


@dataclass(frozen=True)
class ScoredModel:
    """A model and where it comes from.

    Attributes:
        encoder: the model, in evaluation mode.
        name: the architecture, as in CLIP_benchmark's results.
        pretrained: the weights, likewise.
        checkpoint: the folder that the weights were read from; None for a published tag or a file alone.
        sha256: SHA-256 of the file of weights.
        step: optimizer steps; None where they are not recorded.
        run: the folder of the run that the model belongs to.
        descriptions_sha256: SHA-256 of the small files beside the weights, such as the tokenizer's; None without a
            folder.
        weights: of a checkpoint, ``model`` or, for the averaged weights, ``ema``; None for any other model.
        features: filled by ``eval.features``: which features came from the store, and which were kept there.
    """

    encoder: DualEncoder
    name: str
    pretrained: str
    checkpoint: Path | None = None
    sha256: str | None = None
    step: int | None = None
    run: Path | None = None
    weights: str | None = None
    descriptions_sha256: str | None = None
    features: list[dict[str, Any]] = field(default_factory=list)

    def provenance(self) -> dict[str, Any]:
        """Return what the results record about the weights."""
        return {
            "checkpoint": str(self.checkpoint) if self.checkpoint else self.pretrained,
            "checkpoint_sha256": self.sha256,
            "step": self.step,
            **({} if self.weights is None else {"weights": self.weights}),
        }

    def label(self, given: str) -> str:
        """Return the name of the model in a table.

        Args:
            given: how the user named it.
        """
        return f"{given} (EMA)" if self.weights == AVERAGED and not given.endswith(EMA_FILE) else given


def add_model_arguments(parser: Parser) -> None:
    """Add the argument ``MODEL`` and the flags that all scoring commands share."""
    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="+",
        type=path_text,
        help="a run's folder (its newest checkpoint), a checkpoint's or export's folder, an open_clip pair "
        "ARCHITECTURE/WEIGHTS, OpenAI's name ViT-B/32, a Hugging Face CLIP or SigLIP folder or hub repository, "
        "local-dir:FOLDER, hf-hub:ORGANISATION/NAME, a TorchScript file, or ARCHITECTURE:FILE",
    )
    add_weights_argument(parser)
    parser.add_argument(
        "--batch-size", type=positive_integer, default=64, help="images decoded at once; no score depends on it"
    )
    parser.add_argument(
        "--device",
        default="auto",
        help="cpu, cuda, cuda:1, ...; auto: cuda where there is one; several processes: one GPU each",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        type=_precision,
        default="float32",
        help="number type of the towers (autocast)",
    )
    parser.add_argument(
        "--num-workers",
        aliases=("--workers",),
        type=natural_number,
        default=0,
        help="processes that decode images; 0: decode in the main process",
    )
    parser.add_argument(
        "--cache",
        metavar="DIR",
        type=_cache_folder,
        help="keep features in this folder, and take those that an earlier command kept there; auto: "
        "$XDG_CACHE_HOME/bimodal_cl/features (default: none, keep nothing)",
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="score every checkpoint of the run MODEL, also those that it is yet to write, until it is finished",
    )
    parser.add_argument("--name", default=None, help="the data set's name in the results (default: its folder's)")
    parser.add_argument(
        "--language",
        metavar="CODE",
        default=ENGLISH,
        help="the language of the data's texts, such as de or zh, for the results",
    )
    parser.add_argument(
        "--to",
        metavar="DIR",
        type=path_text,
        help="folder for the results (default: MODEL/results for a run, results/MODEL otherwise)",
    )


def add_weights_argument(parser: Parser) -> None:
    """Add the flag that chooses between the weights of a checkpoint."""
    parser.add_argument(
        "--weights",
        choices=WEIGHTS,
        default=TRAINED,
        help="of a run or checkpoint: model, those that were trained; ema, their moving average, kept with ema.decay",
    )


def _cache_folder(text: str) -> str | None:
    """Return the folder of the features; None for ``none``, which overrides a file of arguments."""
    return None if text == "none" else path_text(text)


def _precision(text: str) -> str:
    """Return a precision by its name; ``fp32``, as open_clip writes it, is ``float32``."""
    return "float32" if text == "fp32" else text


def resolve_device(name: str) -> torch.device:
    """Return the device that ``--device`` names; of several processes, ``cuda`` and ``auto`` give each its own GPU.

    Raises:
        UserError: torch knows no such device, or this machine does not have it, or not one for each process.
    """
    import torch

    if name == "auto":
        on_cpu = os.environ.get("ACCELERATE_USE_CPU") == "true" or not torch.cuda.is_available()
        name = "cpu" if on_cpu else "cuda"
    if name == "cuda" and count_processes() > 1:
        name = f"cuda:{_own_gpu()}"
    try:
        device = torch.device(name)
    except RuntimeError:  # its message lists all kinds of processors that torch was ever built for
        meant = find_value(name, _DEVICES) or name
        raise UserError(f"--device {name}: no such device{did_you_mean(meant, _DEVICES)}") from None
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"--device {name}: this machine has none: {one_line(error)}") from None
    return device


def _own_gpu() -> int:
    """Return the number of this process's GPU.

    Raises:
        UserError: there are fewer GPUs than processes on this machine.
    """
    import torch

    number, there = local_rank(), torch.cuda.device_count()
    if number >= there:
        raise UserError(
            f"--device: process {number + 1} of this machine has no GPU of its own, there are {there}; start {there}, "
            "or let all use one with --device cuda:0"
        )
    return number


def autocast_type(precision: str) -> torch.dtype | None:
    """Return the type for autocast of a ``--precision``; None for float32, which needs none."""
    import torch

    return {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def open_model(given: str, device: torch.device, weights: str = TRAINED, heads_alone: bool = False) -> ScoredModel:
    """Load a model by any of its names, in evaluation mode, and identify its weights.

    Args:
        given: a name of a model.
        device: where to score it.
        weights: which weights of a checkpoint.
        heads_alone: load the heads of locked towers, which take encoded features, and not the towers.

    Raises:
        UserError: there is no such model, it has no averaged weights, it cannot be read, or a file of it was removed
            meanwhile, as a training that goes on removes old checkpoints.
    """
    from bimodal_cl.models.features.heads import is_heads, load_heads
    from bimodal_cl.models.load import load_source
    from bimodal_cl.models.locate.names import locate_model

    source = locate_model(given, "MODEL", weights)
    if heads_alone and (source.folder is None or not is_heads(source.folder)):
        raise UserError(f"MODEL '{given}': --features scores runs of data.features alone; leave --features out")
    try:
        encoder = (
            load_heads(source.folder, source.weights.name) if heads_alone and source.folder else load_source(source)
        )
        return ScoredModel(
            encoder=encoder.to(device).eval(),
            name=source.name,
            pretrained=source.pretrained,
            checkpoint=source.folder,
            sha256=_hash_weights(source.weights),
            step=None if source.folder is None else _read_step(source.folder),
            run=source.run,
            weights=source.of_checkpoint,
            descriptions_sha256=None if source.folder is None else _hash_descriptions(source.folder),
        )
    except FileNotFoundError as error:
        missing = error.filename or one_line(error)
        raise UserError(f"MODEL '{given}': a file was removed while the model was read: {missing}") from None


def result_folder(run: Path | None, given: str, to: str | None, models: Sequence[str]) -> Path:
    """Return the folder of a model's results: ``--to`` (several models: a sub-folder for each), or the run's own."""
    if to is None and run is not None:
        return RunFolder(run).results
    if to is not None and len(models) == 1:
        return Path(to)
    folder = slug(given)
    if any(other != given and slug(other) == folder for other in models):  # such as a/b and a_b
        folder += f"-{hashlib.sha256(given.encode()).hexdigest()[:6]}"
    return Path("results" if to is None else to) / folder


def slug(name: str) -> str:
    """Return a name that is a valid file name everywhere; ``:`` becomes ``=``, so that ``a:b`` and ``a/b`` differ."""
    return re.sub(r"[^\w.+=@-]+", "_", name.replace(":", "=").strip("/.")) or "unnamed"


def _read_step(checkpoint: Path) -> int | None:
    try:
        return int(read_state(checkpoint)["step"])
    except (UserError, KeyError, TypeError, ValueError):
        return None


def _hash_weights(path: Path) -> str:
    """Return the SHA-256 of a file of weights, or of all the shards of an index in their order."""
    shards = [path]
    if path.name.endswith(".index.json"):
        names = json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()
        shards = [path.with_name(name) for name in sorted(set(names))]
    return hash_files(*shards)


def _hash_descriptions(folder: Path) -> str:
    there = sorted([*folder.glob("*"), *folder.glob("tokenizer/*")])
    files = [path for path in there if path.suffix in _DESCRIPTIONS and path.is_file()]
    named = {path.relative_to(folder).as_posix(): hash_files(path) for path in files if path.name != STATE_FILE}
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()
