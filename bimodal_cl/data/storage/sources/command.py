"""Read the output of a command, a ``pipe:COMMAND`` location."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import suppress

from bimodal_cl.data.storage.locations import PIPE, redact
from bimodal_cl.data.storage.sources.source import SourceInfo, TransferError, WholeOnly


class CommandSource:
    """The output of a ``pipe:COMMAND`` location, which the shell runs. The caller checks that this is allowed."""

    def __init__(self, location: str) -> None:
        self.name = redact(location)
        self.latest = SourceInfo()
        self._command = location[len(PIPE) :].strip()

    def info(self) -> SourceInfo:
        """Return an empty answer: size and version are unknown until the command has run."""
        return self.latest

    def chunks(self, start: int, stop: int | None) -> Generator[bytes, None, None]:
        """Run the command and yield its output, in one attempt.

        Raises:
            WholeOnly: ``start`` is not 0.
            TransferError: the command failed.
        """
        if start:
            raise WholeOnly("a command's output can only be read from the start")
        with tempfile.TemporaryFile() as errors:
            # A process group of its own, so that every process of a pipeline can be killed.
            process = subprocess.Popen(
                self._command,
                shell=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
            assert process.stdout is not None
            try:
                while data := process.stdout.read(2**20):
                    yield data
                status = process.wait()
            finally:
                if process.poll() is None:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                process.stdout.close()
            if status:
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip().splitlines()
                raise TransferError(f"exit status {status}" + (f": {said[-1]}" if said else ""))
