"""Kill and stop a training at random moments, resume it each time, and compare it with an uninterrupted one.

``python -m tests.test_training.faults.killed_and_stopped --kills 30 --stops 10`` sends SIGKILL 30 times, every second
time while a checkpoint is being written, and SIGTERM 10 times. It fails unless the last checkpoint of the interrupted
run has the bytes of the uninterrupted one's (model, averaged weights, per-anchor tables, moments, state), and the log
the same lines but for what a clock measured.
"""

import argparse
import copy
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from bimodal_cl.files.checksums import CHECKSUMS_FILE, find_damage
from bimodal_cl.run_folder import PARTIAL, RunFolder, read_state
from data_prep import cli
from tests.test_training.conftest import SMALL
from tests.test_training.faults.forked_runs import ForkedRun, last_step
from tests.test_training.run_files import assert_equal_runs

STEPS_A_LIFE, SAVED_EVERY = 8, 3
SCORE = "retrieval/image_retrieval_recall@5"


@dataclass(frozen=True)
class Life:
    """One life of a run: where it began, and how it ended.

    Args:
        how: the signal that ended it and where it came, in words.
        first, last: the step it continued from, and the last that it logged.
        in_save: whether it left an unfinished checkpoint.
    """

    how: str
    first: int
    last: int
    in_save: bool


def write_config(folder: Path, num_steps: int) -> Path:
    """Write shards of drawn shapes and the config of a run with tables, averaged weights and evaluations."""
    sizes = ["--num-train", "384", "--num-val", "12", "--num-retrieval", "12", "--images-per-concept", "1"]
    assert cli.main(["write", "synthetic", "--to", str(folder / "data"), "--side", "32", *sizes]) == 0
    values = copy.deepcopy(SMALL)
    values["data"] |= {"train": str(folder / "data/train"), "val": str(folder / "data/val")}
    values["train"] |= {"num_epochs": None, "num_steps": num_steps, "evaluate_every": 7}
    values["checkpoint"] = {"every": SAVED_EVERY, "best": SCORE}
    values["ema"] = {"decay": 0.9}
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def run_whole(config: Path, folder: Path, num_ranks: int) -> tuple[RunFolder, float]:
    """Run without an interruption; also return the median time that a checkpoint takes, in seconds."""
    run = RunFolder(folder / "whole")
    process = ForkedRun(["--config", str(config), "--output", str(run.path)], folder / "whole.err", num_ranks)
    saves, begin = [], None
    while process.is_running():
        if begin is None and _unfinished(run):
            begin = time.monotonic()
        elif begin is not None and not _unfinished(run):
            saves.append(time.monotonic() - begin)
            begin = None
        time.sleep(0.0005)
    assert not any(process.wait()), process.errors.read_text()
    return run, statistics.median(saves)


def run_interrupted(
    config: Path, folder: Path, num_ranks: int, num_steps: int, kills: int, stops: int, save_seconds: float, seed: int
) -> tuple[RunFolder, list[Life]]:
    """Run with so many SIGKILLs and SIGTERMs; check after each what is on the disk and what a resume continues from."""
    generator = random.Random(seed)
    run = RunFolder(folder / "interrupted")
    plan = ["kill in a save" if number % 2 else "kill" for number in range(kills)] + ["stop"] * stops
    generator.shuffle(plan)
    lives = []
    for life, what in enumerate(plan):
        first, log = saved_step(run), _file_number(run)
        process = _start(config, run, folder, num_ranks, life)
        target = min(first + generator.randrange(1, STEPS_A_LIFE), num_steps - 2 * SAVED_EVERY)
        in_set_up = what == "kill" and generator.random() < 0.2
        if not in_set_up:  # a resumed run writes its log anew before it trains
            _wait_for(process, lambda log=log, at=target: _file_number(run) != log and last_step(run) >= at)
        if what == "kill in a save":
            _wait_for(process, lambda: bool(_unfinished(run)))
            time.sleep(generator.uniform(0, save_seconds))
        else:
            time.sleep(generator.uniform(0, 0.3))  # in any part of a step, an evaluation or a save
        if what == "stop":
            how = f"SIGTERM to {process.send(signal.SIGTERM, generator)}"
            expected = 0
        else:
            process.send(signal.SIGKILL)
            how, expected = "SIGKILL", -signal.SIGKILL
        assert set(process.wait()) == {expected}, (how, process.errors.read_text())
        lives.append(Life(how, first, last_step(run), bool(_unfinished(run))))
        _check(run, lives[-1], stopped=what == "stop", errors=process.errors.read_text())
    process = _start(config, run, folder, num_ranks, len(plan))
    first = saved_step(run)
    assert not any(process.wait()), process.errors.read_text()
    return run, [*lives, Life("the end", first, last_step(run), bool(_unfinished(run)))]


def assert_equal(interrupted: RunFolder, whole: RunFolder) -> None:
    """Assert that two runs have the same log, the same last checkpoint, byte for byte, and the same best one."""
    assert_equal_runs(interrupted.path, whole.path)
    for name in ("latest", "best"):
        ours, theirs = (run.checkpoints / name for run in (interrupted, whole))
        assert ours.resolve().name == theirs.resolve().name
        assert find_damage(ours) is None and find_damage(theirs) is None
        assert (ours / CHECKSUMS_FILE).read_text() == (theirs / CHECKSUMS_FILE).read_text(), name


def saved_step(run: RunFolder) -> int:
    """Return the step that ``--resume latest`` continues from."""
    newest = run.newest_checkpoint()
    return 0 if newest is None else read_state(newest)["step"]


def _check(run: RunFolder, life: Life, stopped: bool, errors: str) -> None:
    step = saved_step(run)
    assert all(find_damage(checkpoint) is None for checkpoint in run.list_checkpoints())
    assert "Traceback" not in errors, errors
    assert life.first <= step <= life.last
    if stopped:
        assert step == life.last and not life.in_save, (life, step)  # nothing is lost
        assert "continue with: " in errors
    else:
        # Work since the last checkpoint, which is one further back where the kill came before the new one was whole.
        assert life.last - step <= 2 * SAVED_EVERY, (life, step)


def _start(config: Path, run: RunFolder, folder: Path, num_ranks: int, life: int) -> ForkedRun:
    flags = ["--output", str(run.path), "--resume", "latest", "--data.num_workers", str(life % 2 * 2)]
    return ForkedRun(["--config", str(config), *flags], folder / f"life_{life:02d}.err", num_ranks)


def _file_number(run: RunFolder) -> int | None:
    return run.metrics.stat().st_ino if run.metrics.exists() else None


def _unfinished(run: RunFolder) -> list[Path]:
    return list(run.checkpoints.glob(f"step_*{PARTIAL}"))


def _wait_for(process: ForkedRun, happens) -> None:
    deadline = time.monotonic() + 120
    while not happens():
        assert process.is_running() and time.monotonic() < deadline, process.errors.read_text()
        time.sleep(0.0005)


def main(argv: Sequence[str]) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--stops", type=int, default=10)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    kills, stops, ranks = arguments.kills, arguments.stops, arguments.ranks
    num_steps = STEPS_A_LIFE * (kills + stops + 1)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = write_config(folder, num_steps)
        whole, save_seconds = run_whole(config, folder, ranks)
        run, lives = run_interrupted(config, folder, ranks, num_steps, kills, stops, save_seconds, arguments.seed)
        for number, life in enumerate(lives):
            where = ", in a checkpoint's save" if life.in_save else ""
            print(f"life {number:2d}: steps {life.first} to {life.last}, {life.how}{where}")
        assert_equal(run, whole)
    in_saves = sum(life.in_save for life in lives)
    print(
        f"{num_steps} steps on {ranks} rank(s), {kills} SIGKILLs ({in_saves} in a save, which takes "
        f"{1000 * save_seconds:.0f} ms), {stops} SIGTERMs, {time.monotonic() - begin:.0f} s: the log and the last and "
        "best checkpoints equal those of the uninterrupted run"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
