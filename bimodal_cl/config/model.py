"""The section ``model``: an open_clip config by name, two towers, or pretrained weights."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from bimodal_cl.settings import BelowOne, Count, NotTruth, PathText, Positive, Section


class VisionTower(Section):
    """The image tower: open_clip's ViT or ResNet, or any timm model. Names are open_clip's."""

    timm_model_name: str | None = Field(None, description="a timm architecture; the fields for ViT are then not used")
    timm_model_pretrained: bool | None = Field(None, description="start from timm's weights (needs the hub)")
    timm_checkpoint_path: PathText | None = Field(
        None, description="start from this file's weights: a path, or package:NAME/PATH; see docs/models.md"
    )
    timm_checkpoint_by_order: bool | None = Field(
        None, description="pair the file's tensors with the tower's in order where the names do not fit"
    )
    timm_pool: str | None = Field(None, description="timm: avg, token, map, abs_attn, rot_attn or empty")
    timm_proj: Literal["linear", "mlp", "residual", ""] | None = Field(
        None, description="timm: head, linear, mlp, residual (not in open_clip) or empty"
    )
    timm_drop: BelowOne | None = Field(None, description="timm: head dropout")
    timm_drop_path: BelowOne | None = Field(None, description="timm: stochastic depth")
    layers: Annotated[int | list[int], NotTruth] | None = Field(
        None, description="ViT: number of blocks; ResNet: four such numbers"
    )
    width: Count | None = Field(None, description="ViT: width")
    head_width: Count | None = Field(None, description="ViT: width of an attention head")
    mlp_ratio: Positive | None = Field(None, description="ViT: width of the MLP over width")
    patch_size: Count | None = Field(None, description="ViT: patch side in pixels")
    patch_dropout: BelowOne | None = Field(None, description="ViT: share of patches left out in training (FLIP)")
    pool_type: Literal["tok", "avg"] | None = Field(
        None, description="ViT: tok, the class token; avg, the mean of all patches"
    )

    @field_validator("layers")
    @classmethod
    def _some_blocks(cls, layers: int | list[int] | None) -> int | list[int] | None:
        if isinstance(layers, list) and len(layers) != 4:
            raise ValueError("should be four numbers of blocks for a ResNet, one number for a ViT")
        if layers is not None and min(layers if isinstance(layers, list) else [layers]) < 1:
            raise ValueError("there must be at least one block")
        return layers


class TextTower(Section):
    """The text tower: open_clip's transformer, or a Hugging Face model. Names are open_clip's."""

    hf_model_name: PathText | None = Field(
        None, description="a Hugging Face model: local folder, package:NAME/PATH (see docs/models.md) or hub name"
    )
    hf_model_pretrained: bool | None = Field(None, description="false: random weights instead of its own")
    hf_tokenizer_name: PathText | None = Field(None, description="its tokenizer, where that is another folder or name")
    hf_pooler_type: str | None = Field(None, description="mean_pooler, max_pooler or cls_pooler")
    hf_proj_type: str | None = Field(None, description="head: linear, mlp or residual (not in open_clip)")
    context_length: Annotated[int, Field(ge=3), NotTruth] | None = Field(
        None, description="tokens of a caption, its first and last included; longer ones are cut"
    )
    vocab_size: Count | None = Field(None, description="open_clip: 49408")
    width: Count | None = Field(None, description="transformer: width")
    heads: Count | None = Field(None, description="transformer: attention heads")
    layers: Count | None = Field(None, description="transformer: blocks")
    mlp_ratio: Positive | None = Field(None, description="transformer: width of the MLP over width")


class Model(Section):
    """The dual encoder: an open_clip config by name, two towers, or pretrained weights that say what they are."""

    name: str | None = Field(None, description="an open_clip config such as ViT-B-32 or RN50")
    pretrained: PathText | None = Field(
        None,
        description="weights of the whole model: a tag of name, a file, a run, or, as the only key, any model's name",
    )
    image_size: Count | None = Field(None, description="side of the square input in pixels; needed with towers")
    image_mean: tuple[float, float, float] | None = Field(
        None, description="mean of red, green and blue in [0, 1]; null: that of the weights, or open_clip's"
    )
    image_std: tuple[Positive, Positive, Positive] | None = Field(None, description="standard deviation, likewise")
    image_interpolation: Literal["bicubic", "bilinear"] | None = Field(
        None, description="filter of resizing in training and evaluation; null: that of the weights, or bicubic"
    )
    image_resize_mode: Literal["shortest", "longest", "squash"] | None = Field(
        None, description="what becomes as long as image_size in evaluation; null: as the weights say, or shortest"
    )
    embed_dim: Count | None = Field(None, description="width of the shared space (with towers)")
    vision: VisionTower | None = Field(None, description="image tower, where no name is given")
    text: TextTower | None = Field(None, description="text tower, where no name is given")

    @field_validator("image_mean", "image_std", mode="before")
    @classmethod
    def _three_colors(cls, value: Any) -> Any:
        if value is not None and (not isinstance(value, list | tuple) or len(value) != 3):
            raise ValueError("should be three numbers, of red, green and blue, such as [0.5, 0.5, 0.5]")
        return value

    @model_validator(mode="after")
    def _name_or_towers(self) -> Model:
        towers = {"embed_dim": self.embed_dim, "vision": self.vision, "text": self.text, "image_size": self.image_size}
        if self.name is None:
            spelled = any(towers[key] is not None for key in ("embed_dim", "vision", "text"))
            if self.pretrained is not None and not spelled:
                return self  # the architecture comes with the weights
            missing = [key for key, value in towers.items() if value is None]
            if missing:
                raise ValueError(
                    f"give model.name, or all of embed_dim, image_size, vision, text; missing: {missing}; "
                    "or model.pretrained alone, where it says what it is"
                )
        elif any(towers[key] is not None for key in ("embed_dim", "vision", "text")):
            raise ValueError(f"model.name={self.name} already says what the towers are: drop embed_dim, vision, text")
        return self
