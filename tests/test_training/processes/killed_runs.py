"""Kill a training at random moments and resume it, each time on other numbers of ranks and workers.

As a command, for more kills than the suite has time for:
``python -m tests.test_training.processes.killed_runs --config FILE --kills 20 [--train.num_steps ...]``
"""

import argparse
import contextlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from tests.test_training.processes.launching import start_launcher, start_python

RECORDER = str(Path(__file__).with_name("recorded_run.py"))
SHAPES = ((1, 0), (2, 1), (1, 3), (2, 0), (1, 1), (2, 3))  # ranks and workers, in turn
Seen = dict[int, tuple[list[int], list[int]]]


def start(config: Path, record: Path, num_processes: int, num_workers: int, *flags: str) -> subprocess.Popen:
    """Start or resume a run whose steps are recorded."""
    command = [RECORDER, str(record), "--config", str(config), "--resume", "latest", *flags]
    command += ["--data.num_workers", str(num_workers), "--train.device", "cpu"]
    return start_python(*command) if num_processes == 1 else start_launcher(num_processes, *command)


def read_record(record: Path) -> Iterator[tuple[int, list[int], list[int]]]:
    """Yield step, image ids and text ids of each complete step of one life of a run, with the ranks' parts in order."""
    parts = []
    for path in sorted(record.parent.glob(f"{record.name}.rank*")):
        lines = path.read_text().split("\n")[:-1]  # the kill may have cut off the last line
        parts.append([json.loads(line) for line in lines])
    for ranks in zip(*parts, strict=False):
        assert len({step for step, _, _ in ranks}) == 1
        yield ranks[0][0], [n for part in ranks for n in part[1]], [n for part in ranks for n in part[2]]


def run_whole(config: Path, folder: Path, *flags: str) -> Seen:
    """Run without an interruption and return the ids that each step got."""
    record = folder / "whole"
    process = start(config, record, 1, 0, *flags)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return {step: (images, texts) for step, images, texts in read_record(record)}


def run_killed(config: Path, folder: Path, whole: Seen, kills: int, seed: int, *flags: str) -> list[tuple[int, int]]:
    """Run with kills at random steps; assert that a step gets the same ids each time it is taken.

    Returns:
        The first and last step of each life of the run.
    """
    generator = random.Random(seed)
    targets = sorted(generator.sample(range(1, len(whole)), kills))
    seen, lives = set(), []
    for life, target in enumerate([*targets, None]):
        record = folder / f"life_{life:02d}"
        process = start(config, record, *SHAPES[life % len(SHAPES)], *flags)
        if target is not None:
            while process.poll() is None and _last_step(record) < target:
                time.sleep(0.01)
            time.sleep(generator.uniform(0, 0.1))  # in any part of a step
            assert process.poll() is None, process.communicate()[1]
            _kill(process)
        _, errors = process.communicate()
        assert process.returncode == (0 if target is None else -signal.SIGKILL), (life, errors)
        steps = []
        for step, images, texts in read_record(record):
            assert (images, texts) == whole[step], (life, step)
            steps.append(step)
        assert steps == list(range(steps[0], steps[0] + len(steps))) if steps else target is not None
        seen.update(steps)
        lives.append((steps[0], steps[-1]) if steps else (-1, -1))  # killed before all ranks had begun a step
    assert seen == set(whole)
    return lives


def _kill(process: subprocess.Popen) -> None:
    """Kill a process, all ranks and all workers; ranks have process groups of their own."""
    first = psutil.Process(process.pid)
    everybody = [first, *first.children(recursive=True)]
    for each in everybody:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.send_signal(signal.SIGKILL)
    process.wait()
    psutil.wait_procs(everybody, timeout=60)


def _last_step(record: Path) -> int:
    path = record.with_name(f"{record.name}.rank0")
    if not path.exists():
        return -1
    lines = path.read_text().split("\n")[:-1]
    return json.loads(lines[-1])[0] if lines else -1


def main(argv: Sequence[str]) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments, flags = parser.parse_known_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        config = arguments.config.resolve()
        whole = run_whole(config, Path(folder), *flags, "--output", f"{folder}/run_whole")
        output = ("--output", f"{folder}/run_killed")
        lives = run_killed(config, Path(folder), whole, arguments.kills, arguments.seed, *flags, *output)
    for life, (first, last) in enumerate(lives):
        ranks, workers = SHAPES[life % len(SHAPES)]
        print(f"life {life:2d}: {ranks} ranks, {workers} workers, steps {first} to {last}")
    print(f"{len(whole)} steps, {arguments.kills} kills: every step saw the uninterrupted run's images and texts")


if __name__ == "__main__":
    main(sys.argv[1:])
