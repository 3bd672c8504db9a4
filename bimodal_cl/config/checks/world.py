"""Checks of a config against the machine and the data of a run: each returns one line or None."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bimodal_cl.config.schema import Config


@dataclass(frozen=True)
class World:
    """The machine and the data that a run finds when it starts.

    Args:
        device: ``"cpu"``, ``"cuda"``, ...
        num_processes: ranks.
        num_local_processes: those of them on this machine.
        num_cores: CPU cores that this machine's processes may use.
        num_steps: optimizer steps of the training.
        num_remote_shards: shards of training and validation data that are not local files.
        num_pipe_shards: those of them that are a command's output.
        fsdp: whether the launcher asked for FSDP.
    """

    device: str
    num_processes: int
    num_local_processes: int
    num_cores: int
    num_steps: int
    num_remote_shards: int
    num_pipe_shards: int
    fsdp: bool = False


def _batch_that_cannot_be_shared(config: Config, world: World) -> str | None:
    size, ranks = config.train.global_batch_size, world.num_processes
    if size % ranks == 0:
        return None
    nearest = _nearest_multiple(size, ranks * config.train.accumulate_features)
    return f"train.global_batch_size={size} cannot be shared by {ranks} processes; use a multiple, such as {nearest}"


def _micro_batches_of_unequal_size(config: Config, world: World) -> str | None:
    size, parts, ranks = config.train.global_batch_size, config.train.accumulate_features, world.num_processes
    own = size // ranks
    if own % parts == 0:
        return None
    divisor = min((n for n in range(1, own + 1) if own % n == 0), key=lambda n: (abs(n - parts), -n))
    over = f" over {ranks} processes" if ranks > 1 else ""
    return (
        f"train.accumulate_features={parts} does not divide the {own} pairs of a process (train.global_batch_size="
        f"{size}{over}); use train.accumulate_features={divisor} or train.global_batch_size="
        f"{_nearest_multiple(size, ranks * parts)}"
    )


def _nearest_multiple(size: int, unit: int) -> int:
    return max(round(size / unit), 1) * unit


def _warmup_without_end(config: Config, world: World) -> str | None:
    optim, steps = config.optim, world.num_steps
    if optim.warmup_steps < steps:
        return None
    reached = optim.learning_rate * steps / optim.warmup_steps
    return (
        f"optim.warmup_steps={optim.warmup_steps} is not shorter than the run of {steps} steps: the learning rate only "
        f"rises, to {reached:.3g} of {optim.learning_rate:.3g}; lower it or train longer"
    )


def _cooldown_inside_the_warmup(config: Config, world: World) -> str | None:
    optim = config.optim
    left = world.num_steps - optim.warmup_steps
    if optim.schedule != "constant_cooldown" or optim.cooldown_steps is None or optim.cooldown_steps <= left:
        return None
    if left < 1:
        return (
            f"optim.cooldown_steps={optim.cooldown_steps}: optim.warmup_steps={optim.warmup_steps} leaves none of the "
            f"run's {world.num_steps} steps for it; lower warmup_steps"
        )
    return (
        f"optim.cooldown_steps={optim.cooldown_steps} would begin before the end of optim.warmup_steps="
        f"{optim.warmup_steps}: the run has {world.num_steps} steps; use at most {left}"
    )


def _never_before_the_end(config: Config, world: World) -> str | None:
    seldom = [
        f"{name}.{key}={getattr(section, key)}"
        for name, section, key in (
            ("train", config.train, "log_every"),
            ("train", config.train, "evaluate_every"),
            ("checkpoint", config.checkpoint, "every"),
        )
        if section.is_set(key) and getattr(section, key) > world.num_steps
    ]
    if seldom:
        return (
            f"{', '.join(seldom)}: more than the run's {world.num_steps} steps, so only after the last one; lower it "
            "to have it earlier"
        )
    return None


def _more_workers_than_cores(config: Config, world: World) -> str | None:
    workers = config.data.num_workers * world.num_local_processes
    if config.data.features is None and config.data.is_set("num_workers") and workers > world.num_cores:
        each = f" on each of {world.num_local_processes} ranks here" if world.num_local_processes > 1 else ""
        return (
            f"data.num_workers={config.data.num_workers}{each}: more processes than this machine's {world.num_cores} "
            "cores; they wait for one another, lower it"
        )
    return None


def _more_workers_than_batches(config: Config, world: World) -> str | None:
    if config.data.features is not None:
        return None  # nothing is decoded
    if config.data.is_set("num_workers") and config.data.num_workers > world.num_steps:
        return (
            f"data.num_workers={config.data.num_workers}: the run has {world.num_steps} batches, so some workers get "
            "none; lower it"
        )
    return None


def _tables_on_the_cpu_anyway(config: Config, world: World) -> str | None:
    if world.device == "cpu" and getattr(config.loss, "table_device", None) == "cpu":
        return "loss.table_device=cpu has no effect: this run is on the CPU, and so are its tables; leave it out"
    return None


def _sharded_tables_on_one_process(config: Config, world: World) -> str | None:
    if world.num_processes == 1 and getattr(config.loss, "tables", None) == "sharded":
        return "loss.tables=sharded has no effect on one process, which keeps all rows; leave it out"
    return None


def _fsdp_on_one_process(config: Config, world: World) -> str | None:
    if world.fsdp and world.num_processes == 1:
        return "accelerate launch: use_fsdp has no effect on one process, which keeps the whole model; leave it out"
    return None


def _cache_for_local_shards(config: Config, world: World) -> str | None:
    idle = [f"data.{key}={getattr(config.data, key)}" for key in ("cache_dir", "cache_gb") if config.data.is_set(key)]
    if idle and world.num_remote_shards == 0 and config.data.cache_gb > 0:
        return f"{', '.join(idle)}: no effect, because all shards are local files; leave it out"
    return None


def _no_command_to_run(config: Config, world: World) -> str | None:
    if config.data.allow_pipe and world.num_pipe_shards == 0:
        return "data.allow_pipe=true has no effect: no shard is a pipe: command; leave it out"
    return None


RUN_REFUSALS: tuple[Callable[[Config, World], str | None], ...] = (
    _batch_that_cannot_be_shared,
    _micro_batches_of_unequal_size,
    _cooldown_inside_the_warmup,
)
RUN_WARNINGS: tuple[Callable[[Config, World], str | None], ...] = (
    _warmup_without_end,
    _never_before_the_end,
    _more_workers_than_cores,
    _more_workers_than_batches,
    _tables_on_the_cpu_anyway,
    _sharded_tables_on_one_process,
    _fsdp_on_one_process,
    _cache_for_local_shards,
    _no_command_to_run,
)
