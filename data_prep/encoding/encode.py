"""Encode data sets by the towers of a config into one folder; see :mod:`bimodal_cl.data.features.manifest`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from bimodal_cl.cli.progress import note
from bimodal_cl.config.schema import Config
from bimodal_cl.config.yaml_files import load_config
from bimodal_cl.data import Manifest
from bimodal_cl.data.features.manifest import FEATURES_FILE, TOWERS_FOLDER, FeatureManifest, TowersRecord, show_setting
from bimodal_cl.data.shards.manifest import MANIFEST_NAME
from bimodal_cl.data.shards.mixture import Mixture
from bimodal_cl.errors import UserError
from bimodal_cl.files.checksums import hash_files, write_checksums
from bimodal_cl.files.locks import locked
from bimodal_cl.models import build_model
from bimodal_cl.models.features.join import read_towers
from bimodal_cl.models.features.towers import LockedTowers
from bimodal_cl.models.weights.file_names import WEIGHTS_FILE

from ..staging import PARTIAL, writable
from .features import encode_set


@dataclass(frozen=True)
class EncodeOptions:
    """How features are encoded.

    Args:
        views: augmented crops of each image besides the one of evaluation.
        device: ``auto``, ``cpu`` or ``cuda``.
        num_workers: processes that decode images.
        batch_size: images decoded at once.
        overwrite: replace features that were encoded otherwise.
    """

    views: int = 0
    device: str = "auto"
    num_workers: int = 0
    batch_size: int = 64
    overwrite: bool = False


def encode(data: Sequence[Path], config_file: str, to: Path, options: EncodeOptions) -> Iterator[str]:
    """Encode data sets that are not encoded yet, and yield a line for each.

    The features of a data set appear in their folder when they are complete. An interrupted command loses the data set
    that it was at.

    Args:
        data: folders of shards, or of such folders.
        config_file: a training config.
        to: the folder of the features.
        options: how they are encoded.

    Raises:
        UserError: data or config cannot be used, or the folder holds features of other towers.
    """
    manifests = _find_manifests(data)
    config = load_config([config_file])
    towers = _load_towers(config, config_file, options.device)
    with writable(to), locked(to):
        shutil.rmtree(to / PARTIAL, ignore_errors=True)
        try:
            sha256 = _keep_towers(towers, config, config_file, to, options.overwrite)
            for name, manifest in manifests.items():
                job = _describe(manifest, towers, config, options, sha256, to / name)
                if _is_done(job, options.overwrite):
                    yield f"{job.folder}: encoded before"
                    continue
                partial = to / PARTIAL / name
                partial.mkdir(parents=True)
                done = encode_set(manifest, towers, job, partial, options.num_workers, options.batch_size)
                done.save()
                write_checksums(partial)
                if job.folder.exists():
                    job.folder.rename(to / PARTIAL / "replaced")
                partial.rename(job.folder)
                shutil.rmtree(to / PARTIAL / "replaced", ignore_errors=True)
                left_out = f", {len(done.unusable):,} images not usable" if done.unusable else ""
                yield (
                    f"{job.folder}: {done.num_images:,} images x {1 + done.views} of {done.image_width} numbers, "
                    f"{done.num_texts:,} captions of {done.text_width}{left_out}"
                )
        finally:
            shutil.rmtree(to / PARTIAL, ignore_errors=True)


def _find_manifests(data: Sequence[Path]) -> dict[str, Manifest]:
    """Return the manifests by the names of their folders."""
    found: dict[str, Manifest] = {}
    for given in data:
        folders = [given]
        if not (given / MANIFEST_NAME).exists():
            folders = sorted(path.parent for path in given.glob(f"*/{MANIFEST_NAME}")) or [given]
        for folder in folders:
            name = folder.resolve().name
            if name == TOWERS_FOLDER or name in found:
                why = f"as {found[name].folder}" if name in found else "which the folder of the towers has"
                raise UserError(f"{folder}: its features would be named '{name}', {why}: encode it into another folder")
            found[name] = Manifest.load(folder)
    return found


def _load_towers(config: Config, config_file: str, device: str) -> LockedTowers:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: this machine has no GPU that torch can use")
    if config.model.pretrained is not None:
        raise UserError(
            f"{config_file}: model.pretrained: a model with trained heads needs no new ones; give the towers' own "
            "weights (model.vision.timm_checkpoint_path, model.text.hf_model_name)"
        )
    torch.manual_seed(config.seed)
    encoder = build_model(**config.model.model_dump(mode="json"))
    for line in encoder.notes:
        note(line)
    encoder.to(memory_format=torch.channels_last)
    return LockedTowers(encoder.to(device), config_file)


def _keep_towers(towers: LockedTowers, config: Config, config_file: str, to: Path, overwrite: bool) -> str:
    """Save the towers, or compare them with those that are there; return the hash of their weights' file."""
    folder, partial = to / TOWERS_FOLDER, to / PARTIAL / TOWERS_FOLDER
    record = TowersRecord(config.model.model_dump(mode="json"), "", towers.text_norm)
    _reset_heads(towers)
    towers.encoder.save(partial)
    if folder.exists():
        kept = TowersRecord.load(folder)
        why = _find_difference(kept, record, folder, partial, config_file)
        if why is None:
            shutil.rmtree(partial)
            return kept.sha256
        if not overwrite:
            raise UserError(
                f"{to}: {why}: choose another folder, or give --overwrite to replace them, after which other data "
                "sets in it are of no use and runs on it can no longer be loaded"
            )
        shutil.rmtree(folder)
    _add_settings(partial / WEIGHTS_FILE, record.settings)
    record = replace(record, sha256=hash_files(partial / WEIGHTS_FILE))
    record.save(partial)
    partial.rename(folder)
    return record.sha256


def _find_difference(
    kept: TowersRecord, record: TowersRecord, folder: Path, partial: Path, config_file: str
) -> str | None:
    """Say how the towers of a folder differ from new ones; heads may differ."""
    if difference := kept.find_difference(record.model):
        key, encoded, wanted = difference
        return f"its towers were built with {key}={encoded}, {config_file} has {wanted}"
    before, now = read_towers(folder), read_towers(partial)
    if before.keys() == now.keys() and all(torch.equal(before[name], now[name]) for name in now):
        return None
    return f"was encoded by other towers than those of {config_file}"


def _add_settings(weights: Path, settings: dict[str, Any]) -> None:
    """Write settings that have no weights, such as a pooler, into the weights' file: its hash stands for the towers.

    They are the only entry of its metadata, since safetensors writes several in a random order.
    """
    save_file(load_file(weights), weights, metadata={"settings": json.dumps(settings)})


@torch.no_grad()
def _reset_heads(towers: LockedTowers) -> None:
    """Set the heads, which are not used, to zero, so that nobody takes them for trained ones."""
    for part in (towers.encoder.visual.get_submodule("head"), towers.encoder.text.get_submodule("proj")):
        for parameter in part.parameters():
            parameter.zero_()


def _describe(
    manifest: Manifest, towers: LockedTowers, config: Config, options: EncodeOptions, sha256: str, folder: Path
) -> FeatureManifest:
    return FeatureManifest(
        folder=folder,
        shards=str(manifest.folder),
        digest=Mixture([manifest]).digest,
        num_images=manifest.num_images,
        num_texts=manifest.num_texts,
        image_width=towers.image_width,
        text_width=towers.text_width,
        views=options.views,
        crop_scale=(config.data.crop_scale[0], config.data.crop_scale[1]),
        flip=config.data.flip,
        seed=config.seed,
        towers_sha256=sha256,
    )


def _is_done(job: FeatureManifest, overwrite: bool) -> bool:
    """Return whether the features are there already.

    Raises:
        UserError: others are.
    """
    if not (job.folder / FEATURES_FILE).exists():
        if job.folder.exists():
            raise UserError(f"{job.folder}: exists and holds no features: choose another folder")
        return False
    old = FeatureManifest.load(job.folder)
    before_by_key = {"digest": old.digest, **old.identity}
    for key, now in {"digest": job.digest, **job.identity}.items():
        before = before_by_key.get(key)
        if before != now and not overwrite:
            raise UserError(
                f"{job.folder}: was encoded with {key} {show_setting(before)}, not {show_setting(now)}; "
                "give --overwrite"
            )
        if before != now:
            return False
    return True
