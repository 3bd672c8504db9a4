"""What all three commands share: paths and flags, one-line errors with the nearest choice, warnings, exit statuses."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TextIO

from bimodal_cl import __version__
from bimodal_cl.config.names import find_value
from bimodal_cl.errors import RunStopped, ServerFailed, UserError, did_you_mean
from bimodal_cl.files.paths import expand_path

EXIT_SUCCESS, EXIT_FAILURE, EXIT_USER_ERROR = 0, 1, 2

# What the field calls the same thing; a name without dashes is given without a flag. A flag that a command does not
# know is answered with the one of its row that it knows.
_SAME_MEANING = (
    ("--to", "--output", "--out", "--output-dir", "--output-folder", "--dest", "--save-to", "-o"),
    ("--workers", "--num-proc", "--num-workers", "--jobs", "--num-processes", "-j"),
    (
        "--data",
        "--dataset",
        "--dataset-root",
        "--data-dir",
        "--data-path",
        "--val-data",
        "--imagenet-val",
        "--test-data",
    ),
    ("MODEL", "RUN", "--model", "--models", "--checkpoint", "--ckpt", "--pretrained", "--run", "--weights", "--resume"),
    ("--images", "--image-folder", "--image-dir", "--image-root", "--root", "DIR", "--folder", "--input", "--source"),
    ("SHARDS", "--shards", "--tars", "--train-data", "--urls", "--input", "--folder"),
    ("--json", "--annotations", "--annotation-file", "--ann"),
    ("--image-column", "--image-col", "--csv-img-key", "--url-col", "--image-key"),
    ("--caption-column", "--caption-col", "--text-column", "--csv-caption-key", "--caption-key"),
    ("--delimiter", "--csv-separator", "--separator", "--sep"),
    ("--max-side", "--image-size", "--resize", "--size"),
    ("--shard-size", "--samples-per-shard", "--number-sample-per-shard", "--maxcount"),
    ("--overwrite", "--force", "--exist-ok"),
    ("--templates", "--prompts", "--template"),
    ("--classnames", "--classes", "--class-names"),
    ("--precision", "--dtype", "--amp", "--mixed-precision"),
    ("--batch-size", "--bs", "--batch"),
)


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` whose errors are one line and name the nearest flag or sub-command.

    Raises ``UserError`` instead of exiting, so that :func:`run_command` is the only place that sets an exit status.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", argparse.ArgumentDefaultsHelpFormatter)
        super().__init__(*args, **kwargs)
        self.register("type", Path, path_argument)
        self.suggest: Callable[[str], str] = self._suggest

    def add_version(self) -> None:
        """Add ``--version``."""
        self.add_argument("--version", action="version", version=f"%(prog)s {__version__}")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as usual, but refuse a flag nobody knows, naming the nearest one of this (sub-)parser."""
        self._given = self.spell(sys.argv[1:] if args is None else args)
        known, rest = super().parse_known_args(self._given, namespace)
        if rest:
            flag, equals, _ = rest[0].partition("=")
            if flag.startswith("-"):
                raise UserError(f"{self.prog}: unknown flag '{flag}'{self.suggest(flag)}")
            meant = ""
            if equals:  # "lr=1e-4", as other programs take it
                meant = f"; did you mean '--{flag}'?" if f"--{flag}" in self._option_string_actions else ""
                meant = meant or self.suggest(f"--{flag}")
            raise UserError(f"{self.prog}: unexpected argument '{flag}'{meant}")
        self._warn_of_repeats(self._given)
        return known, rest

    def _warn_of_repeats(self, argv: Sequence[str]) -> None:
        """Of a flag with one value that is given twice with different ones, the last counts, as scripts expect."""
        values: dict[str, list[str]] = {}
        for number, word in enumerate(argv):
            if word == "--":
                break
            flag, equals, value = word.partition("=")
            action = self._option_string_actions.get(flag)
            if action is not None and action.nargs is None and not isinstance(action, argparse._AppendAction):
                values.setdefault(flag, []).append(value if equals else " ".join(argv[number + 1 : number + 2]))
        for flag, given in values.items():
            if len(set(given)) > 1:
                warnings.warn(f"{flag} is given {len(given)} times; the last one counts: {given[-1]}", stacklevel=2)

    def spell(self, argv: Sequence[str]) -> list[str]:
        """Return arguments with ``-`` and ``_`` within flags as this parser spells them: either will do."""
        plain = {flag.replace("_", "-"): flag for flag in self._option_string_actions}
        words = list(argv)
        for number, word in enumerate(words):
            if word == "--":
                break
            flag, equals, value = word.partition("=")
            if flag.startswith("--") and flag not in self._option_string_actions:
                words[number] = plain.get(flag.replace("_", "-"), flag) + equals + value
        return words

    def _suggest(self, flag: str) -> str:
        """What somebody who gave an unknown flag meant: its other name here, or the nearest one."""
        name = flag.casefold().replace("_", "-")
        without_flag = {str(action.metavar or action.dest) for action in self._get_positional_actions()}
        for row in (row for row in _SAME_MEANING if name in row):
            for other in row:
                if other in self._option_string_actions:
                    return f"; did you mean '{other}'?"
                if other in without_flag:
                    return f"; {other} is given without a flag"
        return did_you_mean(flag, self._option_string_actions)

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            what = action.metavar or "/".join(action.option_strings) or action.dest
            meant = find_value(str(value), map(str, action.choices)) or str(value)
            raise UserError(f"{self.prog}: unknown {what} '{value}'{did_you_mean(meant, action.choices)}")

    def error(self, message: str) -> NoReturn:
        """Raise the user's mistake; where a flag is missing, one that nobody knows may be meant for it."""
        if message.startswith("the following arguments are required"):
            for flag in (given.split("=")[0] for given in self._given if given.startswith("-")):
                near = self.suggest(flag)
                if flag not in self._option_string_actions and near:
                    raise UserError(f"{self.prog}: unknown flag '{flag}'{near}")
        raise UserError(f"{self.prog}: {message}")


def path_text(text: str) -> str:
    """A path, or a name that may be one, for argparse: see :func:`~bimodal_cl.files.paths.expand_path`."""
    try:
        return expand_path(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(f"{error}, in '{text}'" if text.strip() else str(error)) from None


def path_argument(text: str) -> Path:
    """A path for argparse; in a :class:`Parser`, ``type=Path`` means this."""
    return Path(path_text(text))


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Show a warning meant for users as one line, ``warning: ...``, on stderr, by the main one of several processes."""

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
            print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)

    with warnings.catch_warnings():
        before = warnings.showwarning
        warnings.showwarning = show
        yield


def run_command(command: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 success, 2 the user's mistake, 130 interrupted, 1 anything else.

    The user's mistakes, a run that had to stop, a server that failed too often, a full disk and Ctrl-C print one line;
    anything else is a bug and keeps its traceback.
    """
    try:
        with warnings_as_lines():
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
