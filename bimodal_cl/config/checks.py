"""Settings that cannot do what they say: refused, or warned about where the run goes on as if they were not there.

Every check is a function of the config, or of it and what the run finds (:class:`World`), that returns one line or
None. What is about one loss's hyperparameters alone is checked by that loss, also where it is used without a config.
A setting that has no effect is only spoken of where somebody set it: a default is nobody's wish.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bimodal_cl.config.schema import Config
from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.settings import Section


class SettingRefused(UserError):
    """A setting that cannot do what it says, on any process of a machine."""


_SMALLER_IS_BETTER = ("median_rank", "left_out")


@dataclass(frozen=True)
class World:
    """What a run finds when it starts.

    Args:
        device: ``"cpu"``, ``"cuda"``, ...
        num_processes: ranks.
        num_local_processes: those of them on this machine.
        num_cores: CPU cores that this machine's processes may use.
        num_steps: optimizer steps of the training.
        num_remote_shards: shards of training and validation data that are not files of this machine.
        num_pipe_shards: those of them that are a command's output.
    """

    device: str
    num_processes: int
    num_local_processes: int
    num_cores: int
    num_steps: int
    num_remote_shards: int
    num_pipe_shards: int


def check_config(config: Config) -> None:
    """Refuse and warn of what the config alone tells. Warnings are ``UserWarning`` of one line each.

    Raises:
        SettingRefused: a setting that cannot work.
    """
    _apply((check(config) for check in CONFIG_REFUSALS), (check(config) for check in CONFIG_WARNINGS))


def check_run(config: Config, world: World) -> None:
    """Refuse and warn of what does not go with where the run is and what it reads; see :func:`check_config`.

    Raises:
        SettingRefused: a setting that cannot work.
    """
    _apply((check(config, world) for check in RUN_REFUSALS), (check(config, world) for check in RUN_WARNINGS))


def check_precision(precision: str, device: str) -> None:
    """Refuse fp16 where Accelerate would train in float32 without a word.

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


def check_best(best: str | None, scores: Sequence[str]) -> None:
    """Refuse a ``checkpoint.best`` that no evaluation will give, or that is better when smaller.

    Args:
        best: the score's name; None: there is no best checkpoint.
        scores: names of the scores that this run's evaluation gives.

    Raises:
        SettingRefused: naming the nearest one.
    """
    good = [name for name in scores if not name.endswith(_SMALLER_IS_BETTER)]
    if best is None or best in good:
        return
    if best in scores:
        smaller = f"checkpoint.best={best}: smaller is better there, but the largest would be kept"
        raise SettingRefused(f"{smaller}; valid: {', '.join(good)}")
    data = {"retrieval": "data.val", "zero_shot": "data.zero_shot"}.get(best.partition("/")[0])
    if data is not None and not any(name.startswith(best.partition("/")[0]) for name in scores):
        raise SettingRefused(f"checkpoint.best={best}: needs {data} to be scored on")
    same_name = [name for name in good if name.rpartition("/")[2] == best.rpartition("/")[2]]
    near = did_you_mean((same_name or [best])[0], good)
    raise SettingRefused(f"checkpoint.best: no score '{best}'{near}")


def check_patches(image_size: int, patch_size: int) -> None:
    """Warn of pixels that no patch of a ViT covers.

    Args:
        image_size: side of the images in pixels.
        patch_size: side of a patch in pixels.
    """
    rest = image_size % patch_size
    if rest:
        warnings.warn(
            f"model.image_size={image_size} is no multiple of the patch size {patch_size}: the model never sees the "
            f"last {rest} pixels of a row or column; use {image_size - rest} or {image_size - rest + patch_size}",
            stacklevel=2,
        )


def _apply(refusals: Iterable[str | None], concerns: Iterable[str | None]) -> None:
    for line in filter(None, refusals):
        raise SettingRefused(line)
    for line in filter(None, concerns):
        warnings.warn(line, stacklevel=3)


def _is_set(section: Section | None, key: str) -> bool:
    """Whether somebody gave a key another value than its default (a run's own config.yaml names all keys)."""
    return (
        section is not None
        and key in section.model_fields_set
        and getattr(section, key) != type(section).model_fields[key].default
    )


# Refused, from the config alone


def _batch_without_negatives(config: Config) -> str | None:
    if config.train.global_batch_size == 1:
        return "train.global_batch_size=1: a single pair has no negatives to be told from; use 2 or more"
    return None


def _learning_rate_that_rises(config: Config) -> str | None:
    optim = config.optim
    if optim.schedule == "cosine" and optim.min_learning_rate > optim.learning_rate:
        return (
            f"optim.min_learning_rate={optim.min_learning_rate} exceeds optim.learning_rate={optim.learning_rate}: the "
            "learning rate would rise to it; lower it"
        )
    return None


def _heads_that_do_not_fit(config: Config) -> str | None:
    vision = config.model.vision
    if vision is not None and vision.width and vision.head_width and vision.width % vision.head_width:
        return (
            f"model.vision.head_width={vision.head_width} does not divide model.vision.width={vision.width}: heads of "
            "that width do not fill it"
        )
    return None


# Warned of, from the config alone


def _idle_min_learning_rate(config: Config) -> str | None:
    optim = config.optim
    if optim.schedule == "constant" and _is_set(optim, "min_learning_rate"):
        return (
            f"optim.min_learning_rate={optim.min_learning_rate} has no effect with optim.schedule=constant: leave it "
            "out, or take the cosine"
        )
    if optim.schedule == "cosine" and optim.min_learning_rate == optim.learning_rate:
        return (
            f"optim.schedule=cosine has no effect: optim.min_learning_rate={optim.min_learning_rate} is the "
            "learning_rate; lower it, or set optim.schedule to constant"
        )
    return None


def _evaluation_of_nothing(config: Config) -> str | None:
    if _is_set(config.train, "evaluate_every") and config.data.val is None and config.data.zero_shot is None:
        return (
            f"train.evaluate_every={config.train.evaluate_every} has no effect: there are no data to score on; give "
            "data.val or data.zero_shot, or leave it out"
        )
    return None


def _cache_of_nothing(config: Config) -> str | None:
    if config.data.cache_gb == 0 and _is_set(config.data, "cache_dir"):
        return (
            f"data.cache_dir={config.data.cache_dir} has no effect with data.cache_gb=0, which keeps nothing: raise "
            "cache_gb, or leave cache_dir out"
        )
    return None


def _weights_that_are_replaced(config: Config) -> str | None:
    model = config.model
    if model.pretrained is None:
        return None
    for part, section, key in (
        ("vision", model.vision, "timm_model_pretrained"),
        ("text", model.text, "hf_model_pretrained"),
    ):
        if section is not None and _is_set(section, key) and getattr(section, key):
            return (
                f"model.{part}.{key}=true has no effect: model.pretrained={model.pretrained} replaces those weights; "
                "leave one of them out"
            )
    return None


def _order_of_the_shards(config: Config) -> str | None:
    if config.data.shuffle_window == 1:
        return (
            "data.shuffle_window=1: samples keep their order within a shard, epoch after epoch; raise it unless they "
            "were shuffled when they were written"
        )
    return None


def _weight_of_the_only_set(config: Config) -> str | None:
    if len(config.data.train) == 1 and config.data.train[0].weight is not None:
        return (
            f"data.train: weight={config.data.train[0].weight} has no effect on the only data set: leave it out, or "
            "set its repeat"
        )
    return None


def _tile_larger_than_all(config: Config) -> str | None:
    size, batch = config.loss.tile_size, config.train.global_batch_size
    if isinstance(size, int) and size > batch:
        return (
            f"loss.tile_size={size} is more than the global batch of {batch}: there is a single tile, computed twice; "
            "use auto, null or a smaller one"
        )
    return None


CONFIG_REFUSALS: tuple[Callable[[Config], str | None], ...] = (
    _batch_without_negatives,
    _learning_rate_that_rises,
    _heads_that_do_not_fit,
)
CONFIG_WARNINGS: tuple[Callable[[Config], str | None], ...] = (
    _idle_min_learning_rate,
    _evaluation_of_nothing,
    _cache_of_nothing,
    _weights_that_are_replaced,
    _order_of_the_shards,
    _weight_of_the_only_set,
    _tile_larger_than_all,
)


# Refused, in a world


def _batch_that_cannot_be_shared(config: Config, world: World) -> str | None:
    size, ranks = config.train.global_batch_size, world.num_processes
    if size % ranks == 0:
        return None
    nearest = max(round(size / ranks), 1) * ranks
    return f"train.global_batch_size={size} cannot be shared by {ranks} processes; use a multiple, such as {nearest}"


# Warned of, in a world


def _warmup_without_end(config: Config, world: World) -> str | None:
    optim, steps = config.optim, world.num_steps
    if optim.warmup_steps < steps:
        return None
    reached = optim.learning_rate * steps / optim.warmup_steps
    return (
        f"optim.warmup_steps={optim.warmup_steps} is not shorter than the run of {steps} steps: the learning rate only "
        f"rises, to {reached:.3g} of {optim.learning_rate:.3g}; lower it or train longer"
    )


def _never_before_the_end(config: Config, world: World) -> str | None:
    seldom = [
        f"{name}.{key}={getattr(section, key)}"
        for name, section, key in (
            ("train", config.train, "log_every"),
            ("train", config.train, "evaluate_every"),
            ("checkpoint", config.checkpoint, "every"),
        )
        if _is_set(section, key) and getattr(section, key) > world.num_steps
    ]
    if seldom:
        return (
            f"{', '.join(seldom)}: more than the run's {world.num_steps} steps, so only after the last one; lower it "
            "to have it earlier"
        )
    return None


def _more_workers_than_cores(config: Config, world: World) -> str | None:
    workers = config.data.num_workers * world.num_local_processes
    if _is_set(config.data, "num_workers") and workers > world.num_cores:
        each = f" on each of {world.num_local_processes} ranks here" if world.num_local_processes > 1 else ""
        return (
            f"data.num_workers={config.data.num_workers}{each}: more processes than this machine's {world.num_cores} "
            "cores; they wait for one another, lower it"
        )
    return None


def _more_workers_than_batches(config: Config, world: World) -> str | None:
    if _is_set(config.data, "num_workers") and config.data.num_workers > world.num_steps:
        return (
            f"data.num_workers={config.data.num_workers}: the run has {world.num_steps} batches, so some workers get "
            "none; lower it"
        )
    return None


def _tables_on_the_cpu_anyway(config: Config, world: World) -> str | None:
    if world.device == "cpu" and getattr(config.loss, "table_device", None) == "cpu":
        return "loss.table_device=cpu has no effect: this run is on the CPU, and so are its tables; leave it out"
    return None


def _tables_in_one_piece(config: Config, world: World) -> str | None:
    if world.num_processes == 1 and getattr(config.loss, "tables", None) == "sharded":
        return "loss.tables=sharded has no effect on one process, which keeps all rows; leave it out"
    return None


def _cache_for_local_shards(config: Config, world: World) -> str | None:
    idle = [f"data.{key}={getattr(config.data, key)}" for key in ("cache_dir", "cache_gb") if _is_set(config.data, key)]
    if idle and world.num_remote_shards == 0 and config.data.cache_gb > 0:
        return f"{', '.join(idle)}: no effect, for all shards are files of this machine; leave it out"
    return None


def _no_command_to_run(config: Config, world: World) -> str | None:
    if config.data.allow_pipe and world.num_pipe_shards == 0:
        return "data.allow_pipe=true has no effect: no shard is a pipe: command; leave it out"
    return None


RUN_REFUSALS: tuple[Callable[[Config, World], str | None], ...] = (_batch_that_cannot_be_shared,)
RUN_WARNINGS: tuple[Callable[[Config, World], str | None], ...] = (
    _warmup_without_end,
    _never_before_the_end,
    _more_workers_than_cores,
    _more_workers_than_batches,
    _tables_on_the_cpu_anyway,
    _tables_in_one_piece,
    _cache_for_local_shards,
    _no_command_to_run,
)
