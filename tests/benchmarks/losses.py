"""Measure time and peak memory of every loss's forward and backward pass against other projects' code.

A table for each loss and batch size. Times: all rows in one process, in turn, the median of several rounds. Memory: a
process for each row; see ``peak_memory``. ``x ours`` divides by the first row of the table. ``of B x B`` divides by a
float32 matrix of similarities. ``gradient`` is the cosine of a row's feature gradient with the first row's, so that it
shows whether the same thing is computed (other people's sums over all candidates differ from ours over the negatives).
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.losses import LOSSES
from tests.benchmarks.loss_cases import Case, list_our_cases
from tests.benchmarks.loss_measurements import (
    Memory,
    NotInThisVersion,
    Setting,
    Timing,
    measure_memory,
    measure_times,
)
from tests.benchmarks.measure.fresh_process import ProcessKilled, in_fresh_process
from tests.benchmarks.measure.machine import describe_commit, free_memory, num_threads
from tests.benchmarks.measure.table import describe_bytes, format_table
from tests.benchmarks.measure.timing import describe_range
from tests.benchmarks.peers import OPEN_CLIP, PEERS, Peer, find_installed_open_clip, list_peer_cases

BATCH_SIZES = {"cpu": [1024, 4096, 16384, 32768], "cuda": [32768, 65536]}
HEAD = ("loss", "time", "range", "x ours", "memory", "x ours", "of B x B", "gradient")
FREE_SHARE = 0.9  # of the free memory may be used


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--losses", nargs="+", metavar="NAME", default=list(LOSSES), help="which of our losses")
    parser.add_argument(
        "--rows", nargs="+", metavar="TEXT", help="only rows with one of these in their name, and the first"
    )
    parser.add_argument("--batch-sizes", nargs="+", type=int, metavar="B", help=f"default: {BATCH_SIZES}")
    parser.add_argument("--dim", type=int, default=512, help="width of the features")
    parser.add_argument("--tile-size", type=int, default=1024, help="of our tiled rows")
    parser.add_argument("--rounds", type=int, default=7, help="how often each row is timed")
    parser.add_argument("--seconds", type=float, default=60, help="a table takes no new round after these, but 3")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is a GPU")
    parser.add_argument("--peers", type=Path, metavar="DIR", help="a folder of clones: finds those of the flags below")
    for peer in PEERS:
        parser.add_argument(peer.flag, type=Path, metavar="DIR", help=f"a clone of {peer.name}'s repository")


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    for name in arguments.losses:
        if name not in LOSSES:
            raise UserError(f"--losses: unknown loss '{name}'{did_you_mean(name, LOSSES)}")
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: there is no GPU here")
    if arguments.quick:
        arguments.dim, arguments.tile_size, arguments.rounds = 32, 48, 3
    sizes = sorted(arguments.batch_sizes or ([128] if arguments.quick else BATCH_SIZES[device]))
    cases = list_our_cases(arguments.tile_size, device) + _list_peers(arguments, device)
    for text in arguments.rows or ():
        if not any(text in case.name for case in cases):
            raise UserError(f"--rows {text}: no row has this in its name")
    precision = "bf16 autocast" if device == "cuda" else "float32"
    print(f"device: {device}, D = {arguments.dim}, {precision}; memory is above the inputs, gradients included")
    if device == "cpu":
        print(f"GPU: none here, so B = {BATCH_SIZES['cuda']} in bf16, open_clip's local loss and Inf-CL were not run")
    tables = []
    for name in arguments.losses:
        first, *others = (case for case in cases if case.loss == name)
        wanted = arguments.rows or [""]
        plan = Plan([first, *(case for case in others if any(text in case.name for text in wanted))])
        for batch_size in sizes:
            setting = Setting(batch_size, arguments.dim, device, num_threads(arguments.threads))
            table = Table(name, setting, plan.measure(setting, arguments.rounds, arguments.seconds))
            print(f"\n{table.format()}", flush=True)
            tables.append(table)
    summary = format_summary(tables, sizes)
    if summary:
        print(f"\n{summary}", flush=True)


def _list_peers(arguments: argparse.Namespace, device: str) -> list[Case]:
    """The cases of every peer that is there; prints which are and which are not."""
    cases, found, absent = [], [], []
    for peer in PEERS:
        file = _find_peer(peer, getattr(arguments, peer.flag[2:].replace("-", "_")), arguments.peers)
        if file is None and peer is OPEN_CLIP:
            file = find_installed_open_clip()
        if file is None:
            absent.append(f"{peer.name} ({peer.flag})")
        elif peer.needs_cuda and device != "cuda":
            absent.append(f"{peer.name} (needs a GPU)")
        else:
            installed = "site-packages" in file.parts
            found.append(f"{peer.name} ({'installed' if installed else describe_commit(file.parent)})")
            cases += list_peer_cases(peer, file)
    print(f"peers: {', '.join(found) or 'none'}; absent: {', '.join(absent) or 'none'}")
    if found and device == "cpu":
        print("peers that call .cuda() get the CPU's tensor back: this run has no GPU")
    return cases


def _find_peer(peer: Peer, folder: Path | None, folder_of_clones: Path | None) -> Path | None:
    if folder is not None:
        return peer.find(folder)
    if folder_of_clones is None:
        return None
    if not folder_of_clones.is_dir():
        raise UserError(f"--peers {folder_of_clones}: no such folder")
    files = sorted(folder_of_clones.glob(f"*/{peer.file}"))
    if len(files) > 1:
        raise UserError(f"--peers {folder_of_clones}: several have {peer.file}; choose one with {peer.flag}")
    return files[0] if files else None


class Plan:
    """Measures the cases of one loss at growing batch sizes, and leaves out what does not fit into memory.

    Attributes:
        cases: ours first.
    """

    def __init__(self, cases: Sequence[Case]) -> None:
        self.cases = cases
        self._known: dict[str, tuple[int, int]] = {}  # by name: a batch size and the peak measured at it

    def measure(self, setting: Setting, rounds: int, seconds: float) -> dict[str, tuple[Memory, Timing] | str]:
        """Return each case's memory and timing, or a text that says why there is none."""
        measured: dict[str, tuple[Memory, Timing] | str] = {}
        memories: dict[str, Memory] = {}
        for case in self.cases:
            _report(f"{case.loss}, B = {setting.batch_size}: memory of {case.name}")
            answer = self._measure_memory(case, setting)
            if isinstance(answer, str):
                measured[case.name] = answer
            else:
                memories[case.name] = answer
        _report(f"{self.cases[0].loss}, B = {setting.batch_size}: times of {len(memories)} rows")
        timed = [case for case in self.cases if case.name in memories]
        for case in _choose_those_that_do_not_fit(timed, memories, setting.device):
            timed.remove(case)
            measured[case.name] = "does not fit into memory beside the others: not timed"
        times = in_fresh_process(measure_times, timed, setting, rounds, seconds)
        _report("")
        for case in timed:
            timing = times[case.name]
            measured[case.name] = timing if isinstance(timing, str) else (memories[case.name], timing)
        return {case.name: measured[case.name] for case in self.cases}

    def _measure_memory(self, case: Case, setting: Setting) -> Memory | str:
        known_size, known_peak = self._known.get(case.name, (0, 0))
        if not known_size and setting.batch_size > 4096:
            probe = Setting(setting.batch_size // 8, setting.dim, setting.device, setting.threads)
            known_size = probe.batch_size
            answer = _try(case, probe)
            if isinstance(answer, str):
                return answer
            known_peak = answer.peak or 0
        expected = known_peak * (setting.batch_size / known_size) ** 2 if known_size else 0
        free = free_memory(setting.device)
        if expected > FREE_SHARE * free:
            return f"about {describe_bytes(expected)}, and {describe_bytes(free)} were free: not run"
        answer = _try(case, setting)
        if isinstance(answer, Memory):
            self._known[case.name] = setting.batch_size, answer.peak or 0
        return answer


def _try(case: Case, setting: Setting) -> Memory | str:
    """Measure a case's memory; a text where the system or, for a peer, its code stops it."""
    try:
        return in_fresh_process(measure_memory, case, setting)
    except ProcessKilled:
        return "killed: out of memory"
    except NotInThisVersion as error:
        return str(error)
    except Exception as error:  # somebody else's code, in whatever version
        if case.is_ours:
            raise
        return f"failed: {type(error).__name__}: {error}"


def _choose_those_that_do_not_fit(cases: Sequence[Case], memories: dict[str, Memory], device: str) -> list[Case]:
    """Which cases to leave out, so that all others can be timed in one process: those that hold the most go first."""
    kept, left_out = list(cases), []
    while len(kept) > 1:
        held = [memories[case.name].held or 0 for case in kept]
        passing = [(memories[case.name].peak or 0) - mine for case, mine in zip(kept, held, strict=True)]
        if sum(held) + max(passing) <= FREE_SHARE * free_memory(device):
            break
        largest = max(range(len(kept)), key=lambda number: held[number] + passing[number])
        left_out.append(kept.pop(largest))
    return left_out


class Table:
    """One loss at one batch size.

    Args:
        loss: its name.
        setting: B, D and the rest.
        rows: by name, ours first: memory and timing, or a text instead.
    """

    def __init__(self, loss: str, setting: Setting, rows: dict[str, tuple[Memory, Timing] | str]) -> None:
        self.loss, self.setting, self.rows = loss, setting, rows

    def ratios(self, name: str) -> tuple[float, float | None] | None:
        """Time and memory of a row over those of the first row that was measured; None where it was not measured."""
        row, ours = self.rows[name], next((row for row in self.rows.values() if not isinstance(row, str)), None)
        if isinstance(row, str) or ours is None or isinstance(ours, str):
            return None
        (memory, timing), (our_memory, our_timing) = row, ours
        time = statistics.median(timing.seconds) / statistics.median(our_timing.seconds)
        return time, memory.peak / our_memory.peak if memory.peak and our_memory.peak else None

    def format(self) -> str:
        """The table as text, with its title."""
        rounds = max((len(row[1].seconds) for row in self.rows.values() if not isinstance(row, str)), default=0)
        title = f"{self.loss}, B = {self.setting.batch_size}, D = {self.setting.dim}: medians of {rounds} rounds"
        return f"{title}\n{format_table(HEAD, [self._cells(name) for name in self.rows])}"

    def _cells(self, name: str) -> list[str]:
        row, ratios = self.rows[name], self.ratios(name)
        if isinstance(row, str) or ratios is None:
            return [name, str(row)]
        memory, timing = row
        dense = 4 * self.setting.batch_size**2
        return [
            name,
            *describe_range(timing.seconds),
            f"{ratios[0]:.2f}",
            describe_bytes(memory.peak),
            "-" if ratios[1] is None else f"{ratios[1]:.2f}",
            "-" if memory.peak is None else f"{memory.peak / dense:.3f}",
            f"{timing.cosine:.6f}",
        ]


def format_summary(tables: Sequence[Table], sizes: Sequence[int]) -> str:
    """Time and memory of every row that is not the first of its table, over the first, by batch size."""
    names = {(table.loss, name): None for table in tables for name in list(table.rows)[1:]}
    rows = []
    for loss, name in names:
        cells = []
        for table in (table for table in tables if table.loss == loss):
            ratios = table.ratios(name)
            memory = None if ratios is None else ratios[1]
            time = "-" if ratios is None else f"{ratios[0]:.2f}"
            cells.append(f"{time} | {'-' if memory is None else f'{memory:.1f}'}")
        rows.append([f"{loss}: {name}", *cells])
    if not rows:
        return ""
    head = ["time | memory, over the first row", *(f"B = {size}" for size in sizes)]
    return format_table(head, rows)


def _report(what: str) -> None:
    """Say on a terminal what is being measured; nothing elsewhere."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{what}")
        sys.stderr.flush()
