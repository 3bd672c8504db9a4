"""Refuse settings that cannot do what they say, and warn about settings without effect.

Every check is a function that returns one line or None: of the config (:mod:`~bimodal_cl.config.checks.config_alone`),
or of the config and what the run finds (:mod:`~bimodal_cl.config.checks.world`). A setting without effect is reported
only where the user set it, not where it has its default.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

from bimodal_cl.config.checks.config_alone import CONFIG_REFUSALS, CONFIG_WARNINGS
from bimodal_cl.config.checks.speed import SPEED_REFUSALS, SPEED_WARNINGS
from bimodal_cl.config.checks.world import RUN_REFUSALS, RUN_WARNINGS, World
from bimodal_cl.config.schema import Config
from bimodal_cl.errors import SettingRefused, did_you_mean

_SMALLER_IS_BETTER = ("median_rank", "mean_rank", "left_out")
_AVERAGED = "ema/"  # begins the names of the averaged weights' scores


def check_config(config: Config) -> None:
    """Check a config on its own. Every warning is a ``UserWarning`` of one line.

    Raises:
        SettingRefused: a setting that cannot work.
    """
    _apply((check(config) for check in CONFIG_REFUSALS), (check(config) for check in CONFIG_WARNINGS))


def check_run(config: Config, world: World) -> None:
    """Check a config against the machine and the data of a run. Every warning is a ``UserWarning`` of one line.

    Raises:
        SettingRefused: a setting that cannot work.
    """
    _apply(
        (check(config, world) for check in (*RUN_REFUSALS, *SPEED_REFUSALS)),
        (check(config, world) for check in (*RUN_WARNINGS, *SPEED_WARNINGS)),
    )


def check_precision(precision: str, device: str) -> None:
    """Refuse fp16 where Accelerate would silently train in float32.

    Args:
        precision: ``train.precision``.
        device: ``"cpu"``, ``"cuda"``, ...

    Raises:
        SettingRefused: fp16 on the CPU.
    """
    if precision == "fp16" and device == "cpu":
        raise SettingRefused(
            "train.precision=fp16 is not available on the CPU, where it would be float32; use bf16 or float32"
        )


def check_best(best: str | None, scores: Sequence[str], averaged: bool = False) -> None:
    """Refuse a ``checkpoint.best`` that no evaluation computes, or for which smaller is better.

    Args:
        best: the score's name; None: there is no best checkpoint.
        scores: names of the scores that this run's evaluation gives.
        averaged: whether it also gives those of the averaged weights, whose names begin with ``ema/``.

    Raises:
        SettingRefused: naming the nearest one.
    """
    if best is not None and best.startswith(_AVERAGED) and not averaged:
        raise SettingRefused(f"checkpoint.best={best}: needs ema.decay, and ema.evaluate=true, to be scored")
    scores = [*scores, *(f"{_AVERAGED}{name}" for name in scores)] if averaged else scores
    good = [name for name in scores if not name.endswith(_SMALLER_IS_BETTER)]
    if best is None or best in good:
        return
    if best in scores:
        smaller = f"checkpoint.best={best}: smaller is better there, but the largest would be kept"
        raise SettingRefused(f"{smaller}; valid: {', '.join(good)}")
    task = best.removeprefix(_AVERAGED).partition("/")[0]
    data = {"retrieval": "data.val", "zero_shot": "data.zero_shot"}.get(task)
    if data is not None and not any(name.startswith(task) for name in scores):
        raise SettingRefused(f"checkpoint.best={best}: needs {data} to be scored on")
    same_name = [name for name in good if name.rpartition("/")[2] == best.rpartition("/")[2]]
    near = did_you_mean((same_name or [best])[0], good)
    raise SettingRefused(f"checkpoint.best: no score '{best}'{near}")


def check_patches(image_size: int, patch_size: int) -> None:
    """Warn about pixels that no patch of a ViT covers.

    Args:
        image_size: side of the images in pixels.
        patch_size: side of a patch in pixels.
    """
    rest = image_size % patch_size
    if rest:
        warnings.warn(
            f"model.image_size={image_size} is not a multiple of the patch size {patch_size}: the model never sees the "
            f"last {rest} pixels of a row or column; use {image_size - rest} or {image_size - rest + patch_size}",
            stacklevel=2,
        )


def check_batch_norms(num_batch_norms: int, accumulate_features: int, batch_size: int) -> None:
    """Warn that batch norms see a micro-batch where the loss sees a batch.

    Args:
        num_batch_norms: those of the model that are trained.
        accumulate_features: ``train.accumulate_features``.
        batch_size: pairs of a process.
    """
    if num_batch_norms and accumulate_features > 1:
        warnings.warn(
            f"train.accumulate_features={accumulate_features}: the model's {num_batch_norms} batch norms take their "
            f"statistics from micro-batches of {batch_size // accumulate_features} pairs, not from all {batch_size} of "
            "a process",
            stacklevel=2,
        )


def _apply(refusals: Iterable[str | None], concerns: Iterable[str | None]) -> None:
    for line in filter(None, refusals):
        raise SettingRefused(line)
    for line in filter(None, concerns):
        warnings.warn(line, stacklevel=3)
