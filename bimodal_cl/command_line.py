"""What all three commands share: one-line errors with the nearest choice, and exit statuses."""

from __future__ import annotations

import argparse
import errno
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from bimodal_cl import __version__
from bimodal_cl.errors import RunStopped, ServerFailed, UserError, did_you_mean

EXIT_SUCCESS, EXIT_FAILURE, EXIT_USER_ERROR = 0, 1, 2


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` whose errors are one line and name the nearest flag or sub-command.

    Raises ``UserError`` instead of exiting, so that :func:`run_command` is the only place that sets an exit status.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", argparse.ArgumentDefaultsHelpFormatter)
        super().__init__(*args, **kwargs)

    def add_version(self) -> None:
        """Add ``--version``."""
        self.add_argument("--version", action="version", version=f"%(prog)s {__version__}")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as usual, but refuse a flag nobody knows, naming the nearest one of this (sub-)parser."""
        self._given = sys.argv[1:] if args is None else list(args)
        known, rest = super().parse_known_args(args, namespace)
        if rest:
            flag = rest[0].split("=")[0]
            if flag.startswith("-"):
                raise UserError(f"{self.prog}: unknown flag '{flag}'{did_you_mean(flag, self._option_string_actions)}")
            raise UserError(f"{self.prog}: unexpected argument '{flag}'")
        return known, rest

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            what = action.metavar or "/".join(action.option_strings) or action.dest
            raise UserError(f"{self.prog}: unknown {what} '{value}'{did_you_mean(str(value), action.choices)}")

    def error(self, message: str) -> NoReturn:
        """Raise the user's mistake; where a flag is missing, one that nobody knows may be meant for it."""
        if message.startswith("the following arguments are required"):
            for flag in (given.split("=")[0] for given in self._given if given.startswith("--")):
                near = did_you_mean(flag, self._option_string_actions)
                if flag not in self._option_string_actions and near:
                    raise UserError(f"{self.prog}: unknown flag '{flag}'{near}")
        raise UserError(f"{self.prog}: {message}")


def run_command(command: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 success, 2 the user's mistake, 130 interrupted, 1 anything else.

    The user's mistakes, a run that had to stop, a server that failed too often, a full disk and Ctrl-C print one line;
    anything else is a bug and keeps its traceback.
    """
    try:
        command(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except (RunStopped, ServerFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output went away, as in `... | head`: nothing to report
        return EXIT_SUCCESS
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"error: no space left on the disk: {error.filename or error}", file=sys.stderr)
        return EXIT_FAILURE
    return EXIT_SUCCESS
