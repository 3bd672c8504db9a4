"""Refuse settings of ``accelerate launch`` that differ from the config or that this program does not support.

The launcher's flags and files reach a process as environment variables; flags that it does not pass on are read from
its command line, where the system shows that (Linux).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bimodal_cl.config.checks.fsdp import check_fsdp
from bimodal_cl.config.schema import Config
from bimodal_cl.errors import SettingRefused

Environment = Mapping[str, str]
Flags = Mapping[str, str]

_STRATEGIES = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed (--use_deepspeed)",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM (--use_megatron_lm)",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "tensor and context parallelism (--use_parallelism_config)",
}
_PRECISIONS = {"no": "float32", "bf16": "bf16", "fp16": "fp16"}
_MPI_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def check_launch(config: Config, environment: Environment, flags: Flags) -> None:
    """Refuse settings of the launcher that this run would not follow.

    Args:
        config: the run.
        environment: as the launcher left it, ``os.environ``.
        flags: of the launcher, as :func:`read_launcher_flags` gives them.

    Raises:
        SettingRefused: naming the launcher's setting, and the key that it differs from.
    """
    for check in LAUNCH_REFUSALS:
        line = check(config, environment, flags)
        if line is not None:
            raise SettingRefused(f"accelerate launch: {line}")


def check_process_count(num_processes: int, environment: Environment) -> None:
    """Refuse processes that were started together and would each train alone, all writing to one folder.

    Args:
        num_processes: how many Accelerate has joined.
        environment: of this process.

    Raises:
        SettingRefused: fewer than the launcher started.
    """
    started = environment.get("WORLD_SIZE", "1")
    if started.isdigit() and int(started) > num_processes == 1:
        raise SettingRefused(
            f"{started} processes were started (WORLD_SIZE), but without an accelerator each would train alone; join "
            "them on the CPU with --train.device cpu, or start one"
        )


def read_launcher_flags() -> dict[str, str]:
    """Return the flags of the ``accelerate launch`` that started this process, without dashes, if any."""
    try:
        words = Path(f"/proc/{os.getppid()}/cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
    except OSError:
        return {}
    return parse_launcher_flags(words)


def parse_launcher_flags(words: Sequence[str]) -> dict[str, str]:
    """Return the launcher's flags among the words of a command line: those between ``launch`` and the script."""
    names = [Path(word).name for word in words]
    start = next(
        (
            place
            for place, name in enumerate(names)
            if name == "accelerate-launch"
            or (name == "launch" and place and names[place - 1] in ("accelerate", "accelerate.exe"))
            or name.endswith(("accelerate.commands.launch", "accelerate_cli.py"))
        ),
        None,
    )
    if start is None:
        return {}
    flags = {}
    for word, following in zip(words[start + 1 :], [*words[start + 2 :], ""], strict=True):
        if word in ("-m", "--module", "--no_python") or "bimodal" in Path(word).name or word.endswith(".py"):
            break
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            flags[name[2:].replace("-", "_")] = value if equals else following
    return flags


def _unsupported_strategy(config: Config, environment: Environment, flags: Flags) -> str | None:
    for variable, name in _STRATEGIES.items():
        if environment.get(variable, "false").lower() in ("true", "1", "yes"):
            return f"{name} is not supported; leave it out, or shard the model with --use_fsdp --fsdp_version 2"
    return None


def _other_precision(config: Config, environment: Environment, flags: Flags) -> str | None:
    # The launcher sets "no" also where the user gave no flag.
    asked = environment.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    ours = config.train.precision
    if asked == "no" and flags.get("mixed_precision", "").lower() != "no":
        return None
    if _PRECISIONS.get(asked) == ours:
        return None
    if asked not in _PRECISIONS:
        return f"mixed_precision={asked} is not supported; set train.precision to float32, bf16 or fp16 instead"
    return (
        f"mixed_precision={asked} differs from train.precision={ours}, which counts; set train.precision to "
        f"{_PRECISIONS[asked]}, or leave mixed_precision out"
    )


def _accumulation(config: Config, environment: Environment, flags: Flags) -> str | None:
    variable, flag = environment.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS"), flags.get("gradient_accumulation_steps")
    steps = flag if variable in (None, "1") else variable
    if steps in (None, "1"):
        return None
    return (
        f"gradient_accumulation_steps={steps}: there is no accumulation of gradients, which would contrast each "
        f"micro-batch with itself alone; leave it out, and set train.accumulate_features={steps} to encode a step's "
        f"train.global_batch_size={config.train.global_batch_size} in {steps} parts under one loss"
    )


def _one_process_instead_of_several(config: Config, environment: Environment, flags: Flags) -> str | None:
    asked = flags.get("num_processes", "1")
    joined = any(name in environment for name in ("WORLD_SIZE", *_MPI_SIZES))
    if joined or not asked.isdigit() or int(asked) < 2:
        return None
    return (
        f"num_processes={asked}, but it started one (it cannot launch several on a CPU); give it "
        "--config_file configs/accelerate/two_processes_cpu.yaml and the training --train.device cpu, or use 1"
    )


LAUNCH_REFUSALS: tuple[Callable[[Config, Environment, Flags], str | None], ...] = (
    _unsupported_strategy,
    check_fsdp,
    _other_precision,
    _accumulation,
    _one_process_instead_of_several,
)
