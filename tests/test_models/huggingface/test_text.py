"""Hugging Face text models as text towers."""

from __future__ import annotations

import shutil

import pytest
import torch

from bimodal_cl.models import DualEncoder, build_model, load_model
from tests.refusals import refused
from tests.test_models.small_models import CAPTIONS, END, TEXT, VISION, text_folder, write_tokenizer

FAMILIES = ["bert", "distilbert", "roberta", "clip_text_model", "t5"]


def build(folder, **text) -> DualEncoder:
    options = {"hf_model_name": str(folder), "hf_proj_type": "linear", "context_length": 12, **text}
    return build_model(embed_dim=16, vision=VISION, text=options).eval()


@pytest.mark.parametrize(("family", "pad_token"), [*((family, "[PAD]") for family in FAMILIES), ("bert", "[SEP]")])
def test_features_equal_the_library_called_on_unpadded_texts(family, pad_token, tmp_path):
    """Padding is ignored even if the tokenizer pads with its end-of-text token, which is not ignored itself."""
    from transformers import AutoModel, AutoTokenizer

    folder = text_folder(tmp_path / family, family)
    write_tokenizer(folder, pad_token)
    model = build(folder, hf_pooler_type="mean_pooler")
    theirs = AutoModel.from_pretrained(folder).eval()
    theirs = theirs.get_encoder() if family == "t5" else theirs
    tokenizer = AutoTokenizer.from_pretrained(folder)
    features = model.encode_text(CAPTIONS)
    for caption, ours in zip(CAPTIONS, features, strict=True):
        ids = torch.tensor([tokenizer(caption).input_ids])
        assert ids[0, -1] == END
        hidden = theirs(input_ids=ids).last_hidden_state.mean(dim=1)
        expected = hidden @ model.text.proj.weight.T
        expected = expected[0] / expected.norm()
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pooler", ["mean_pooler", "max_pooler", "cls_pooler", "cls_last_hidden_state_pooler"])
def test_a_checkpoint_needs_neither_hub_nor_the_original_folder(family, pooler, tmp_path):
    folder = text_folder(tmp_path / "original", family)
    model = build(folder, hf_pooler_type=pooler, hf_proj_type="mlp")
    features = model.encode_text(CAPTIONS)
    assert features.shape == (3, 16)
    model.save(tmp_path / "checkpoint")
    shutil.rmtree(folder)
    assert torch.equal(load_model(tmp_path / "checkpoint").encode_text(CAPTIONS), features)

    features.roll(1, 0).mul(torch.arange(16)).sum().backward()
    for name, parameter in model.text.named_parameters():
        # In a causal model too, the feature at the first token depends on every parameter.
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.requires_grad, name


def test_poolers_differ_and_use_the_models_own_pooling_where_asked(tmp_path):
    from transformers import AutoModel

    folder = text_folder(tmp_path, "bert")
    tokens = build(folder).tokenize(CAPTIONS)
    output = AutoModel.from_pretrained(folder).eval()(input_ids=tokens, attention_mask=(tokens != 0).long())
    hidden = output.last_hidden_state
    expected = {
        "cls_pooler": output.pooler_output,
        "cls_last_hidden_state_pooler": hidden[:, 0],
        "max_pooler": hidden.masked_fill((tokens == 0)[..., None], -torch.inf).amax(dim=1),
    }
    for pooler, pooled in expected.items():
        model = build(folder, hf_pooler_type=pooler)
        features = torch.nn.functional.normalize(pooled @ model.text.proj.weight.T, dim=1)
        torch.testing.assert_close(model.encode_text(CAPTIONS), features, atol=1e-5, rtol=0)


def test_pretrained_false_gives_random_weights(tmp_path):
    folder = text_folder(tmp_path, "distilbert")
    stored = build(folder).text.transformer.state_dict()
    again = build(folder).text.transformer.state_dict()
    random = build(folder, hf_model_pretrained=False).text.transformer.state_dict()
    name = "embeddings.word_embeddings.weight"
    assert torch.equal(stored[name], again[name])
    assert not torch.equal(stored[name], random[name])


def test_an_open_clip_tower_may_use_a_hugging_face_tokenizer(tmp_path):
    write_tokenizer(tmp_path / "words")
    text = {**TEXT, "vocab_size": 9, "hf_tokenizer_name": str(tmp_path / "words"), "pool_type": "eos", "eos_id": END}
    model = build_model(embed_dim=16, vision=VISION, text=text).eval()
    assert model.tokenize(["a dog"])[0, :4].tolist() == [2, 3, 4, END]
    model.save(tmp_path / "checkpoint")
    features = model.encode_text(CAPTIONS)
    shutil.rmtree(tmp_path / "words")
    assert torch.equal(load_model(tmp_path / "checkpoint").encode_text(CAPTIONS), features)


@pytest.mark.parametrize(("pool_type", "eos_id", "taken"), [("eos", 2, 2), ("argmax", 8, 9)])
def test_pooling_another_token_than_the_texts_end_is_refused(pool_type, eos_id, taken, tmp_path):
    from transformers import AutoTokenizer

    write_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.add_tokens(["horse"])  # now the end-of-text token is not the largest any more
    tokenizer.save_pretrained(tmp_path)
    text = {**TEXT, "vocab_size": 10, "hf_tokenizer_name": str(tmp_path), "pool_type": pool_type, "eos_id": eos_id}
    with refused(f"'{pool_type}' pools at token {taken}, but the tokenizer ends a text with {END}"):
        build_model(embed_dim=16, vision=VISION, text=text)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ({"hf_model_name": "nobody/nothing"}, "hf_model_name 'nobody/nothing': no such folder"),
        ({"hf_tokenizer_name": "nobody/nothing"}, "hf_tokenizer_name 'nobody/nothing': no such folder"),
        ({"hf_pooler_type": "mean_poler"}, "hf_pooler_type 'mean_poler' is unknown; did you mean 'mean_pooler'"),
        ({"hf_proj_type": "liner"}, "hf_proj_type 'liner' is unknown; did you mean 'linear'"),
        ({"hf_proj_type": "none"}, r"hf_proj_type 'none' needs embed_dim 32 \(the text model's\), got 16"),
        ({"context_length": 99}, "the text tower cannot take 99 tokens"),
    ],
)
def test_mistakes_are_one_line_that_names_them(text, match, offline, tmp_path):
    folder = text_folder(tmp_path, "bert")
    with refused(match):
        build(folder, **text)


def test_a_folder_without_weights_and_a_model_of_several_towers_are_refused(tmp_path):
    folder = text_folder(tmp_path / "no_weights", "bert")
    (folder / "model.safetensors").unlink()
    with refused(r"no_weights' cannot be loaded"):
        build(folder)
    from transformers import CLIPConfig

    CLIPConfig().save_pretrained(tmp_path / "clip")
    write_tokenizer(tmp_path / "clip")
    with refused("family 'clip' has several towers"):
        build(tmp_path / "clip", hf_model_pretrained=False)


def test_weights_that_are_missing_are_refused_and_not_initialised(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = text_folder(tmp_path, "bert")
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if ".layer.1." not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    text = {"hf_model_name": str(folder), "context_length": 12}
    with refused(r"do not match its config.json: 16 missing \(encoder\.layer\.1"):
        build_model(embed_dim=16, vision=VISION, text=text)
    kept = {name: tensor for name, tensor in tensors.items() if "pooler" not in name}
    save_file({**kept, "cls.bias": torch.ones(1)}, folder / "model.safetensors", metadata={"format": "pt"})
    build_model(embed_dim=16, vision=VISION, text=text)  # unexpected heads and missing poolers are allowed
