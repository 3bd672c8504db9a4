"""Build a run's model from its config: a dual encoder or, on encoded features, the heads of locked towers alone."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from open_clip import CLIPVisionCfg

from bimodal_cl.cli.progress import note
from bimodal_cl.config.checks import check_patches
from bimodal_cl.config.schema import Config
from bimodal_cl.data import Manifest
from bimodal_cl.data.features.manifest import TOWERS_FOLDER, FeatureManifest, TowersRecord, find_features, show_setting
from bimodal_cl.data.features.tables import FeatureTable, FeatureTables
from bimodal_cl.data.shards.mixture import Mixture
from bimodal_cl.errors import UserError
from bimodal_cl.models import DualEncoder, build_model
from bimodal_cl.models.architecture import Architecture
from bimodal_cl.models.features.heads import FeatureHeads, TowersReference, is_heads, load_heads
from bimodal_cl.models.load import load_saved
from bimodal_cl.models.weights.file_names import ARCHITECTURE_FILE
from bimodal_cl.scoring.evaluation import Evaluation
from bimodal_cl.scoring.retrieval import evaluate_features
from bimodal_cl.training.trained_parts import lock_towers


def build_model_of(config: Config, checkpoint: Path | None, accelerator: Accelerator) -> DualEncoder:
    """Build the dual encoder, or load the checkpoint's, and lock what is not trained.

    Raises:
        UserError: an unknown model, or weights that cannot be found or do not fit.
    """
    if checkpoint is None:
        model = build_model(**config.model.model_dump(mode="json"))
        for line in model.notes if accelerator.is_main_process else ():
            note(line)
    else:
        model = load_saved(checkpoint).train()
    model.to(memory_format=torch.channels_last)  # convolutions are up to twice as fast
    vision = model.architecture.vision
    if "timm_model_name" not in vision and not isinstance(vision.get("layers"), (list, tuple)):
        check_patches(model.image_size, vision.get("patch_size") or CLIPVisionCfg.patch_size)
    towers = {"image": config.optim.image, "text": config.optim.text}
    unlocked = {modality: tower.unlocked_groups if tower.lock else None for modality, tower in towers.items()}
    fresh = checkpoint is None and config.model.pretrained is None
    of_a_file = config.model.vision is not None and config.model.vision.timm_checkpoint_path is not None
    fresh_towers = {"image": fresh and not of_a_file, "text": fresh}
    lock_towers(model, unlocked, fresh_towers, config.optim.image.freeze_statistics)
    return model


def open_features(config: Config, mixture: Mixture) -> FeatureTables | None:
    """Open the features of the training data; None for a run on pixels.

    Raises:
        UserError: there are none of these shards, or they were encoded by other towers or crops than the config's.
    """
    if config.data.features is None:
        return None
    folder = Path(config.data.features)
    tables = FeatureTables([FeatureTable(each) for each in find_features(folder, mixture.manifests, "data.features")])
    towers = TowersRecord.load(folder / TOWERS_FOLDER)
    _require_same_towers(config, towers, tables.first)
    data, first = config.data, tables.first
    if not first.views and (idle := [key for key in ("crop_scale", "flip") if data.is_set(key)]):
        warnings.warn(
            f"data.{idle[0]} has no effect: the features in {folder} hold no augmented views; `bimodal-prep encode "
            "--views K` encodes some",
            stacklevel=2,
        )
    crops = {"crop_scale": tuple(data.crop_scale), "flip": data.flip}
    for key, used in crops.items() if first.views else ():
        if (encoded := getattr(first, key)) != used:
            raise UserError(
                f"data.{key}={show_setting(used)}, but the features in {folder} were encoded with "
                f"{show_setting(encoded)}: use the same, or encode them again"
            )
    return tables


def build_heads(config: Config, tables: FeatureTables, checkpoint: Path | None) -> FeatureHeads:
    """Build the heads that a run trains, or load those of a checkpoint.

    Raises:
        UserError: a head that cannot be trained on features, or a checkpoint that is damaged or of a run on images.
    """
    assert config.data.features is not None
    folder = Path(config.data.features) / TOWERS_FOLDER
    if checkpoint is not None:
        if not is_heads(checkpoint):
            raise UserError(
                f"checkpoint {checkpoint}: data.features was null, this config has {config.data.features}: resume "
                "without it, or start another run"
            )
        heads = load_heads(checkpoint)
        heads.towers = replace(heads.towers, folder=str(folder.absolute()))  # they may have been moved
        return heads.train()  # type: ignore[return-value]
    record = TowersRecord.load(folder)
    towers = Architecture.read(folder / ARCHITECTURE_FILE)
    model = config.model.model_dump(mode="json")
    vision, text = model["vision"], model["text"]
    architecture = replace(
        towers,
        embed_dim=model["embed_dim"],
        vision={**towers.vision, "timm_proj": vision.get("timm_proj"), "timm_drop": vision.get("timm_drop", 0.0)},
        text={**towers.text, "hf_proj_type": text.get("hf_proj_type")},
    )
    reference = TowersReference(str(folder.absolute()), record.sha256, record.text_norm)
    return FeatureHeads(architecture, reference, tables.moments())


def build_feature_evaluation(config: Config) -> Evaluation:
    """Open the features of the validation data.

    Raises:
        UserError: there are none of these shards, or they are of other towers.
    """
    if config.data.val is None:
        return Evaluation(None, None)
    assert config.data.features is not None
    manifest = Manifest.load(config.data.val)
    (found,) = find_features(Path(config.data.features), [manifest], "data.features")
    _require_towers_of(found, TowersRecord.load(found.folder.parent / TOWERS_FOLDER))
    return Evaluation(None, None, partial(evaluate_features, tables=FeatureTables([FeatureTable(found)])))


def _require_same_towers(config: Config, towers: TowersRecord, features: FeatureManifest) -> None:
    _require_towers_of(features, towers)
    if difference := towers.find_difference(config.model.model_dump(mode="json")):
        key, encoded, wanted = difference
        raise UserError(
            f"data.features={config.data.features}: its towers were built with {key}={encoded}, this config "
            f"has {wanted}: use the same, or encode with this config into another folder"
        )


def _require_towers_of(features: FeatureManifest, towers: TowersRecord) -> None:
    if features.towers_sha256 != towers.sha256:
        raise UserError(
            f"data.features={features.folder.parent}: {features.folder} was encoded by other towers than those in it "
            "now: encode it again"
        )
