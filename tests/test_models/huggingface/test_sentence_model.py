"""A real pretrained text tower: a sentence model of 22.7 M parameters from a local folder."""

from __future__ import annotations

import pytest
import torch

from bimodal_cl.models import DualEncoder, build_model, load_model
from eval import cli
from tests.sentence_model import sentence_folder
from tests.test_models.small_models import VISION

CAPTIONS = [
    "A black dog runs through the snow.",
    "a Dog with black fur is running in SNOW",
    "Two men in suits talk at a café, unphotogenically.",
    "Stock prices fell sharply on Monday.",
    "kite",
]


def build(dim: int, projection: str, **text) -> DualEncoder:
    """Build a small image tower and the sentence model, in evaluation mode."""
    torch.manual_seed(0)
    options = {"hf_model_name": str(sentence_folder()), "hf_pooler_type": "mean_pooler", "context_length": 30}
    return build_model(embed_dim=dim, vision=VISION, text={**options, "hf_proj_type": projection, **text}).eval()


def test_features_without_projection_are_the_sentence_embeddings_of_transformers():
    """The library's own model and tokenizer, called on one unpadded caption at a time."""
    from transformers import AutoModel, AutoTokenizer

    model = build(384, "none")
    assert sum(parameter.numel() for parameter in model.text.parameters()) > 22_000_000
    theirs, tokenizer = (
        AutoModel.from_pretrained(sentence_folder()).eval(),
        AutoTokenizer.from_pretrained(sentence_folder()),
    )
    features = model.encode_text(CAPTIONS)
    for caption, ours in zip(CAPTIONS, features, strict=True):
        tokens = tokenizer(caption, return_tensors="pt")
        embedding = theirs(**tokens).last_hidden_state[0].mean(dim=0)
        torch.testing.assert_close(ours, embedding / embedding.norm(), atol=1e-5, rtol=0)


def test_paraphrases_are_nearer_than_other_sentences():
    """Only pretrained weights, with the tokenizer they were trained with, know that."""
    features = build(384, "none").encode_text(CAPTIONS)
    sims = (features @ features.T).tril(-1)
    assert sims.argmax().item() == len(CAPTIONS)  # row 1, column 0
    assert sims[1, 0] > 0.7
    assert sims[2:].max() < 0.3


@pytest.mark.parametrize("text", [{}, {"hf_model_pretrained": False}])
def test_a_projection_of_its_own_and_random_weights_if_asked(text):
    model = build(16, "linear", **text)
    name = "encoder.layer.5.output.dense.weight"
    stored = build(16, "linear").text.transformer.state_dict()[name]
    assert torch.equal(model.text.transformer.state_dict()[name], stored) == (not text)
    assert model.encode_text(CAPTIONS).shape == (5, 16)


def test_an_export_of_it_gives_the_same_features_without_the_package(tmp_path):
    """The command compares open_clip's features with ours by itself, and refuses where they differ."""
    model = build(16, "linear")
    model.save(tmp_path / "model")
    assert cli.main(["export", str(tmp_path / "model"), "--to", str(tmp_path / "export")]) == 0
    config = (tmp_path / "export" / "open_clip_config.json").read_text()
    assert str(sentence_folder()) not in config
    exported = load_model(tmp_path / "export")
    torch.testing.assert_close(exported.encode_text(CAPTIONS), model.encode_text(CAPTIONS), atol=1e-5, rtol=0)
