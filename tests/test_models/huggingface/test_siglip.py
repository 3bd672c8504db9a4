"""SigLIP folders give the features of transformers and can be saved, trained and resized like other models."""

from __future__ import annotations

import shutil

import pytest
import torch

from bimodal_cl.models import load_model
from bimodal_cl.models.huggingface.folder import load_huggingface
from tests.refusals import refused
from tests.test_models.huggingface.folders import (
    SQUARE,
    assert_same_image_features,
    blocks,
    pooled,
    randomize,
    write_gemma,
    write_siglip,
    write_unigram,
)

CAPTIONS = ["a red dog", "A photo of the CAT, two blue dogs!", "", "a &amp; b", "horse " * 40]


def compare(model, theirs, processor, tokenizer, length) -> None:
    """Assert that images of all sizes and captions have the features that transformers computes."""
    tokens = tokenizer(CAPTIONS, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(
            model.encode_text(CAPTIONS), pooled(theirs.get_text_features(**tokens)), atol=1e-5, rtol=0
        )
    assert_same_image_features(model, theirs, processor)


@pytest.mark.parametrize(
    ("write", "options"),
    [
        (write_unigram, {}),
        (write_unigram, {"pad_token": "<pad>"}),
        (write_unigram, {"model_max_length": 10}),
        (write_unigram, {"model_input_names": ["input_ids", "attention_mask"]}),
        (write_unigram, {"model_input_names": ["input_ids", "attention_mask"], "pad_token": "<pad>"}),
        (write_unigram, {"model_input_names": ["input_ids", "attention_mask"], "padding_side": "left"}),
        (write_gemma, {}),
    ],
    ids=["siglip", "own_padding", "short", "masked", "masked_own_padding", "masked_left", "siglip2"],
)
def test_features_are_transformers_own(write, options, tmp_path):
    from transformers import SiglipImageProcessor

    folder = tmp_path / "siglip"
    tokenizer = write(folder, **options)
    theirs = write_siglip(folder, len(tokenizer))
    processor = SiglipImageProcessor(size=SQUARE, resample=2)
    processor.save_pretrained(folder)
    model = load_model(folder)
    length = options.get("model_max_length", 16)
    assert model.tokenize(CAPTIONS).shape == (5, length)
    compare(model, theirs, processor, tokenizer, length)
    assert float(model.logit_scale) == pytest.approx(theirs.logit_scale.item())
    assert float(model.logit_bias) == pytest.approx(theirs.logit_bias.item())

    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.encode_text(CAPTIONS)
    assert torch.cosine_similarity(rough, model.encode_text(CAPTIONS)).min() > 0.99

    model.save(tmp_path / "checkpoint")
    shutil.rmtree(folder)
    again = load_model(tmp_path / "checkpoint")
    compare(again, theirs, processor, tokenizer, length)
    assert torch.equal(again.logit_bias, model.logit_bias)


def test_siglips_own_tokenizer_class(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    from transformers import SiglipImageProcessor, SiglipTokenizer

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*CAPTIONS[:2], "a photo of two horses", "the quick brown fox jumps"] * 20),
        model_prefix=str(tmp_path / "spiece"),
        **{"vocab_size": 40, "hard_vocab_limit": False, "minloglevel": 2},
        **{"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    )
    tokenizer = SiglipTokenizer(str(tmp_path / "spiece.model"), model_max_length=16)
    folder = tmp_path / "siglip"
    tokenizer.save_pretrained(folder)
    theirs = write_siglip(folder, len(tokenizer))
    processor = SiglipImageProcessor(size=SQUARE)
    processor.save_pretrained(folder)
    compare(load_model(folder), theirs, processor, tokenizer, 16)


def test_every_tensor_is_trained_and_the_image_size_may_change(tmp_path):
    tokenizer = write_unigram(tmp_path)
    write_siglip(tmp_path, len(tokenizer))
    model = load_huggingface(tmp_path).train()
    pixels = torch.zeros(2, 3, 32, 32)
    image_features, text_features = model(pixels, model.tokenize(["a dog", "a cat"]))
    (image_features * text_features.roll(1, 0)).sum().backward()
    frozen = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert frozen == {"logit_scale", "logit_bias"}

    larger = load_huggingface(tmp_path, image_size=64).eval()
    assert larger.image_size == 64
    # Position embeddings are resampled, so a blank image's features stay close; new weights would move them.
    near = larger.encode_image(torch.zeros(1, 3, 64, 64)) @ model.eval().encode_image(pixels[:1]).T
    assert near.item() > 0.9
    larger.save(tmp_path / "larger")
    again = load_model(tmp_path / "larger")
    image = blocks(90, 70)
    assert torch.equal(
        again.encode_image(again.preprocess(image)[None]), larger.encode_image(larger.preprocess(image)[None])
    )


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"vision_use_head": False}, "vision_config.vision_use_head is false: the model has no image features"),
        ({"hidden_size": 24}, "projection_size 48 is not vision_config.hidden_size 24"),
    ],
)
def test_models_without_a_shared_space_are_refused(options, match, tmp_path):
    write_siglip(tmp_path, len(write_unigram(tmp_path)), **options)
    with refused(match):
        load_model(tmp_path)


def test_a_folder_without_tokenizer_is_refused(tmp_path):
    write_siglip(tmp_path, 30)
    with refused(r"has no tokenizer \(tokenizer.json or spiece.model\)"):
        load_model(tmp_path)


def test_naflex_is_refused_in_one_line(tmp_path):
    from transformers import Siglip2Config, Siglip2Model

    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Siglip2Config(text_config={**small, "vocab_size": 30}, vision_config=small)
    randomize(Siglip2Model(config)).save_pretrained(tmp_path)
    with refused(r"model_type 'siglip2' is NaFlex, .* take a SigLIP 2 of fixed"):
        load_model(tmp_path)
