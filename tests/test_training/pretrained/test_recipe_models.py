"""The models of the papers' recipes are built in full size, with random weights, and their loss trains them."""

import shutil
from pathlib import Path

import pytest
import torch

from bimodal_cl.config.schema import Config
from bimodal_cl.config.yaml_files import load_config
from bimodal_cl.losses import build_loss
from bimodal_cl.models import build_model
from tests.sentence_model import sentence_folder

RECIPES = Path(__file__).parents[3] / "configs" / "train"
CAPTIONS = ["a dog on a beach", "two people at a table", "a red car", "the city at night"]


def read_recipe(name: str, folder: Path) -> Config:
    """Load a recipe, with what it takes from the hub replaced by random weights and, for DistilBERT, local files."""
    config = load_config([RECIPES / f"{name}.yaml"])
    if name != "cc3m_isogclr":
        return config
    from transformers import DistilBertConfig

    DistilBertConfig().save_pretrained(folder)  # the sizes of distilbert-base-uncased
    for file in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):  # its vocabulary too
        shutil.copy(sentence_folder() / file, folder)
    local = {
        ("model", "vision", "timm_model_pretrained"): False,
        ("model", "text", "hf_model_pretrained"): False,
        ("model", "text", "hf_model_name"): str(folder),
    }
    return load_config([RECIPES / f"{name}.yaml"], local)


@pytest.mark.filterwarnings("ignore:.*rho")  # four images cannot show it
@pytest.mark.parametrize(
    ("name", "side", "dim", "tokens", "millions"),
    [
        ("cc3m_isogclr", 256, 256, 30, (24.0, 66.6)),
        ("cc3m_fastclip_v3", 224, 1024, 77, (38.3, 63.7)),
        ("cc12m_fastclip_v3", 224, 512, 77, (87.8, 63.4)),
        ("laion400m_fastclip_v3", 224, 512, 77, (86.2, 63.4)),
    ],
)
def test_recipes_build_the_towers_that_their_headers_name(name, side, dim, tokens, millions, tmp_path):
    """Parameters in millions: timm's ResNet-50 23.5 and DistilBERT 66.4, both with a projection; OpenAI's models."""
    config = read_recipe(name, tmp_path)
    torch.manual_seed(0)
    model = build_model(**config.model.model_dump(mode="json"))
    assert model.image_size == side
    assert model.tokenize(CAPTIONS).shape == (4, tokens)
    for tower, expected in zip((model.visual, model.text), millions, strict=True):
        assert sum(parameter.numel() for parameter in tower.parameters()) / 1e6 == pytest.approx(expected, abs=0.06)
    assert model.encode_text(CAPTIONS).shape == (4, dim)

    if name == "cc3m_isogclr":
        pixels = torch.randint(0, 256, (4, 3, side, side), dtype=torch.uint8)
        ids = torch.arange(4)
        loss = build_loss(num_images=4, num_texts=4, **config.loss.model_dump(mode="json"))
        out = loss(model.train().encode_image(pixels), model.encode_text(CAPTIONS), ids, ids)
        out.loss.backward()
        for parameter in [*model.visual.parameters(), *model.text.parameters()]:
            assert parameter.grad is not None and parameter.grad.isfinite().all()
