"""The blocks of towers are found without their class names."""

import pytest
import timm
import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from torch import nn
from transformers import AutoConfig, AutoModel

from bimodal_cl.errors import SettingRefused
from bimodal_cl.models import build_model
from bimodal_cl.training.sharding import DataParallel, choose_spread, find_blocks, find_units, take_fsdp_settings

SMALL = {"hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 30}
DISTILLED = {"dim": 8, "n_layers": 3, "n_heads": 2, "hidden_dim": 8, "vocab_size": 30}


def names_of(blocks: list[nn.Module]) -> dict[str, int]:
    kinds = [type(block).__name__ for block in blocks]
    return {kind: kinds.count(kind) for kind in kinds}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vit_tiny_patch16_224", {"Block": 12}),
        ("resnet18", {"BasicBlock": 8}),
        ("resnet50", {"Bottleneck": 16}),
        ("convnext_atto", {"ConvNeXtBlock": 12}),
        ("swin_tiny_patch4_window7_224", {"SwinTransformerBlock": 12}),
        ("mixer_s32_224", {"MixerBlock": 8}),
        ("efficientnet_b0", {"DepthwiseSeparableConv": 1, "InvertedResidual": 15}),
        ("eva02_tiny_patch14_224", {"EvaBlock": 12}),
    ],
)
def test_blocks_of_timm(name, expected):
    with torch.device("meta"):
        tower = timm.create_model(name, pretrained=False)
    assert names_of(find_blocks(tower)) == expected


@pytest.mark.parametrize(
    ("kind", "sizes", "layers"),
    [
        ("bert", SMALL, {"BertLayer": 3}),
        ("roberta", SMALL, {"RobertaLayer": 3}),
        (
            "distilbert",
            {"dim": 8, "n_layers": 3, "n_heads": 2, "hidden_dim": 8, "vocab_size": 30},
            {"TransformerBlock": 3},
        ),
        ("mpnet", SMALL, {"MPNetLayer": 3}),
        ("electra", SMALL, {"ElectraLayer": 3}),
    ],
)
def test_blocks_of_transformers_are_those_that_it_must_not_split(kind, sizes, layers):
    tower = AutoModel.from_config(AutoConfig.for_model(kind, **sizes))
    assert names_of(find_blocks(tower)) == layers
    unsplit = set(getattr(tower, "_no_split_modules", None) or [])
    assert set(layers) <= unsplit or not unsplit & set(names_of(list(tower.modules())))


def test_blocks_of_open_clip_and_names_that_the_user_gives():
    text = {"layers": 3, "width": 16, "heads": 2}
    vit = {"layers": 2, "width": 32, "patch_size": 16, "head_width": 16}
    model = build_model(image_size=32, embed_dim=8, vision=vit, text=text)
    assert names_of(find_blocks(model)) == {"ResidualAttentionBlock": 5}
    resnet = {"layers": [1, 1, 2, 1], "width": 8, "head_width": 16}
    residual = build_model(image_size=32, embed_dim=8, vision=resnet, text=text)
    assert names_of(find_blocks(residual)) == {"Bottleneck": 5, "ResidualAttentionBlock": 3}

    settings = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="TRANSFORMER_BASED_WRAP", transformer_cls_names_to_wrap=["MultiheadAttention"]
    )
    assert names_of(find_units(model, settings)) == {"MultiheadAttention": 5}
    settings.transformer_cls_names_to_wrap = ["ResidualAttentionBlok"]
    with pytest.raises(SettingRefused, match=r"no module of class 'ResidualAttentionBlok'.*'ResidualAttentionBlock'"):
        choose_spread(settings, 2, model)


def test_fsdp_is_asked_for_by_the_launcher_and_hidden_from_others(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setenv("FSDP_RESHARD_AFTER_FORWARD", "false")
    settings = take_fsdp_settings()
    assert settings is not None and settings.reshard_after_forward is False
    assert take_fsdp_settings() is None  # whoever looks next finds plain data parallelism
    model = nn.Linear(1, 1)
    assert choose_spread(settings, 1, model) is DataParallel and choose_spread(None, 2, model) is DataParallel
    assert choose_spread(settings, 2, model) is not DataParallel
