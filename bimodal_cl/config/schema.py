"""Every knob of a training run: one frozen schema. Imports no torch, so that ``--help`` is fast.

Reading it from YAML and flags, and the messages for mistakes in them, are in ``config_source.py``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Union

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from bimodal_cl.files.paths import expand_path


def _no_truth(value: Any) -> Any:
    """YAML's ``yes`` would be the number 1 of whatever is counted."""
    if isinstance(value, bool):
        raise ValueError("should be a number")
    return value


NotTruth = BeforeValidator(_no_truth)
Fraction = Annotated[float, Field(ge=0, le=1), NotTruth]
BelowOne = Annotated[float, Field(ge=0, lt=1), NotTruth]
Weight = Annotated[float, Field(gt=0, le=1), NotTruth]
Positive = Annotated[float, Field(gt=0), NotTruth]
NotNegative = Annotated[float, Field(ge=0), NotTruth]
Cosine = Annotated[float, Field(ge=-1, le=1), NotTruth]
Count = Annotated[int, Field(ge=1), NotTruth]
CountOrZero = Annotated[int, Field(ge=0), NotTruth]
PathText = Annotated[str, AfterValidator(expand_path)]  # holds, and config.yaml stores, what ~ and $NAME stood for


class Section(BaseModel):
    """A frozen group of fields that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @model_serializer(mode="wrap")
    def _without_unset(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        return {
            key: value for key, value in serialize(self).items() if value is not None or fields[key].default is not None
        }


class TrainSet(Section):
    """One of several data sets that are trained on together."""

    folder: PathText = Field(description="folder of shards with manifest.json (see bimodal-prep)")
    repeat: Positive | None = Field(None, description="how often an epoch draws its images; 0.5: every other epoch")
    weight: Positive | None = Field(None, description="its share of an epoch as long as all sets, instead of repeat")


def _as_sets(value: Any) -> Any:
    """A folder alone stands for a list of one."""
    values = [value] if isinstance(value, str | dict) else value
    if not isinstance(values, list | tuple):
        raise ValueError("should be a folder, or a list of {folder, repeat | weight}")
    return [{"folder": each} if isinstance(each, str) else each for each in values]


def _as_written(sets: tuple[TrainSet, ...]) -> Any:
    values = [one.model_dump(mode="json") for one in sets]
    return values[0]["folder"] if len(values) == 1 and list(values[0]) == ["folder"] else values


class Data(Section):
    """What is trained on, and in which order."""

    train: Annotated[tuple[TrainSet, ...], BeforeValidator(_as_sets), PlainSerializer(_as_written)] = Field(
        description="folder of shards with manifest.json (see bimodal-prep), or a list of {folder, repeat | weight}"
    )
    val: PathText | None = Field(None, description="folder of shards for retrieval scores during training")
    zero_shot: PathText | None = Field(None, description="classification data for zero-shot scores during training")
    num_workers: CountOrZero = Field(2, description="worker processes that read and decode, on each rank; 0: none")
    crop_scale: tuple[Fraction, Fraction] = Field(
        (0.9, 1.0), description="smallest and largest area share of the random crop (open_clip: 0.9 to 1)"
    )
    flip: bool = Field(False, description="mirror half of the images; wrong where captions say left or right")
    shuffle_window: Count = Field(8192, description="samples that the bounded shuffle mixes at a time, on each lane")
    max_bad_fraction: Fraction = Field(0.01, description="stop when a larger share of the samples is unusable")
    cache_dir: PathText | None = Field(None, description="where shards from elsewhere are kept; null: the user's cache")
    cache_gb: NotNegative = Field(16.0, description="GiB of shards kept there; 0: rows are fetched one by one")
    allow_pipe: bool = Field(False, description="run the commands of pipe: shards")

    @field_validator("crop_scale", mode="before")
    @classmethod
    def _crop_is_a_pair(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise ValueError("should be [smallest, largest], such as [0.9, 1.0]")
        return value

    @model_validator(mode="after")
    def _weights_for_all_or_none(self) -> Data:
        if not self.train:
            raise ValueError("train names no data set")
        weighted = [one.folder for one in self.train if one.weight is not None]
        plain = [one.folder for one in self.train if one.weight is None]
        if weighted and plain:
            raise ValueError(f"give every data set of train a weight or none; without: {', '.join(plain)}")
        both = [one.folder for one in self.train if one.weight is not None and one.repeat is not None]
        if both:
            raise ValueError(f"data set {both[0]} has a repeat and a weight; give one of them")
        return self

    @model_validator(mode="after")
    def _crop_is_ordered(self) -> Data:
        low, high = self.crop_scale
        if not 0 < low <= high:
            raise ValueError(f"crop_scale={[low, high]} must be [smallest, largest] with 0 < smallest <= largest")
        return self


class VisionTower(Section):
    """The image tower: open_clip's ViT or ResNet, or any timm model. Names are open_clip's."""

    timm_model_name: str | None = Field(None, description="a timm architecture; the fields for ViT are then not used")
    timm_model_pretrained: bool | None = Field(None, description="start from timm's weights (needs the hub)")
    timm_pool: str | None = Field(None, description="timm: avg, token, map, abs_attn, rot_attn or empty")
    timm_proj: Literal["linear", "mlp", ""] | None = Field(None, description="timm: linear, mlp or empty")
    timm_drop: BelowOne | None = Field(None, description="timm: head dropout")
    timm_drop_path: BelowOne | None = Field(None, description="timm: stochastic depth")
    layers: Annotated[int | list[int], NotTruth] | None = Field(
        None, description="ViT: blocks; ResNet: four numbers of blocks"
    )
    width: Count | None = Field(None, description="ViT: width")
    head_width: Count | None = Field(None, description="ViT: width of an attention head")
    mlp_ratio: Positive | None = Field(None, description="ViT: width of the MLP over width")
    patch_size: Count | None = Field(None, description="ViT: patch side in pixels")
    patch_dropout: BelowOne | None = Field(None, description="ViT: share of patches left out in training (FLIP)")
    pool_type: Literal["tok", "avg"] | None = Field(None, description="ViT: of the class token, or of all patches")

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

    hf_model_name: PathText | None = Field(None, description="a Hugging Face model: local folder or hub name")
    hf_model_pretrained: bool | None = Field(None, description="false: random weights instead of its own")
    hf_tokenizer_name: PathText | None = Field(None, description="its tokenizer, where that is another folder or name")
    hf_pooler_type: str | None = Field(None, description="mean_pooler, max_pooler or cls_pooler")
    hf_proj_type: str | None = Field(None, description="linear or mlp")
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
        description="weights for all of it: a tag of name, a file, a run, or any model by its name, alone",
    )
    image_size: Count | None = Field(None, description="side of the square input in pixels; needed with towers")
    embed_dim: Count | None = Field(None, description="width of the shared space (with towers)")
    vision: VisionTower | None = Field(None, description="image tower, where no name is given")
    text: TextTower | None = Field(None, description="text tower, where no name is given")

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


class LossSection(Section):
    """What every loss takes."""

    tile_size: Count | Literal["auto"] | None = Field(
        "auto", description="side of the tiles of similarities held at a time; auto: by batch and memory; null: all"
    )
    mask_repeats: bool = Field(True, description="captions of the same image and repeats are not negatives")


class MarginSection(LossSection):
    """What every loss on the margin takes."""

    products: Literal["float32", "bf16"] = Field(
        "float32", description="bf16: faster matrix products of rounded features; sums and state stay float32"
    )


class TableSection(MarginSection):
    """What every loss with per-anchor tables takes."""

    tables: Literal["replicated", "sharded"] = Field(
        "replicated", description="every rank keeps all rows of the per-anchor tables, or its share of them"
    )
    table_device: Literal["cpu"] | None = Field(None, description="cpu: tables stay there; null: on the train.device")


class CLIP(MarginSection):
    """CLIP: cross-entropy with one learned temperature."""

    name: Literal["clip"]
    tau_init: Positive = Field(0.07, description="initial temperature")
    tau_min: Positive = Field(0.01, description="the temperature stays above it")


class SigLIP(LossSection):
    """SigLIP (Zhai et al., ICCV 2023): a sigmoid for every pair, with learned temperature and bias."""

    name: Literal["siglip"]
    tau_init: Positive = Field(0.1, description="initial temperature")
    tau_min: Positive = Field(0.01, description="the temperature stays above it")
    bias_init: Annotated[float, Field(ge=-1e4, le=1e4), NotTruth] = Field(
        -10.0, description="initial bias of the logits"
    )


class CyCLIP(MarginSection):
    """CyCLIP (Goel et al., NeurIPS 2022): CLIP with cyclic consistency."""

    name: Literal["cyclip"]
    tau_init: Positive = Field(0.07, description="initial temperature")
    tau_min: Positive = Field(0.01, description="the temperature stays above it")
    lambda_in_modal: NotNegative = Field(0.25, description="weight: two images are as similar as their texts")
    lambda_cross_modal: NotNegative = Field(0.25, description="weight: image j, text k as similar as image k, text j")


class MACL(TableSection):
    """MACL (Huang et al., ICML 2023)."""

    name: Literal["macl"]
    tau_base: Positive = Field(0.1, description="temperature at the base alignment")
    alpha: NotNegative = Field(0.5, description="how strongly the temperature follows the alignment")
    alignment_base: Cosine = Field(0.0, description="alignment with tau = tau_base")
    alignment: Literal["batch", "anchor"] = Field("batch", description="of the batch, or one for each image and text")
    mu: Weight = Field(0.1, description="anchor: weight of the new alignment")
    reweight: bool = Field(True, description="gradient scale one; false is the paper's ablation")
    text_tau_base: Positive | None = Field(None, description="texts' tau_base; null: the images'")
    text_alpha: NotNegative | None = Field(None, description="texts' alpha; null: the images'")
    text_alignment_base: Cosine | None = Field(None, description="texts' alignment_base; null: the images'")


class SogCLR(TableSection):
    """SogCLR (Yuan et al., ICML 2022)."""

    name: Literal["sogclr"]
    tau: Positive = Field(0.05, description="fixed temperature")
    gamma: Weight = Field(0.8, description="weight of the new value in u")
    gamma_schedule: Literal["constant", "cosine"] = Field(
        "constant", description="cosine: from 1 to gamma by half time"
    )


class ISogCLR(TableSection):
    """iSogCLR (Qiu et al., ICML 2023)."""

    name: Literal["isogclr"]
    tau_init: Positive = Field(0.01, description="initial temperature of every image and text")
    tau_min: Positive = Field(0.005, description="lower bound of the temperatures")
    tau_max: Positive = Field(1.0, description="upper bound of the temperatures")
    gamma: Weight = Field(0.8, description="weight of the new value in u")
    gamma_schedule: Literal["constant", "cosine"] = Field(
        "constant", description="cosine: from 1 to gamma by half time"
    )
    rho: NotNegative = Field(6.0, description="KL radius; above log of the negatives, tau falls to tau_min")
    rho_fraction: Fraction | None = Field(None, description="rho as a share of log of the negatives, instead of rho")
    beta: Weight = Field(0.9, description="weight of the new temperature gradient")
    eta: Positive = Field(0.03, description="step size of the temperatures")
    eta_schedule: Literal["constant", "cosine", "exp"] = Field(
        "constant", description="how eta falls over the training"
    )
    eta_min: NotNegative = Field(1e-4, description="cosine, exp: what eta falls towards")
    eta_decay: Weight = Field(0.00124, description="exp: what is left of eta - eta_min at the end")
    tau_optimizer: Literal["momentum", "adam"] = Field(
        "momentum", description="of the temperatures (FastCLIP-v2: adam)"
    )
    adam_beta1: BelowOne = Field(0.9, description="adam: weight of the old mean gradient")
    adam_beta2: BelowOne = Field(0.999, description="adam: weight of the old mean square")
    adam_eps: Positive = Field(1e-8, description="adam: added to the denominator")


class RGCLGlobal(TableSection):
    """RGCL-g (FastCLIP-v3, arXiv 2407.01445): SogCLR's average with one learned temperature and a KL radius."""

    name: Literal["rgcl_g"]
    tau_init: Positive = Field(0.07, description="initial temperature")
    tau_min: Positive = Field(0.01, description="the temperature stays above it")
    gamma: Weight = Field(0.2, description="weight of the new value in u")
    gamma_schedule: Literal["constant", "cosine"] = Field("cosine", description="cosine: from 1 to gamma by half time")
    rho: NotNegative = Field(6.5, description="KL radius; above log of the negatives, tau falls to tau_min")
    rho_fraction: Fraction | None = Field(None, description="rho as a share of log of the negatives, instead of rho")


Loss = Annotated[
    Union[CLIP, SigLIP, CyCLIP, MACL, SogCLR, ISogCLR, RGCLGlobal],  # noqa: UP007 (help reads it)
    Field(discriminator="name"),
]


class Optim(Section):
    """AdamW, warm-up and decay of the learning rate, gradient clipping."""

    learning_rate: Positive = Field(1e-3, description="peak learning rate")
    min_learning_rate: NotNegative = Field(0.0, description="learning rate at the end of the cosine")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="after the warm-up")
    temperature_learning_rate: Positive | None = Field(
        None, description="constant one of the loss's learned temperature (FastCLIP-v3: 2e-4); null: like the weights"
    )
    warmup_steps: CountOrZero = Field(100, description="steps of linear warm-up")
    weight_decay: NotNegative = Field(0.1, description="of matrices; norms, biases and temperatures have none")
    beta1: BelowOne = Field(0.9, description="AdamW")
    beta2: BelowOne = Field(0.98, description="AdamW")
    eps: Positive = Field(1e-6, description="AdamW")
    max_grad_norm: Positive | None = Field(1.0, description="clip the gradient to this norm; null: do not")


class Train(Section):
    """Length, batch, precision."""

    num_epochs: Count | None = Field(None, description="length of the training; or give num_steps")
    num_steps: Count | None = Field(None, description="length of the training; or give num_epochs")
    global_batch_size: Count = Field(256, description="pairs of a step over all ranks; stays when the ranks change")
    precision: Literal["float32", "bf16", "fp16"] = Field("float32", description="of the towers; losses use float32")
    device: Literal["auto", "cpu"] = Field("auto", description="auto: the accelerator if there is one")
    log_every: Count = Field(10, description="steps between lines of metrics.jsonl")
    evaluate_every: Count | None = Field(None, description="steps between evaluations; null: after every epoch")

    @model_validator(mode="after")
    def _one_length(self) -> Train:
        if (self.num_epochs is None) == (self.num_steps is None):
            raise ValueError("give one of num_epochs and num_steps")
        return self


class Checkpoint(Section):
    """When the run is saved and what is kept."""

    every: Count | None = Field(None, description="steps between checkpoints; null: after every epoch")
    keep_last: Count = Field(2, description="how many of the newest are kept")
    best: str | None = Field(
        None, description="also keep the best by this score, e.g. retrieval/image_retrieval_recall@5 (larger is better)"
    )


class Config(Section):
    """A training run."""

    output: PathText = Field(description="the run's folder")
    seed: Annotated[int, Field(ge=0, lt=2**63), NotTruth] = Field(
        0, description="of initialization, sample order, augmentation and dropout"
    )
    data: Data
    model: Model
    loss: Loss
    optim: Optim = Optim()
    train: Train
    checkpoint: Checkpoint = Checkpoint()

    @model_validator(mode="after")
    def _scores_exist(self) -> Config:
        if self.checkpoint.best is not None and self.data.val is None and self.data.zero_shot is None:
            raise ValueError(f"checkpoint.best={self.checkpoint.best} needs data.val or data.zero_shot to be scored on")
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, without what is None by default and was left so, as ``config.yaml`` holds them."""
        return self.model_dump(mode="json")
