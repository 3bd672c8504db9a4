"""Small models of all kinds of towers, sixteen images and captions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from bimodal_cl.models import DualEncoder, build_model, load_model
from bimodal_cl.models.assemble import assemble
from tests.test_models.huggingface.folders import blocks, write_siglip, write_unigram, write_word_clip
from tests.test_models.small_models import TEXT, VISION, text_folder

TIMM = {"timm_model_name": "test_resnet", "timm_pool": "avg", "timm_proj": "linear", "image_size": 32}
COLOURS, ANIMALS = ("red", "blue"), ("dog", "cat")
CAPTIONS = [f"{number} {colour} {animal}s" for number in (1, 2) for colour in COLOURS for animal in ANIMALS]
CAPTIONS += ["", "A photo of the CAT, seen from above!", "horse " * 40, "a & b", "café", "two  spaces", "x", "a dog."]


def images_of(side: int) -> list[Image.Image]:
    """Sixteen images of the size that the model takes, which no library has to resize."""
    return [blocks(side + number, side).crop((0, 0, side, side)) for number in range(16)]


def randomize(encoder: DualEncoder) -> DualEncoder:
    """Move the weights far from their initial values, so that every setting matters."""
    torch.manual_seed(0)
    for parameter in encoder.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    encoder.set_temperature(torch.tensor(3.25))
    return encoder.eval()


def with_text(family: str, folder: Path) -> DualEncoder:
    """timm's image tower and a Hugging Face text tower."""
    name = str(text_folder(folder / family, family))
    return build_model(embed_dim=16, vision=TIMM, text={"hf_model_name": name, "context_length": 10})


def vit(folder: Path) -> DualEncoder:
    return build_model(embed_dim=16, vision=VISION, text=TEXT)


def quick_gelu(folder: Path) -> DualEncoder:
    return assemble(replace(vit(folder).architecture, quick_gelu=True))


def resnet(folder: Path) -> DualEncoder:
    vision = {"layers": [1, 1, 1, 1], "width": 16, "head_width": 16, "image_size": 32}
    return build_model(embed_dim=16, vision=vision, text=TEXT)


def timm_bert(folder: Path) -> DualEncoder:
    return with_text("bert", folder)


def timm_distilbert(folder: Path) -> DualEncoder:
    return with_text("distilbert", folder)


def siglip(folder: Path) -> DualEncoder:
    write_siglip(folder / "siglip", len(write_unigram(folder / "siglip")))
    return load_model(folder / "siglip")


def open_clip_siglip(folder: Path) -> DualEncoder:
    """The towers of open_clip's SigLIP: timm's, and a bidirectional text transformer with a bias in its projection."""
    size = len(write_unigram(folder / "unigram"))
    options = {"pool_type": "last", "proj_bias": True, "no_causal_mask": True, "vocab_size": size}
    tokenizer = {"hf_tokenizer_name": str(folder / "unigram"), "tokenizer_kwargs": {"clean": "canonicalize"}}
    return build_model(embed_dim=16, vision=TIMM, text={**TEXT, **options, **tokenizer})


def timm_mt5(folder: Path) -> DualEncoder:
    return with_text("mt5", folder)


def clip_with_words(folder: Path) -> DualEncoder:
    """A Hugging Face CLIP with a tokenizer of its own."""
    write_word_clip(folder / "words")
    return load_model(folder / "words")


MAKERS: dict[str, Callable[[Path], DualEncoder]] = {
    make.__name__: make
    for make in (
        *(vit, quick_gelu, resnet, timm_bert, timm_mt5, timm_distilbert),
        *(siglip, open_clip_siglip, clip_with_words),
    )
}


@pytest.fixture
def make(tmp_path):
    """Make a model by its name in ``MAKERS``, with random weights."""

    def build(name: str) -> DualEncoder:
        torch.manual_seed(0)
        return randomize(MAKERS[name](tmp_path / "sources"))

    return build
