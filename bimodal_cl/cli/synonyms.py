"""Names that other programs use for our flags and values, so that an error can name the right one."""

from __future__ import annotations

from collections.abc import Iterable

from bimodal_cl.errors import nearest

# Flags of the same meaning; a name without dashes is a positional argument. A flag that a command does not know is
# answered with the one of its row that the command knows.
SAME_MEANING = (
    ("--to", "--output", "--out", "--output-dir", "--output-folder", "--dest", "--save-to", "-o"),
    ("--num-workers", "--workers", "--num-proc", "--jobs", "--num-processes", "-j"),
    (
        "--data",
        "--dataset",
        "--dataset-root",
        "--data-dir",
        "--data-path",
        "--val-data",
        "--imagenet-val",
        "--test-data",
    ),
    ("MODEL", "RUN", "--model", "--models", "--checkpoint", "--ckpt", "--pretrained", "--run", "--weights", "--resume"),
    ("--images", "--image-folder", "--image-dir", "--image-root", "--root", "DIR", "--folder", "--input", "--source"),
    ("SHARDS", "--shards", "--tars", "--train-data", "--urls", "--input", "--folder"),
    ("--json", "--annotations", "--annotation-file", "--ann"),
    ("--image-column", "--image-col", "--csv-img-key", "--url-col", "--image-key"),
    ("--caption-column", "--caption-col", "--text-column", "--csv-caption-key", "--caption-key"),
    ("--delimiter", "--csv-separator", "--separator", "--sep"),
    ("--max-side", "--image-size", "--resize", "--size"),
    ("--shard-size", "--samples-per-shard", "--number-sample-per-shard", "--maxcount"),
    ("--overwrite", "--force", "--exist-ok"),
    ("--templates", "--prompts", "--template"),
    ("--classnames", "--classes", "--class-names"),
    ("--precision", "--dtype", "--amp", "--mixed-precision"),
    ("--batch-size", "--bs", "--batch"),
    ("--config-name", "--dataset-config", "--dataset-config-name", "--subset"),
)

# Our values, each with its other spellings in lower case with "_".
OTHER_VALUES = {
    "float32": "fp32 f32 32 32_true full single no float tf32",
    "bf16": "bfloat16 amp_bf16 amp_bfloat16 pure_bf16 bf16_mixed bf16_true fp_bf16",
    "fp16": "float16 half f16 16 16_mixed amp amp_fp16 pure_fp16",
    "auto": "cuda gpu mps xpu npu cuda:0 cuda:1 cuda:2 cuda:3 0",
    "cuda": "gpu nvidia 0 cuda0 gpu:0",
    "constant": "const none fixed flat",
    "clip": "infonce info_nce nce ntxent nt_xent contrastive clip_loss softmax",
    "siglip": "sigmoid siglip_loss",
    "isogclr": "isogclr_new isogclr_new_v1 isogclr_new_v2 fastclip_v2 fastclipv2",
    "sogclr": "fastclip_v1 fastclipv1 sogclr_dro gcl",
    "rgcl_g": "fastclip_v3 fastclipv3 fastclip rgcl rgclg",
    "momentum": "sgd",
    "adam": "adamw",
    "adamw": "adam adam_w fused_adamw adamw_fused adamw_torch",
    "constant_cooldown": "const_cooldown cooldown constant_with_cooldown wsd warmup_stable_decay trapezoidal linear",
    "replicated": "replicate full",
    "sharded": "shard fsdp",
}


def find_value(given: str, choices: Iterable[str]) -> str | None:
    """Return the choice that an unknown value most likely means, or None."""
    choices = list(choices)
    plain = given.casefold().replace("-", "_")
    named = [choice for choice in choices if plain in OTHER_VALUES.get(choice, "").split()]
    joined = [choice for choice in choices if choice.replace("_", "") == plain.replace("_", "")]
    return next(iter(joined + named), None) or nearest(given, choices)
