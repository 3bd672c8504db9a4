"""The heads of locked towers, which are trained on the towers' encoded features.

:class:`FeatureHeads` is to the trainer what a dual encoder is: it takes features in the place of pixels and tokens. Its
tensors have the names that they have in the joined model, ``visual.head.*`` and ``text.proj.*``, and its folder names
the towers (``heads.json``), so :func:`bimodal_cl.models.load_model` joins them to an ordinary dual encoder.

Each feature is standardised first: ``(x - mean) / std`` over the training data. Features of a classifier are nearly
sparse and those of a sentence model differ in scale, and without it AdamW's steps would be of different worth for each.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bimodal_cl.errors import UserError
from bimodal_cl.files.json_files import read_mapping
from bimodal_cl.models.architecture import Architecture
from bimodal_cl.models.dual_encoder import DualEncoder, Features
from bimodal_cl.models.towers.heads import build_image_head, build_text_head, check_kind
from bimodal_cl.models.towers.layers import TowerLayers
from bimodal_cl.models.weights.file_names import ARCHITECTURE_FILE, HEADS_FILE, WEIGHTS_FILE
from bimodal_cl.models.weights.state_dict import save_weights

_LEAST_STD = 1e-6  # below it a feature never changes, but for rounding


@dataclass(frozen=True)
class TowersReference:
    """Where the towers of some heads are.

    Args:
        folder: the towers as a saved model.
        sha256: of their weights.
        text_norm: as :class:`~bimodal_cl.models.features.towers.LockedTowers` finds it.
    """

    folder: str
    sha256: str
    text_norm: str

    @classmethod
    def read(cls, path: Path) -> TowersReference:
        """Read the file that :meth:`FeatureHeads.save` wrote.

        Raises:
            UserError: it cannot be read, or keys are missing or unknown.
        """
        try:
            return cls(**read_mapping(path))
        except TypeError as error:
            raise UserError(f"{path}: {error}") from None


class Standardize(nn.Module):
    """Subtract each feature's mean and divide by its standard deviation, ``[..., width]``.

    A feature that never changes in the training data keeps its scale: on other data it may, and would be enormous.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, variance: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.float())
        std = variance.sqrt()
        changes = std > _LEAST_STD * mean.abs().clamp(min=1)
        self.register_buffer("std", torch.where(changes, std, 1.0).float())

    def forward(self, features: Tensor) -> Tensor:
        """Standardise features."""
        return (features - self.mean) / self.std


class FeatureHeads(DualEncoder):
    """Two heads with a shared feature space.

    Args:
        architecture: of the joined model.
        towers: where the towers are.
        moments: ``image_mean``, ``image_variance``, ``text_mean`` and ``text_variance`` of the features, ``[width]``.
    """

    def __init__(self, architecture: Architecture, towers: TowersReference, moments: Mapping[str, Any]) -> None:
        values = {name: torch.as_tensor(value) for name, value in moments.items()}
        vision, text, dim = architecture.vision, architecture.text, architecture.embed_dim
        image_kind, text_kind = vision.get("timm_proj") or "", text.get("hf_proj_type") or ""
        check_kind(image_kind, "model.vision.timm_proj")
        check_kind(text_kind, "model.text.hf_proj_type")
        bias = image_kind == "linear" or bool(vision.get("timm_proj_bias"))  # it takes up the mean when they are joined
        architecture = replace(architecture, vision={**vision, "timm_proj_bias": bias})
        widths = {modality: len(values[f"{modality}_mean"]) for modality in ("image", "text")}
        visual = nn.Sequential(
            OrderedDict(
                standardize=Standardize(values["image_mean"], values["image_variance"]),
                head=build_image_head(image_kind, widths["image"], dim, vision.get("timm_drop") or 0.0, bias),
            )
        )
        proj = build_text_head(text_kind, widths["text"], dim)
        if not towers.text_norm:
            values["text_mean"], values["text_variance"] = (torch.zeros(widths["text"]), torch.ones(widths["text"]))
        standardize = Standardize(values["text_mean"], values["text_variance"])
        super().__init__(
            visual,
            nn.Sequential(OrderedDict(standardize=standardize, proj=proj)),
            None,  # type: ignore[arg-type]  # texts come as features
            architecture,
        )
        self.towers = towers

    def encode_image(self, pixels: Float[Tensor, "batch width"]) -> Features:
        """Encode image features of any floating-point type; unit-norm float32."""
        return F.normalize(self.visual(pixels.to(self.device).float()).float(), dim=-1)

    def encode_text(self, texts: Any) -> Features:
        """Encode text features of any floating-point type; unit-norm float32."""
        return F.normalize(self.text(texts.to(self.device).float()).float(), dim=-1)

    @property
    def layers(self) -> dict[str, TowerLayers]:
        """Each tower has one layer, its head."""
        return {
            modality: TowerLayers(dict.fromkeys((name for name, _ in tower.named_parameters()), 0), 0, own_head=False)
            for modality, tower in (("image", self.visual), ("text", self.text))
        }

    def save(self, folder: str | Path) -> None:
        """Write the heads, the joined model's architecture, and where the towers are."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(self, folder / WEIGHTS_FILE)
        self.architecture.write(folder / ARCHITECTURE_FILE)
        (folder / HEADS_FILE).write_text(json.dumps(asdict(self.towers), indent=2) + "\n", "utf-8")


def is_heads(folder: Path) -> bool:
    """Return whether a saved model is the heads of towers that are elsewhere."""
    return (folder / HEADS_FILE).is_file()


def load_heads(folder: Path, weights: str = WEIGHTS_FILE) -> FeatureHeads:
    """Load the heads that :meth:`FeatureHeads.save` wrote, in evaluation mode, without their towers.

    Args:
        folder: such a folder.
        weights: name of the file of weights in it.

    Raises:
        UserError: a file is missing or damaged, or they do not fit.
    """
    from safetensors import safe_open

    architecture = Architecture.read(folder / ARCHITECTURE_FILE)
    try:
        with safe_open(folder / weights, "pt") as file:
            widths = {part: file.get_slice(f"{part}.standardize.mean").get_shape()[0] for part in ("visual", "text")}
    except Exception as error:  # safetensors raises its own types
        raise UserError(f"{folder / weights}: cannot be read ({error})") from None
    moments = {
        f"{modality}_{moment}": torch.zeros(widths[part])
        for modality, part in (("image", "visual"), ("text", "text"))
        for moment in ("mean", "variance")
    }
    heads = FeatureHeads(architecture, TowersReference.read(folder / HEADS_FILE), moments)
    heads.load_weights(folder / weights)
    heads.eval()
    return heads
