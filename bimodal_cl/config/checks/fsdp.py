"""Refuse settings of FSDP that ``accelerate launch`` accepts and this program would not follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bimodal_cl.config.schema import Config

Environment = Mapping[str, str]
Flags = Mapping[str, str]

_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")


def asks_for_fsdp(environment: Environment) -> bool:
    """Return whether the launcher was told to use FSDP."""
    return environment.get("ACCELERATE_USE_FSDP", "false").lower() in _TRUE


def _version_1(config: Config, environment: Environment, flags: Flags) -> str | None:
    version = environment.get("FSDP_VERSION", "1")
    if version == "2":
        return None
    return f"fsdp_version={version} is not supported; use --fsdp_version 2 (in a file: fsdp_config: fsdp_version: 2)"


def _loss_scaling(config: Config, environment: Environment, flags: Flags) -> str | None:
    if config.train.precision == "fp16":
        return "train.precision=fp16 is not supported with FSDP; use bf16 or float32, or leave --use_fsdp out"
    return None


def _unknown_resharding(config: Config, environment: Environment, flags: Flags) -> str | None:
    value = environment.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower()
    if value in (*_TRUE, *_FALSE):
        return None
    nearest = "false" if value in ("shard_grad_op", "no_shard", "2", "3") else "true"
    return f"fsdp_reshard_after_forward={value} belongs to FSDP version 1; use {nearest} (valid: true, false)"


def _other_wrapping(config: Config, environment: Environment, flags: Flags) -> str | None:
    if environment.get("FSDP_AUTO_WRAP_POLICY", "").upper() == "SIZE_BASED_WRAP":
        return (
            "fsdp_auto_wrap_policy=SIZE_BASED_WRAP is not supported; leave it out (the blocks of both towers are "
            "found), or use TRANSFORMER_BASED_WRAP with fsdp_transformer_layer_cls_to_wrap"
        )
    return None


def _not_followed(config: Config, environment: Environment, flags: Flags) -> str | None:
    for name, nearest in (
        ("OFFLOAD_PARAMS", "leave it out"),
        ("ACTIVATION_CHECKPOINTING", "leave it out, and set train.grad_checkpointing=true"),
        ("ACTIVATION_CHECKPOINTING_OFFLOAD", "leave it out, and set train.grad_checkpointing=true"),
    ):
        if environment.get(f"FSDP_{name}", "false").lower() in _TRUE:
            return f"fsdp_{name.lower()}=true is not supported; {nearest}"
    if "FSDP_IGNORED_MODULES" in environment:
        return "fsdp_ignored_modules is not supported: all parameters but scalars are sharded; leave it out"
    return None


_REFUSALS: tuple[Callable[[Config, Environment, Flags], str | None], ...] = (
    _version_1,
    _loss_scaling,
    _unknown_resharding,
    _other_wrapping,
    _not_followed,
)


def check_fsdp(config: Config, environment: Environment, flags: Flags) -> str | None:
    """Return one line about the first setting of FSDP that would not be followed; None without FSDP."""
    if not asks_for_fsdp(environment):
        return None
    return next(filter(None, (check(config, environment, flags) for check in _REFUSALS)), None)
