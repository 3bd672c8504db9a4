"""Export a model for open_clip, transformers and ONNX, with a model card, and upload it to the Hugging Face hub."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bimodal_cl.cli.arguments import path_text
from bimodal_cl.cli.parser import Parser
from bimodal_cl.errors import UserError
from bimodal_cl.models.export.file_names import HUGGINGFACE_FOLDER, IMAGE_FILE, TEXT_FILE
from bimodal_cl.models.locate.source import TRAINED
from bimodal_cl.models.weights.file_names import OPEN_CLIP_CONFIG, OPEN_CLIP_MODEL_CONFIG, OPEN_CLIP_STATE_DICT

from ..encode import ScoredModel, add_weights_argument, open_model
from ..results import versions
from .staging import MARKER, check_target, staged_folder

if TYPE_CHECKING:
    from bimodal_cl.models.export.folder import Formats


def add_arguments(parser: Parser) -> None:
    """Add the sub-command's arguments."""
    parser.add_argument(
        "run",
        metavar="RUN",
        type=path_text,
        help="a run's folder (its newest checkpoint), a checkpoint's folder, or any other name of a model",
    )
    parser.add_argument("--to", metavar="DIR", type=path_text, required=True, help="a new or empty folder")
    add_weights_argument(parser)
    parser.add_argument("--onnx", action="store_true", help="also write both towers as image.onnx and text.onnx")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export in --to")
    parser.add_argument("--name", default=None, help="the model's name in its card (default: the name of RUN)")
    parser.add_argument("--license", metavar="ID", default="other", help="the model card's licence, such as mit")
    parser.add_argument(
        "--push-to-hub", metavar="OWNER/NAME", default=None, help="also upload the folder to the Hugging Face hub"
    )
    parser.add_argument("--private", action="store_true", help="make a new repository of the hub private")


def run(args: argparse.Namespace) -> None:
    """Write the folder, print what it holds, and upload it where that is asked for.

    Raises:
        UserError: no such model, a folder that holds other files, or an ONNX file that cannot be written.
        RunStopped: the disk is full, say.
        ServerFailed: the hub cannot be reached; the folder is complete.
    """
    target = Path(args.to)
    check_target(target, args.overwrite)
    if args.private and not args.push_to_hub:
        raise UserError("--private has no effect without --push-to-hub")
    if args.push_to_hub:
        from .hub import check_repository

        check_repository(args.push_to_hub)
    if args.onnx:
        from bimodal_cl.models.export.onnx_files import require_onnx

        require_onnx()
    exported = export_model(args.run, target, args.name, args.onnx, args.license, args.weights)
    print("\n".join(exported.describe()))
    if args.push_to_hub:
        print(push(exported, args.push_to_hub, args.private))


@dataclass(frozen=True)
class Exported:
    """A model that was exported.

    Attributes:
        folder: the exported folder.
        name: of the model in its card.
        model: the model and where it comes from.
        formats: what the folder holds.
        licence: the hub's identifier of a licence.
    """

    folder: Path
    name: str
    model: ScoredModel
    formats: Formats
    licence: str

    def card(self, repository: str | None = None) -> str:
        """Return the model card, for the folder or for a repository of the hub."""
        from .model_card import format_card

        return format_card(self.name, self.folder.name, repository, self.model, self.formats, self.licence)

    def describe(self) -> list[str]:
        """Return the lines that say how the folder can be loaded, and which format is missing and why."""
        folder, formats = self.folder, self.formats
        lines = [f"{folder}: bimodal_cl loads it by load_model"]
        if formats.open_clip:
            lines.append(f"  open_clip     local-dir:{folder}, {folder / OPEN_CLIP_STATE_DICT}")
        if formats.huggingface:
            lines.append(f"  transformers  {formats.huggingface}: {folder / HUGGINGFACE_FOLDER}")
        if formats.onnx:
            lines.append(f"  ONNX          {folder / IMAGE_FILE}, {folder / TEXT_FILE}")
        return lines + [f"  {line}" for line in formats.remarks]


def export_model(
    given: str,
    target: Path,
    name: str | None = None,
    onnx: bool = False,
    licence: str = "other",
    weights: str = TRAINED,
) -> Exported:
    """Write a model into a folder in every format that can hold it, with its card and ``export.json``.

    Args:
        given: any name of a model.
        target: the folder, which :func:`check_target` has accepted.
        name: of the model in its card; None: that of its run or architecture.
        onnx: write ONNX files as well.
        licence: the hub's identifier of a licence.
        weights: which weights of a checkpoint.

    Raises:
        UserError: no such model, no averaged weights, or ONNX is not possible.
        RunStopped: a file cannot be written.
    """
    import torch

    from bimodal_cl.models.export.folder import write_formats

    model = _with_run(open_model(given, torch.device("cpu"), weights))
    home = target.resolve()
    with staged_folder(target) as folder:
        formats = write_formats(model.encoder, folder, str(home), onnx)
        exported = Exported(target, name or model.name, model, formats, licence)
        (folder / "README.md").write_text(exported.card(), "utf-8")
        record = {"version": 1, **model.provenance(), "formats": asdict(formats), "versions": versions()}
        (folder / MARKER).write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    return exported


def push(exported: Exported, repository: str, private: bool = False) -> str:
    """Upload an exported folder; its card and its config name the repository in place of the folder.

    Args:
        exported: from :func:`export_model`.
        repository: ``OWNER/NAME``.
        private: make a new repository private.

    Returns:
        The address of the repository.

    Raises:
        UserError: the hub refuses it.
        ServerFailed: the hub cannot be reached or fails.
    """
    from bimodal_cl.models.export.open_clip_folder import open_clip_config

    from .hub import push_folder

    replaced = {"README.md": exported.card(repository)}
    if exported.formats.open_clip:
        config = open_clip_config(exported.model.encoder.architecture, repository)
        replaced[OPEN_CLIP_CONFIG] = json.dumps(config, indent=2) + "\n"
        replaced[OPEN_CLIP_MODEL_CONFIG] = json.dumps(config["model_cfg"], indent=2) + "\n"
    replaced[MARKER] = json.dumps({"version": 1, "formats": asdict(exported.formats), "versions": versions()}) + "\n"
    return push_folder(exported.folder, repository, {name: text.encode() for name, text in replaced.items()}, private)


def _with_run(model: ScoredModel) -> ScoredModel:
    """Return the model with its run, also where a checkpoint of the run was named."""
    if model.run is not None or model.checkpoint is None:
        return model
    parent = model.checkpoint.absolute().parent
    return replace(model, run=parent.parent) if parent.name == "checkpoints" else model
