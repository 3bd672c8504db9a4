"""Small models of other packages, and the formats in which their weights are published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP
from safetensors.torch import save_file

from tests.test_models.small_models import CAPTIONS

# Heads of width 64, as in OpenAI's models, so that their rule for the number of heads applies.
VIT = {"layers": 2, "width": 128, "patch_size": 16, "image_size": 32}
RESNET = {"layers": [1, 2, 1, 1], "width": 16, "image_size": 64}
TRANSFORMER = {"context_length": 16, "width": 64, "heads": 1, "layers": 2, "vocab_size": 49408}
TOWERS = {"embed_dim": 24, "vision": VIT, "text": TRANSFORMER}
PREPROCESS = {"mean": [0.1, 0.2, 0.3], "std": [0.3, 0.2, 0.1], "interpolation": "bilinear", "resize_mode": "squash"}


def open_clip_model(vision: dict[str, Any] = VIT, text: dict[str, Any] = TRANSFORMER, quick_gelu: bool = False) -> CLIP:
    """An open_clip ``CLIP`` whose weights are far from their initial values, so that every setting matters."""
    torch.manual_seed(0)
    model = CLIP(24, vision, text, quick_gelu=quick_gelu).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return model


def openai_archive(model: CLIP, path: Path) -> Path:
    """Write a model as OpenAI does: a TorchScript archive of its three methods, with settings as tensors."""
    size = model.visual.image_size
    side = size if isinstance(size, int) else size[0]
    images, tokens = torch.ones(2, 3, side, side), torch.zeros(2, model.context_length, dtype=torch.int)
    model.register_buffer("input_resolution", torch.tensor(side))
    methods = {"forward": (images, tokens), "encode_image": (images,), "encode_text": (tokens,)}
    torch.jit.trace_module(model, methods, check_trace=False).save(path)
    del model.input_resolution
    return path


def export_folder(model: CLIP, folder: Path, vision: dict[str, Any] = VIT, **model_cfg: Any) -> Path:
    """Write a model as open_clip's ``push_to_hf_hub`` does."""
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TRANSFORMER, **model_cfg}
    values = {"model_cfg": config, "preprocess_cfg": {**PREPROCESS, "size": 32, "mode": "RGB", "fill_color": 0}}
    (folder / "open_clip_config.json").write_text(json.dumps(values))
    return folder


def hub_cache(cache: Path, repository: str, folder: Path, commit: str = "0" * 40) -> None:
    """Put a folder's files into a hub cache as ``hf_hub_download`` does: blobs, links to them, the branch's commit."""
    root = cache / f"models--{repository.replace('/', '--')}"
    snapshot = root / "snapshots" / commit
    for part in (snapshot, root / "blobs", root / "refs"):
        part.mkdir(parents=True, exist_ok=True)
    (root / "refs" / "main").write_text(commit)
    for number, file in enumerate(sorted(folder.iterdir())):
        blob = root / "blobs" / f"{number:040x}"
        blob.write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / blob.name)


@torch.no_grad()
def assert_same_features(ours: Any, theirs: CLIP, tolerance: float = 1e-5) -> None:
    """Assert that both towers give the features of an open_clip model."""
    images = torch.randn(2, 3, ours.image_size, ours.image_size, generator=torch.Generator().manual_seed(1))
    tokens = ours.tokenize(CAPTIONS)
    ours.eval()
    for found, expected in (
        (ours.encode_image(images), theirs.encode_image(images, normalize=True)),
        (ours.encode_text(tokens), theirs.encode_text(tokens, normalize=True)),
    ):
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
