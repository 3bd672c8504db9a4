"""The dual encoder: encode pixels and texts as unit-norm features of one space."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor, nn

from bimodal_cl.models.architecture import Architecture
from bimodal_cl.models.tokenizers import Tokenizer, is_hugging_face
from bimodal_cl.models.towers.layers import TowerLayers, number_layers
from bimodal_cl.models.towers.lock import lock_tower, require_batch_norms
from bimodal_cl.models.weights.file_names import ARCHITECTURE_FILE, TOKENIZER_FOLDER, WEIGHTS_FILE
from bimodal_cl.models.weights.state_dict import load_weights, save_weights
from bimodal_cl.preprocess import EvalTransform, normalize

Pixels = UInt8[Tensor, "batch 3 height width"] | Float[Tensor, "batch 3 height width"]
Tokens = Int64[Tensor, "batch tokens"]
Features = Float[Tensor, "batch dim"]

_INIT_TAU = 0.07


class DualEncoder(nn.Module):
    """An image tower and a text tower with a shared feature space, their tokenizer and their preprocessing.

    Tensors are named as in open_clip's ``CustomTextCLIP`` (``visual.*``, ``text.*``, ``logit_scale``), and within
    Hugging Face towers (``visual.transformer.*``, ``text.transformer.*``) as in transformers. ``logit_scale`` and
    ``logit_bias`` are saved with the weights but never trained here: the loss owns the temperature, and
    :meth:`set_temperature` takes it over before a checkpoint is written.

    Args:
        visual: normalised pixels ``[batch, 3, image_size, image_size]`` to ``[batch, dim]``.
        text: tokens ``[batch, context_length]`` to ``[batch, dim]``.
        tokenizer: texts to tokens.
        architecture: the description that the towers were built from.

    Attributes:
        notes: what the user should know about where the weights came from, one line each.
    """

    image_mean: Tensor
    image_std: Tensor
    logit_bias: nn.Parameter | None

    def __init__(self, visual: nn.Module, text: nn.Module, tokenizer: Tokenizer, architecture: Architecture) -> None:
        super().__init__()
        self.visual = visual
        self.text = text
        self.tokenizer = tokenizer
        self.architecture = architecture
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / _INIT_TAU)), requires_grad=False)
        bias = architecture.init_logit_bias
        self.logit_bias = None if bias is None else nn.Parameter(torch.tensor(float(bias)), requires_grad=False)
        for name in ("mean", "std"):
            self.register_buffer(f"image_{name}", self._statistic(name)[None], persistent=False)
        self.notes: list[str] = []
        self._kept_in_eval: list[nn.Module] = []

    @property
    def dim(self) -> int:
        """Width of the features."""
        return self.architecture.embed_dim

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.architecture.image_size

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.logit_scale.device

    def forward(self, pixels: Pixels, tokens: Tokens) -> tuple[Features, Features]:
        """Encode both sides of a batch of pairs, as one call that a data-parallel wrapper can intercept."""
        return self.encode_image(pixels), self.encode_text(tokens)

    def encode_image(self, pixels: Pixels) -> Features:
        """Encode images.

        Args:
            pixels: ``[batch, 3, image_size, image_size]``, on any device; uint8 in [0, 255], or floats normalised as
                by :meth:`preprocess`.

        Returns:
            Unit-norm float32 features, also under autocast.

        Raises:
            ValueError: the pixels have another shape.
        """
        wanted = (3, self.image_size, self.image_size)
        if pixels.ndim != 4 or tuple(pixels.shape[1:]) != wanted:
            raise ValueError(f"pixels must be [batch, {', '.join(map(str, wanted))}], got {list(pixels.shape)}")
        return F.normalize(self.visual(self.normalized(pixels)).float(), dim=-1)

    def normalized(self, pixels: Pixels) -> Float[Tensor, "batch 3 height width"]:
        """Return pixels on the model's device, normalised if they are uint8."""
        pixels = pixels.to(self.device, non_blocking=True)
        return normalize(pixels, self.image_mean, self.image_std) if pixels.dtype == torch.uint8 else pixels

    def encode_text(self, texts: Sequence[str] | Tokens) -> Features:
        """Encode texts, or tokens from :meth:`tokenize`, in one pass.

        Returns:
            Unit-norm float32 features, also under autocast.
        """
        tokens = texts if isinstance(texts, Tensor) else self.tokenize(texts)
        return F.normalize(self.text(tokens.to(self.device, non_blocking=True)).float(), dim=-1)

    def train(self, mode: bool = True) -> DualEncoder:
        """Set training or evaluation mode; what :meth:`lock` has locked stays in evaluation mode."""
        super().train(mode)
        for module in self._kept_in_eval:
            module.eval()
        return self

    def lock(
        self,
        *,
        image_unlocked: int | None = None,
        text_unlocked: int | None = None,
        freeze_statistics: bool = False,
    ) -> None:
        """Lock towers; see :mod:`bimodal_cl.models.towers.lock`.

        Args:
            image_unlocked: how many of the image tower's last groups stay trained; None: it is not locked.
            text_unlocked: likewise of the text tower.
            freeze_statistics: whether all batch norms of the image tower use and keep their running statistics, also
                those whose weights are trained.

        Raises:
            UserError: so many that nothing would be locked, or no batch norm whose statistics could be kept.
        """
        if freeze_statistics:
            self._kept_in_eval += require_batch_norms(self.visual)
        layers = self.layers
        for modality, tower, unlocked in (("image", self.visual, image_unlocked), ("text", self.text, text_unlocked)):
            if unlocked is not None:
                self._kept_in_eval += lock_tower(tower, layers[modality], unlocked, f"optim.{modality}")
        self.train(self.training)

    @property
    def layers(self) -> dict[str, TowerLayers]:
        """The layers of the towers, ``image`` and ``text``."""
        return {"image": number_layers(self.visual), "text": number_layers(self.text)}

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Convert texts to tokens ``[batch, context_length]`` on the CPU; longer texts are truncated.

        Raises:
            ValueError: a single string is given, which would be read as a list of characters.
        """
        if isinstance(texts, str):
            raise ValueError(f"texts must be a list of strings, got the string {texts[:40]!r}")
        return self.tokenizer(list(texts))

    def preprocess(self, image: Image.Image) -> Float[Tensor, "3 height width"]:
        """Convert a PIL image of any size and mode to normalised pixels ``[3, image_size, image_size]`` on the CPU."""
        return normalize(self.transform(image), self._statistic("mean"), self._statistic("std"))

    @property
    def transform(self) -> EvalTransform:
        """The transform from a PIL image to the uint8 pixels that :meth:`encode_image` takes."""
        return self.architecture.transform()

    def set_preprocess(self, overlay: Mapping[str, Any], where: str = "") -> None:
        """Preprocess images otherwise; what the model has learned is not changed.

        Args:
            overlay: ``mean`` and ``std`` of pixels in [0, 1], one number or three, and arguments of
                :class:`~bimodal_cl.preprocess.EvalTransform`; None leaves a value as it is.
            where: begins the message of an error.

        Raises:
            UserError: a value is out of range.
        """
        self.architecture = self.architecture.with_preprocess(overlay, where)
        self.image_mean.copy_(self._statistic("mean")[None])
        self.image_std.copy_(self._statistic("std")[None])

    def _statistic(self, name: str) -> Tensor:
        """Return ``mean`` or ``std`` of the pixels, float32 ``[3, 1, 1]``, always on the CPU."""
        return torch.tensor(self.architecture.preprocess[name], dtype=torch.float32).view(3, 1, 1)

    def save(self, folder: str | Path) -> None:
        """Write weights, architecture and tokenizer into a folder.

        :func:`bimodal_cl.models.load_model` needs nothing but this folder, not even a network.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(self, folder / WEIGHTS_FILE)
        self.architecture.write(folder / ARCHITECTURE_FILE)
        if is_hugging_face(self.tokenizer):
            self.tokenizer.save_pretrained(str(folder / TOKENIZER_FOLDER))  # type: ignore[attr-defined]

    def load_weights(self, path: str | Path) -> None:
        """Load the weights of a checkpoint folder, or of its weights file, into this model, without any conversion.

        Raises:
            UserError: the file does not exist, or a tensor is missing, unexpected or of another shape.
        """
        path = Path(path)
        load_weights(self, path / WEIGHTS_FILE if path.is_dir() else path)

    @torch.no_grad()
    def set_temperature(self, logit_scale: Tensor, logit_bias: Tensor | None = None) -> None:
        """Copy the temperature that the loss has learned, so that it is saved with the weights.

        Args:
            logit_scale: 0-d, ``log(1 / tau)``.
            logit_bias: 0-d, of a model trained with SigLIP's loss; None leaves the model as it is.
        """
        self.logit_scale.copy_(logit_scale)
        if logit_bias is None:
            return
        if self.logit_bias is None:
            self.logit_bias = nn.Parameter(torch.zeros_like(self.logit_scale), requires_grad=False)
            self.architecture = replace(self.architecture, init_logit_bias=0.0)
        self.logit_bias.copy_(logit_bias)
