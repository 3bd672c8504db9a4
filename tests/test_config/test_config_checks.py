"""Settings without effect are refused or warned about, and settings that work are not."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bimodal_cl.config.checks import (
    check_batch_norms,
    check_best,
    check_config,
    check_patches,
    check_precision,
    check_run,
)
from bimodal_cl.config.checks.launch import check_launch, check_process_count, parse_launcher_flags
from bimodal_cl.config.checks.world import World
from bimodal_cl.config.schema import Config
from bimodal_cl.config.yaml_files import load_config, save_config
from bimodal_cl.errors import SettingRefused

ROOT = Path(__file__).parents[2]
TOWERS = {"embed_dim": 8, "image_size": 32, "vision": {"layers": 1}, "text": {"layers": 1}}
HERE = World("cpu", 1, 1, num_cores=4, num_steps=1000, num_remote_shards=0, num_pipe_shards=0)
GPUS = replace(HERE, device="cuda", num_processes=4, num_local_processes=2)


FSDP_1 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1", "FSDP_RESHARD_AFTER_FORWARD": "true"}
FSDP_2 = {**FSDP_1, "FSDP_VERSION": "2"}  # what the launcher sets by default


def config(**sections: Any) -> Config:
    values: dict[str, Any] = {"output": "run", "data": {"train": "shards"}, "model": {"name": "RN50"}}
    values |= {"loss": {"name": "clip"}, "train": {"num_epochs": 1}}
    for name, section in sections.items():
        same = {**values.get(name, {}), **section} if name in ("data", "train") else section
        values[name] = same
    return Config.model_validate(values)


def concerns(check: Any, *arguments: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check(*arguments)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"train": {"global_batch_size": 1}}, r"train.global_batch_size=1: a single pair has no negatives"),
        ({"optim": {"learning_rate": 1e-4, "min_learning_rate": 1e-3}}, r"min_learning_rate=0.001 exceeds .*=0.0001"),
        (
            {"model": {**TOWERS, "vision": {"layers": 1, "width": 64, "head_width": 48}}},
            "head_width=48 does not divide model.vision.width=64",
        ),
    ],
)
def test_refused_from_the_config_alone(sections, expected):
    with pytest.raises(SettingRefused, match=expected):
        check_config(config(**sections))


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"optim": {"schedule": "constant", "min_learning_rate": 1e-5}}, "optim.min_learning_rate=1e-05 has no effect"),
        ({"optim": {"learning_rate": 0.1, "min_learning_rate": 0.1}}, "optim.schedule=cosine has no effect"),
        (
            {
                "data": {"features": "f", "num_workers": 3},
                "optim": {"image": {"lock": True}, "text": {"lock": True}},
            },
            "data.num_workers has no effect with data.features",
        ),
        ({"train": {"evaluate_every": 5}}, "train.evaluate_every=5 has no effect: there are no data to score on"),
        ({"data": {"cache_gb": 0, "cache_dir": "c"}}, "data.cache_dir=c has no effect with data.cache_gb=0"),
        (
            {
                "model": {
                    **TOWERS,
                    "pretrained": "w.pt",
                    "vision": {"timm_model_name": "test_vit", "timm_model_pretrained": True},
                }
            },
            "model.vision.timm_model_pretrained=true has no effect: model.pretrained=w.pt replaces",
        ),
        (
            {"model": {**TOWERS, "pretrained": "w.pt", "text": {"hf_model_name": "x", "hf_model_pretrained": True}}},
            "model.text.hf_model_pretrained=true has no effect",
        ),
        ({"data": {"shuffle_window": 1}}, "data.shuffle_window=1: samples keep their order within a shard"),
        ({"data": {"train": [{"folder": "a", "weight": 3}]}}, r"weight=3.0 has no effect on the only data set"),
        ({"loss": {"name": "clip", "tile_size": 257}}, "loss.tile_size=257 is more than the global batch of 256"),
    ],
)
def test_warned_of_from_the_config_alone(sections, expected):
    (line,) = concerns(check_config, config(**sections))
    assert expected in line and "\n" not in line


@pytest.mark.parametrize(
    ("sections", "world", "expected"),
    [
        ({"train": {"global_batch_size": 2}}, GPUS, "=2 cannot be shared by 4 processes; use a multiple, such as 4"),
        ({"train": {"global_batch_size": 15}}, GPUS, "=15 cannot be shared by 4 processes; use a multiple, such as 16"),
        (
            {"train": {"global_batch_size": 30, "accumulate_features": 3}},
            GPUS,
            "=30 cannot be shared by 4 processes; use a multiple, such as 24",
        ),
        (
            {"train": {"global_batch_size": 256, "accumulate_features": 3}},
            GPUS,
            r"train.accumulate_features=3 does not divide the 64 pairs of a process \(train.global_batch_size=256 over "
            r"4 processes\); use train.accumulate_features=4 or train.global_batch_size=252",
        ),
        ({"train": {"global_batch_size": 2, "accumulate_features": 8}}, HERE, "=2 or train.global_batch_size=8"),
    ],
)
def test_refused_in_a_world(sections, world, expected):
    with pytest.raises(SettingRefused, match=expected):
        check_run(config(**sections), world)


@pytest.mark.parametrize(
    ("sections", "world", "expected"),
    [
        ({}, replace(HERE, num_steps=100), "optim.warmup_steps=100 is not shorter than the run of 100 steps: the"),
        ({"optim": {"warmup_steps": 4000, "learning_rate": 0.2}}, HERE, "only rises, to 0.05 of 0.2"),
        ({"train": {"log_every": 1001}}, HERE, "train.log_every=1001: more than the run's 1000 steps"),
        ({"data": {"val": "v"}, "train": {"evaluate_every": 1001}}, HERE, "train.evaluate_every=1001: more than"),
        ({"checkpoint": {"every": 5000}}, HERE, "checkpoint.every=5000: more than the run's 1000 steps"),
        ({"data": {"num_workers": 5}}, HERE, "data.num_workers=5: more processes than this machine's 4 cores"),
        ({"data": {"num_workers": 3}}, GPUS, "num_workers=3 on each of 2 ranks here: more processes than"),
        (
            {"data": {"num_workers": 4}, "optim": {"warmup_steps": 0}},
            replace(HERE, num_steps=3),
            "data.num_workers=4: the run has 3 batches",
        ),
        ({"loss": {"name": "sogclr", "table_device": "cpu"}}, HERE, "loss.table_device=cpu has no effect"),
        ({"loss": {"name": "isogclr", "tables": "sharded"}}, HERE, "loss.tables=sharded has no effect on one process"),
        ({"data": {"cache_dir": "c"}}, HERE, "data.cache_dir=c: no effect, because all shards are local files"),
        ({"data": {"cache_gb": 3}}, HERE, "data.cache_gb=3.0: no effect"),
        ({"data": {"allow_pipe": True}}, replace(HERE, num_remote_shards=1), "data.allow_pipe=true has no effect"),
    ],
)
def test_warned_of_in_a_world(sections, world, expected):
    (line,) = concerns(check_run, config(**sections), world)
    assert expected in line and "\n" not in line


@pytest.mark.parametrize(
    ("sections", "world"),
    [
        ({"train": {"precision": "fp16", "global_batch_size": 8}}, GPUS),
        ({"train": {"precision": "bf16"}}, HERE),
        ({"optim": {"warmup_steps": 999}}, HERE),
        ({"loss": {"name": "sogclr", "table_device": "cpu", "tables": "sharded"}}, GPUS),
        (
            {"data": {"allow_pipe": True, "cache_dir": "c", "num_workers": 4}},
            replace(HERE, num_remote_shards=1, num_pipe_shards=1),
        ),
        ({"data": {"num_workers": 2}}, replace(HERE, num_cores=1)),  # the default, which the user did not set
        ({"data": {"val": "v"}, "train": {"evaluate_every": 1000}, "checkpoint": {"every": 1000}}, HERE),
    ],
)
def test_settings_that_work_give_no_warning(sections, world):
    assert concerns(check_config, config(**sections)) == concerns(check_run, config(**sections), world) == []


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "train").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_are_sound_and_stay_so_when_saved(path, tmp_path):
    save_config(load_config(path), tmp_path / "config.yaml")  # the saved file names every key, even defaults
    small = path.stem.startswith(("flickr8k", "quickstart"))
    world = HERE if small else replace(GPUS, num_cores=48, num_steps=100_000)
    for each in (path, tmp_path / "config.yaml"):
        assert concerns(check_config, load_config(each)) == concerns(check_run, load_config(each), world) == []


SCORES = [
    "retrieval/image_retrieval_recall@1",
    "retrieval/image_retrieval_median_rank",
    "retrieval/text_retrieval_mean_rank",
    "zero_shot/acc1",
]


@pytest.mark.parametrize(
    ("best", "expected"),
    [
        ("zero_shot/acc5", "no score 'zero_shot/acc5'; did you mean 'zero_shot/acc1'"),
        ("acc1", "no score 'acc1'; did you mean 'zero_shot/acc1'"),
        ("retrieval/image_retrieval_recall@2", "did you mean 'retrieval/image_retrieval_recall@1'"),
        (
            "retrieval/image_retrieval_median_rank",
            "smaller is better there, but the largest would be kept; valid: ",
        ),
        ("retrieval/text_retrieval_mean_rank", "smaller is better there, but the largest would be kept; valid: "),
    ],
)
def test_a_best_score_that_no_evaluation_gives(best, expected):
    with pytest.raises(SettingRefused, match=expected):
        check_best(best, SCORES)


def test_a_best_score_needs_its_data():
    with pytest.raises(SettingRefused, match=r"checkpoint.best=zero_shot/acc1: needs data.zero_shot"):
        check_best("zero_shot/acc1", SCORES[:3])
    check_best("zero_shot/acc1", SCORES)
    check_best(None, [])


def test_half_precision_needs_an_accelerator():
    with pytest.raises(SettingRefused, match=r"train.precision=fp16 is not available on the CPU.*use bf16 or float32"):
        check_precision("fp16", "cpu")
    check_precision("fp16", "cuda")
    check_precision("bf16", "cpu")


def test_pixels_outside_every_patch():
    (line,) = concerns(check_patches, 100, 16)
    assert "model.image_size=100 is not a multiple of the patch size 16" in line and "use 96 or 112" in line
    assert concerns(check_patches, 96, 16) == []


def test_batch_norms_of_micro_batches():
    (line,) = concerns(check_batch_norms, 20, 4, 64)
    assert "train.accumulate_features=4: the model's 20 batch norms" in line
    assert "micro-batches of 16 pairs, not from all 64 of a process" in line
    assert concerns(check_batch_norms, 20, 1, 64) == concerns(check_batch_norms, 0, 4, 64) == []


@pytest.mark.parametrize(
    ("environment", "flags", "expected"),
    [
        ({"ACCELERATE_MIXED_PRECISION": "fp16"}, {}, "mixed_precision=fp16 differs from train.precision=bf16"),
        ({"ACCELERATE_MIXED_PRECISION": "fp8"}, {}, "mixed_precision=fp8 is not supported"),
        ({"ACCELERATE_MIXED_PRECISION": "no"}, {"mixed_precision": "no"}, "mixed_precision=no differs from"),
        (
            {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"},
            {},
            "gradient_accumulation_steps=4: there is no accumulation",
        ),
        ({}, {"gradient_accumulation_steps": "8"}, "gradient_accumulation_steps=8: .* train.accumulate_features=8"),
        (FSDP_1, {}, r"fsdp_version=1 is not supported; use --fsdp_version 2"),
        ({"ACCELERATE_USE_FSDP": "true"}, {}, "fsdp_version=1 is not supported"),
        ({**FSDP_2, "FSDP_RESHARD_AFTER_FORWARD": "shard_grad_op"}, {}, "fsdp_reshard_after_forward=.*; use false"),
        ({**FSDP_2, "FSDP_OFFLOAD_PARAMS": "true"}, {}, "fsdp_offload_params=true is not supported"),
        (
            {**FSDP_2, "FSDP_ACTIVATION_CHECKPOINTING": "true"},
            {},
            "fsdp_activation_checkpointing=true is not .*; leave it out, and set train.grad_checkpointing=true",
        ),
        (
            {**FSDP_2, "FSDP_AUTO_WRAP_POLICY": "SIZE_BASED_WRAP"},
            {},
            ".*SIZE_BASED_WRAP is not supported; leave it out",
        ),
        ({**FSDP_2, "FSDP_IGNORED_MODULES": "visual"}, {}, "fsdp_ignored_modules is not supported"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, {}, r"DeepSpeed \(--use_deepspeed\) is not supported"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, {}, "Megatron-LM"),
        ({}, {"num_processes": "2"}, "num_processes=2, but it started one"),
    ],
)
def test_launcher_settings_that_differ_are_refused(environment, flags, expected):
    with pytest.raises(SettingRefused, match=f"accelerate launch: {expected}"):
        check_launch(config(train={"precision": "bf16"}), environment, flags)


@pytest.mark.parametrize(
    ("environment", "flags"),
    [
        ({}, {}),
        ({"ACCELERATE_MIXED_PRECISION": "no"}, {}),  # what the launcher sets by default
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, {"mixed_precision": "bf16"}),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1"}, {"gradient_accumulation_steps": "1"}),
        ({"WORLD_SIZE": "2"}, {"num_processes": "2"}),
        ({"ACCELERATE_USE_FSDP": "false"}, {"num_processes": "1"}),
        (FSDP_2, {}),
        ({**FSDP_2, "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}, {}),
    ],
)
def test_launcher_settings_that_agree_are_accepted(environment, flags):
    check_launch(config(train={"precision": "bf16"}), environment, flags)


def test_fsdp_with_fp16_and_on_one_process():
    with pytest.raises(SettingRefused, match=r"train.precision=fp16 is not supported with FSDP; use bf16"):
        check_launch(config(train={"precision": "fp16"}), FSDP_2, {})
    assert concerns(check_run, config(), replace(GPUS, fsdp=True)) == []
    (line,) = concerns(check_run, config(), replace(HERE, fsdp=True))
    assert "use_fsdp has no effect on one process" in line


def test_processes_that_do_not_find_one_another_are_refused():
    with pytest.raises(SettingRefused, match=r"2 processes were started .* each would train alone"):
        check_process_count(1, {"WORLD_SIZE": "2"})
    check_process_count(2, {"WORLD_SIZE": "2"})
    check_process_count(1, {})


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        ("accelerate launch --mixed_precision bf16 -m bimodal_cl.train --config x", {"mixed_precision": "bf16"}),
        (
            "python /bin/accelerate launch --num-processes=2 -m bimodal_cl.train --num_processes 9",
            {"num_processes": "2"},
        ),
        ("/bin/accelerate-launch --num_processes 4 /x/bimodal-train --seed 1", {"num_processes": "4"}),
        ("python -m accelerate.commands.launch --num_processes 3 mine.py --seed 1", {"num_processes": "3"}),
        ("bash -c launch --mixed_precision bf16", {}),
        ("", {}),
    ],
)
def test_flags_of_the_launcher_end_where_ours_begin(line, flags):
    assert parse_launcher_flags(line.split(" ")) == flags
