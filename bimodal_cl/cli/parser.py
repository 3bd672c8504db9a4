"""An argument parser with one-line errors, nearest flags, other spellings of flags, and ``--version``."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from bimodal_cl import __version__
from bimodal_cl.cli.arguments import path_argument
from bimodal_cl.cli.synonyms import SAME_MEANING, find_value
from bimodal_cl.errors import UserError, did_you_mean, nearest

YAML_ENDINGS = (".yaml", ".yml")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Show a default only where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        none = action.default is None or action.default is False or action.default == []  # 0 is one
        return action.help if none else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` whose errors are one line and name the nearest flag or sub-command.

    It raises ``UserError`` instead of exiting, so that :func:`~bimodal_cl.cli.exit_status.with_exit_status` is the only
    place that sets an exit status. ``type=Path`` expands ``~`` and ``$NAME``.

    Attributes:
        suggest: the end of the message about an unknown flag, such as ``"; did you mean '--to'?"``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", HelpFormatter)
        self._aliases: dict[str, str] = {}
        super().__init__(*args, **kwargs)
        self.register("type", Path, path_argument)
        self.suggest: Callable[[str], str] = self._suggest

    def add_argument(self, *names: str, aliases: Sequence[str] = (), **keywords: Any) -> argparse.Action:
        """Add an argument as usual.

        Args:
            names: the flag, or the name of a positional argument.
            aliases: other flags that mean the same and are not listed by ``--help``. One that is also a flag of its
                own (``--config``) is an alias unless its value is a YAML file.
            keywords: as of ``ArgumentParser.add_argument``.
        """
        action = super().add_argument(*names, **keywords)
        self._aliases.update(dict.fromkeys(aliases, names[0]))
        return action

    @property
    def aliases(self) -> dict[str, str]:
        """The flags that are not listed, each with the flag that it stands for."""
        return dict(self._aliases)

    def add_version(self) -> None:
        """Add ``--version``."""
        self.add_argument("--version", action="version", version=f"%(prog)s {__version__}")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as usual, but refuse an unknown flag and name the nearest one of this (sub-)parser.

        Raises:
            UserError: a flag or an argument that the parser does not know.
        """
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
        """Warn where a flag of one value is given several different ones; the last counts, as scripts expect."""
        values: dict[str, list[str]] = {}
        for flag, value in _flags(argv):
            action = self._option_string_actions.get(flag)
            if action is not None and action.nargs is None and not isinstance(action, argparse._AppendAction):
                values.setdefault(flag, []).append(value)
        for flag, given in values.items():
            if len(set(given)) > 1:
                warnings.warn(f"{flag} is given {len(given)} times; the last one counts: {given[-1]}", stacklevel=2)

    def spell(self, argv: Sequence[str]) -> list[str]:
        """Return the arguments with every flag as this parser spells it: aliases replaced, ``-`` and ``_`` alike."""
        plain = {flag.replace("_", "-"): flag for flag in (*self._option_string_actions, *self._aliases)}
        words = list(argv)
        for number, (word, following) in enumerate(zip(argv, [*argv[1:], ""], strict=False)):
            if word == "--":
                break
            flag, equals, value = word.partition("=")
            if not flag.startswith("--"):
                continue
            if flag not in self._option_string_actions:
                flag = plain.get(flag.replace("_", "-"), flag)
            is_file = (value if equals else following).endswith(YAML_ENDINGS)
            if flag in self._aliases and not (flag in self._option_string_actions and is_file):
                flag = self._aliases[flag]
            words[number] = flag + equals + value
        return words

    def require_known_flags(self, argv: Sequence[str]) -> None:
        """Refuse an unknown flag before argparse complains that the flag it was meant to be is missing.

        Raises:
            UserError: naming the nearest flag.
        """
        for flag, _ in _flags(argv):
            if flag.startswith("--") and flag not in self._option_string_actions:
                raise UserError(f"{self.prog}: unknown flag '{flag}'{self.suggest(flag)}")

    def _suggest(self, flag: str) -> str:
        """Name the flag that an unknown one means: the one of the same meaning, or else the nearest."""
        name = flag.casefold().replace("_", "-")
        without_flag = {str(action.metavar or action.dest) for action in self._get_positional_actions()}
        for row in (row for row in SAME_MEANING if name in row):
            for other in row:
                if other in self._option_string_actions:
                    return f"; did you mean '{other}'?"
                if other in without_flag:
                    return f"; {other} is given without a flag"
        near = nearest(flag, [*self._option_string_actions, *self._aliases])
        return did_you_mean(self._aliases.get(near or "", flag), self._option_string_actions)

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            what = action.metavar or "/".join(action.option_strings) or action.dest
            meant = find_value(str(value), map(str, action.choices)) or str(value)
            raise UserError(f"{self.prog}: unknown {what} '{value}'{did_you_mean(meant, action.choices)}")

    def error(self, message: str) -> NoReturn:
        """Raise a mistake of the user; where a flag is missing, an unknown flag may be meant for it.

        Raises:
            UserError: always.
        """
        if message.startswith("the following arguments are required"):
            for flag in (given.split("=")[0] for given in self._given if given.startswith("-")):
                near = self.suggest(flag)
                if flag not in self._option_string_actions and near:
                    raise UserError(f"{self.prog}: unknown flag '{flag}'{near}")
        raise UserError(f"{self.prog}: {message}")


def _flags(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each word before ``--`` with its value: what follows ``=``, or else the next word."""
    for word, following in zip(argv, [*argv[1:], ""], strict=False):
        if word == "--":
            return
        flag, equals, value = word.partition("=")
        yield flag, value if equals else following
