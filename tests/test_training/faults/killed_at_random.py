"""Kill a training at random moments, also within the writing of a checkpoint, and stop it by SIGTERM; resume each time.

As a command, for more of them than the suite has time for:
``python -m tests.test_training.faults.killed_at_random --config FILE --kills 30 --stops 10 [--train.num_steps ...]``

The trainings are forked from a process that has imported everything, so that a start takes a second.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psutil

import bimodal_cl.build
from bimodal_cl import train
from tests.test_training.run_files import assert_equal_runs, read_log

KILL, KILL_IN_SAVE, STOP = "killed", "killed while it wrote a checkpoint", "stopped by SIGTERM"


def run_once(config: Path, output: Path, num_workers: int, *flags: str) -> multiprocessing.Process:
    """Start or resume a training in a process of its own; its lines go to a file beside the run."""
    assert bimodal_cl.build is not None  # imported here once, for all of them
    arguments = ["--config", str(config), "--output", str(output), "--resume", "latest"]
    arguments += ["--data.num_workers", str(num_workers), "--train.device", "cpu", *flags]

    def main() -> None:
        with Path(f"{output}.stderr").open("w") as file:
            os.dup2(file.fileno(), 2)
        sys.exit(train.main(arguments))

    process = multiprocessing.get_context("fork").Process(target=main)
    process.start()
    return process


def interrupt_at_random(
    config: Path, folder: Path, num_steps: int, kills: int, stops: int, seed: int, *flags: str
) -> Counter[str]:
    """Run with interruptions at random steps, a third of the kills while a checkpoint is written.

    Asserts that what is left behind equals the uninterrupted run, bit for bit, and that a stop loses no step.

    Returns:
        How often the run was interrupted in which way.
    """
    whole, run = folder / "run_whole", folder / "run_interrupted"
    process = run_once(config, whole, 0, *flags)
    process.join()
    assert process.exitcode == 0, Path(f"{whole}.stderr").read_text()
    expected = read_log(whole, clock=False)
    generator = random.Random(seed)
    kinds = [KILL_IN_SAVE] * (kills // 3) + [KILL] * (kills - kills // 3) + [STOP] * stops
    generator.shuffle(kinds)
    targets = sorted(generator.sample(range(1, num_steps - 5), len(kinds)))
    counts: Counter[str] = Counter()
    for kind, target in zip(kinds, targets, strict=True):
        process = run_once(config, run, generator.choice((0, 2)), *flags)
        _wait_for(process, run, target)
        if kind == KILL_IN_SAVE:
            _wait_for_a_save(process, run)
        time.sleep(generator.uniform(0, 0.004 if kind == KILL_IN_SAVE else 0.05))
        _send(process, signal.SIGTERM if kind == STOP else signal.SIGKILL)
        assert process.exitcode == (0 if kind == STOP else -signal.SIGKILL), Path(f"{run}.stderr").read_text()
        kind = KILL_IN_SAVE if kind != STOP and list((run / "checkpoints").glob("*.partial")) else kind
        counts[KILL if kind == KILL_IN_SAVE and not list((run / "checkpoints").glob("*.partial")) else kind] += 1
        lines = _whole_lines(run)
        assert lines == expected[: len(lines)], (kind, target)
        if kind == STOP:
            state = json.loads((run / "checkpoints" / "latest" / "state.json").read_text())
            assert state["step"] == [line for line in lines if line["event"] == "train"][-1]["step"]
    process = run_once(config, run, 0, *flags)
    process.join()
    assert process.exitcode == 0, Path(f"{run}.stderr").read_text()
    assert_equal_runs(run, whole)
    return counts


def _wait_for(process: multiprocessing.Process, run: Path, step: int) -> None:
    while process.is_alive() and not any(line.get("step", 0) >= step for line in _whole_lines(run)):
        time.sleep(0.01)
    assert process.is_alive(), Path(f"{run}.stderr").read_text()


def _wait_for_a_save(process: multiprocessing.Process, run: Path) -> None:
    while process.is_alive() and not list((run / "checkpoints").glob("*.partial")):
        time.sleep(0.0005)


def _whole_lines(run: Path) -> list[dict]:
    with contextlib.suppress(FileNotFoundError, ValueError):
        return read_log(run, clock=False)
    return []


def _send(process: multiprocessing.Process, number: signal.Signals) -> None:
    everybody = [psutil.Process(process.pid)]
    everybody += everybody[0].children(recursive=True)
    for each in everybody:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.send_signal(number)
    process.join()
    psutil.wait_procs(everybody, timeout=60)


def main(argv: Sequence[str]) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--stops", type=int, default=10)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    arguments, flags = parser.parse_known_args(argv)
    flags += ["--train.num_epochs", "null", "--train.num_steps", str(arguments.steps), "--train.log_every", "1"]
    with tempfile.TemporaryDirectory() as folder:
        config = arguments.config.resolve()
        counts = interrupt_at_random(
            config, Path(folder), arguments.steps, arguments.kills, arguments.stops, arguments.seed, *flags
        )
    for kind, count in sorted(counts.items()):
        print(f"{count:3d} times {kind}")
    print(
        f"{arguments.steps} steps: weights, moments, tables and log equal those of the uninterrupted run, bit for bit"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
