"""Log a run: lines of ``metrics.jsonl``, and a progress bar or plain lines on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from bimodal_cl.cli.progress import format_duration, note
from bimodal_cl.files.atomic import write_atomically
from bimodal_cl.files.text_files import read_text


class RunLog:
    """Writes a run's metrics; on every rank but the main one it does nothing.

    A resumed run first drops the lines after its checkpoint, so that the file equals that of an uninterrupted run
    (but for what was measured: ``seconds``, ``data_seconds``, ``data_share``, ``samples_per_second``, ``memory_mib``).

    Args:
        path: the log's file.
        num_steps: steps of the whole training.
        first_step: steps done before (0 for a new run).
        enabled: whether this process writes and prints.
        track: gets every line as well.
    """

    def __init__(
        self,
        path: Path,
        num_steps: int,
        first_step: int = 0,
        enabled: bool = True,
        track: Callable[[dict[str, Any]], None] = lambda line: None,
    ) -> None:
        self._enabled, self._track = enabled, track
        self._file: TextIO | None = None
        self._bar: tqdm[Any] | None = None
        self._started, self._first_step, self._num_steps = time.monotonic(), first_step, num_steps
        if not enabled:
            return
        _keep_lines(path, last_step=first_step)
        self._file = path.open("a", encoding="utf-8")
        if sys.stderr.isatty():
            self._bar = tqdm(total=num_steps, initial=first_step, unit="step", dynamic_ncols=True, smoothing=0.05)

    def advance(self) -> None:
        """Move the bar by one step."""
        if self._bar is not None:
            self._bar.update()

    def train(self, values: dict[str, Any]) -> None:
        """Log a training step's values: a line in the file, and the main ones next to the bar."""
        self.write({"event": "train", **values})
        shown = {
            "loss": f"{values['loss']:.4f}",
            "tau image": f"{values['tau_image']:.4f}",
            "tau text": f"{values['tau_text']:.4f}",
            "alignment": f"{values['alignment']:.3f}",
            "samples/s": f"{values['samples_per_second']:.0f}",
        }
        if self._bar is not None:
            self._bar.set_postfix(shown, refresh=False)
        else:
            done = values["step"] - self._first_step
            left = (time.monotonic() - self._started) / max(done, 1) * (self._num_steps - values["step"])
            text = "  ".join(f"{name} {value}" for name, value in shown.items())
            self.say(f"step {values['step']}/{self._num_steps}  {text}  left {format_duration(left)}")

    def write(self, values: dict[str, Any]) -> None:
        """Append one line to the file."""
        if self._file is not None:
            self._file.write(json.dumps(values) + "\n")
            self._file.flush()
            self._track(values)

    def say(self, message: str) -> None:
        """Print a line above the bar, once for all ranks."""
        if self._enabled:
            note(message)

    def close(self) -> None:
        """Close the file and the bar."""
        if self._bar is not None:
            self._bar.close()
        if self._file is not None:
            self._file.close()
            self._file = None


def _keep_lines(path: Path, last_step: int) -> None:
    """Drop the lines after a step, and a last line that a crash cut short."""
    if not path.exists():
        return
    kept = []
    for line in read_text(path).splitlines(keepends=True):
        try:
            step = json.loads(line)["step"]
        except (ValueError, KeyError):
            continue
        if step <= last_step and line.endswith("\n"):
            kept.append(line)
    write_atomically(path, "".join(kept))
