"""Turn what a program raises into one line on stderr and an exit status."""

from __future__ import annotations

import errno
import functools
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TextIO

from bimodal_cl.cli.progress import print_line
from bimodal_cl.errors import RunStopped, ServerFailed, UserError

EXIT_SUCCESS, EXIT_FAILURE, EXIT_USER_ERROR = 0, 1, 2


class Main(Protocol):
    """A program's entry point."""

    def __call__(self, argv: Sequence[str] | None = None) -> int:
        """Run the program with ``argv``, or with ``sys.argv``, and return its exit status."""


def with_exit_status(program: Callable[[Sequence[str]], int | None]) -> Main:
    """Decorate a program's ``main(argv)``, so that it returns an exit status.

    The status is 0 for success (or what ``main`` returns), 2 for a mistake of the user, 130 for an interrupt and 1 for
    any other failure. A mistake of the user, a run that had to stop, a server that failed too often, a full disk and
    Ctrl-C print one line; any other exception is a bug and keeps its traceback.

    Args:
        program: takes the arguments without the program's name.

    Returns:
        The same function, which reads ``sys.argv`` where it is called without arguments.
    """

    @functools.wraps(program)
    def main(argv: Sequence[str] | None = None) -> int:
        try:
            with warnings_as_lines():
                return program(sys.argv[1:] if argv is None else argv) or EXIT_SUCCESS
        except UserError as error:
            print_line(f"error: {error}")
            return EXIT_USER_ERROR
        except (RunStopped, ServerFailed) as error:
            print_line(f"error: {error}")
            return EXIT_FAILURE
        except KeyboardInterrupt:
            print_line("interrupted")
            return 128 + signal.SIGINT
        except BrokenPipeError:
            sys.stderr.close()  # the reader of our output went away, as in `... | head`: there is nothing to report
            return EXIT_SUCCESS
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            print_line(f"error: no space left on the disk: {error.filename or error}")
            return EXIT_FAILURE

    return main


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Print each ``UserWarning`` as one line, ``warning: ...``, on stderr, on the main process only."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if category is not UserWarning:
            before(message, category, filename, lineno, file, line)
        elif os.environ.get("RANK", "0") == "0":
            print_line(f"warning: {' '.join(str(message).split())}")

    with warnings.catch_warnings():
        before = warnings.showwarning
        warnings.showwarning = show
        yield
