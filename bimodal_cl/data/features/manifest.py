"""Name the files of encoded features, and read and write what describes them.

``bimodal-prep encode`` writes one folder for each pair of locked towers::

    DIR/towers/             the towers as a saved model, and towers.json
    DIR/NAME/features.json  one folder for each data set that they encoded
    DIR/NAME/images.npy     float16 [1 + views, num_images, width]: the evaluation crop, then augmented ones
    DIR/NAME/texts.npy      float16 [num_texts, width]
    DIR/NAME/first_text_ids.npy  int64 [num_images + 1]
    DIR/NAME/moments.npz    mean and variance of each feature, float64
    DIR/NAME/SHA256SUMS     checksums of all of them

Rows are ``image_id`` and ``text_id``, so the tables belong to the manifest of the shards, whose digest they carry.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from bimodal_cl.data.shards.faults import Fault
from bimodal_cl.data.shards.manifest import Manifest
from bimodal_cl.data.shards.mixture import Mixture
from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.files.atomic import write_atomically
from bimodal_cl.files.json_files import read_mapping

FEATURES_FILE, TOWERS_FOLDER, TOWERS_FILE = "features.json", "towers", "towers.json"
IMAGES_FILE, TEXTS_FILE = "images.npy", "texts.npy"
FIRST_TEXTS_FILE, MOMENTS_FILE = "first_text_ids.npy", "moments.npz"
_VERSION = 1
# What a head may be is free; the features are of what comes before it.
_HEAD_KEYS = {"embed_dim", "vision.timm_proj", "vision.timm_drop", "text.hf_proj_type"}


@dataclass(frozen=True)
class FeatureManifest:
    """What the features of one data set are of.

    Args:
        folder: of the features.
        shards: folder of the shards when they were encoded; the digest counts, not the folder.
        digest: of the shards, from :attr:`~bimodal_cl.data.shards.mixture.Mixture.digest`.
        num_images, num_texts: rows of the tables.
        image_width, text_width: numbers of a feature.
        views: augmented crops of each image, after the one of evaluation.
        crop_scale, flip, seed: how these were drawn; view ``v`` is that of epoch ``v - 1`` of a run with this seed.
        towers_sha256: of the towers' weights.
        unusable: images without a feature, or without a caption.
    """

    folder: Path
    shards: str
    digest: str
    num_images: int
    num_texts: int
    image_width: int
    text_width: int
    views: int
    crop_scale: tuple[float, float]
    flip: bool
    seed: int
    towers_sha256: str
    unusable: tuple[Fault, ...] = field(default=(), hash=False)

    @property
    def identity(self) -> dict[str, Any]:
        """What makes the features of given shards: the towers, and how images were augmented, if they were."""
        crops = {"crop_scale": list(self.crop_scale), "flip": self.flip, "seed": self.seed} if self.views else {}
        return {"towers_sha256": self.towers_sha256, "views": self.views, **crops}

    def save(self) -> None:
        """Write ``folder/features.json`` by an atomic rename."""
        values = {key: value for key, value in asdict(self).items() if key != "folder"}
        write_atomically(self.folder / FEATURES_FILE, json.dumps({"version": _VERSION, **values}, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> FeatureManifest:
        """Read ``folder/features.json``.

        Raises:
            UserError: it cannot be read, has another version, or keys are missing or unknown.
        """
        path = folder / FEATURES_FILE
        values = read_mapping(path)
        if values.pop("version", None) != _VERSION:
            raise UserError(f"{path}: its version is not {_VERSION}, the one this program reads")
        known = [entry.name for entry in fields(cls) if entry.name != "folder"]
        for key in values:
            if key not in known:
                raise UserError(f"{path}: unknown key '{key}'{did_you_mean(key, known)}")
        if missing := [key for key in known if key not in values]:
            raise UserError(f"{path}: key '{missing[0]}' is missing")
        for key in ("num_images", "num_texts", "image_width", "text_width", "views", "seed"):
            if type(values[key]) is not int:
                raise UserError(f"{path}: {key} must be a whole number, got {values[key]!r}")
        try:
            values["unusable"] = tuple(Fault(**each) for each in values["unusable"])
            values["crop_scale"] = tuple(values["crop_scale"])
        except TypeError as error:
            raise UserError(f"{path}: {error}") from None
        return cls(folder, **values)


@dataclass(frozen=True)
class TowersRecord:
    """What the towers of encoded features are.

    Args:
        model: the section ``model`` of the config that they were built from.
        sha256: of the file of their weights, which holds the settings of the towers as well.
        text_norm: name of the text tower's last module, a layer norm with weight and bias whose outputs are pooled; ""
            where it has none.
    """

    model: dict[str, Any]
    sha256: str
    text_norm: str

    def save(self, folder: Path) -> None:
        """Write ``folder/towers.json``."""
        write_atomically(folder / TOWERS_FILE, json.dumps({"version": _VERSION, **asdict(self)}, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> TowersRecord:
        """Read ``folder/towers.json``.

        Raises:
            UserError: it cannot be read, or is not what :meth:`save` writes.
        """
        values = read_mapping(folder / TOWERS_FILE)
        if values.pop("version", None) != _VERSION:
            raise UserError(f"{folder / TOWERS_FILE}: its version is not {_VERSION}, the one this program reads")
        try:
            return cls(**values)
        except TypeError as error:
            raise UserError(f"{folder / TOWERS_FILE}: {error}") from None

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of :attr:`model` that the features depend on, by their dotted keys, in order."""
        return _tower_settings(self.model)

    def find_difference(self, model: Mapping[str, Any]) -> tuple[str, str, str] | None:
        """Return the first setting of another section ``model`` that gives other features: key, value here and there.

        None if there is none; settings of the heads do not count.
        """
        here, there = self.settings, _tower_settings(model)
        for key in sorted({*here, *there}):
            if here.get(key) != there.get(key):
                return f"model.{key}", show_setting(here.get(key)), show_setting(there.get(key))
        return None


def show_setting(value: Any) -> str:
    """Return a setting's value for a message; ``null`` where it is not given."""
    return "null" if value is None else str(list(value) if isinstance(value, tuple) else value)


def _tower_settings(model: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in sorted(model.items()):
        name = prefix + key
        if isinstance(value, Mapping):
            flat |= _tower_settings(value, f"{name}.")
        elif name not in _HEAD_KEYS:
            flat[name] = value
    return flat


def find_features(folder: Path, manifests: Iterable[Manifest], key: str) -> list[FeatureManifest]:
    """Find the features of each data set in a folder that ``bimodal-prep encode`` wrote, by the shards' digest.

    Args:
        folder: that folder.
        manifests: of the shards.
        key: the setting that names the folder, for messages.

    Raises:
        UserError: the folder holds no features, or none of one of the data sets.
    """
    paths = sorted(folder.glob(f"*/{FEATURES_FILE}"))
    if not paths:
        what = "holds no features" if folder.is_dir() else "no such folder"
        raise UserError(
            f"{key}={folder}: {what}; `bimodal-prep encode SHARDS --model CONFIG --to {folder}` writes them"
        )
    found = [FeatureManifest.load(path.parent) for path in paths]
    by_digest = {each.digest: each for each in found}
    chosen = []
    for manifest in manifests:
        features = by_digest.get(Mixture([manifest]).digest)
        if features is None:
            there = ", ".join(f"{each.folder.name} (of {each.shards})" for each in found)
            raise UserError(
                f"{key}={folder}: has no features of {manifest.folder} as it is now, only {there}; "
                f"`bimodal-prep encode {manifest.folder} --model CONFIG --to {folder}` adds them"
            )
        chosen.append(features)
    return chosen
