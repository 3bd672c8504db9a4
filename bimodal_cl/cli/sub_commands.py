"""Programs with sub-commands: find the one that is called, import only that one, parse its arguments, run it."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from bimodal_cl.cli.parser import Parser
from bimodal_cl.cli.yaml_arguments import parse_with_config


class CommandBody(Protocol):
    """The functions of a command's module; its docstring is the description that ``--help`` shows."""

    __doc__: str | None

    @property
    def add_arguments(self) -> Callable[[Parser], None]:
        """Add the command's arguments."""

    @property
    def run(self) -> Callable[[argparse.Namespace], int | None]:
        """Run the command with parsed arguments; an exit status, or None for success."""


@dataclass(frozen=True)
class Command:
    """A command without sub-commands.

    Args:
        summary: one line for the list of commands.
        load: imports and returns the command; called only for the command that runs.
    """

    summary: str
    load: Callable[[], CommandBody]


@dataclass(frozen=True)
class CommandGroup:
    """A program, or a command, with sub-commands.

    Args:
        summary: one line for the list of commands.
        commands: the sub-commands by name.
        metavar: what a sub-command is called in usage lines and messages.
        description: what ``--help`` says first.
    """

    summary: str
    commands: Mapping[str, Command | CommandGroup]
    metavar: str = "COMMAND"
    description: str | None = None

    def run(self, prog: str, argv: Sequence[str]) -> int:
        """Run the sub-command that the arguments name and return its exit status.

        Args:
            prog: the program's name.
            argv: the arguments after it.

        Raises:
            UserError: an unknown command, or a mistake in its arguments.
        """
        found = self.parse(prog, argv)
        return 0 if found is None else found[0].run(found[1]) or 0

    def parse(self, prog: str, argv: Sequence[str]) -> tuple[CommandBody, argparse.Namespace] | None:
        """Return the sub-command and its arguments, or None where ``--print-config`` has printed them.

        Raises:
            UserError: as :meth:`run`.
        """
        if not argv or argv[0] not in self.commands:
            parser = self._listing(prog)
            parser.parse_args(argv)  # --help and --version exit, anything else is a mistake
            raise AssertionError(f"{argv} is not a mistake")
        command, prog = self.commands[argv[0]], f"{prog} {argv[0]}"
        if isinstance(command, CommandGroup):
            return command.parse(prog, argv[1:])
        body = command.load()
        own = Parser(prog=prog, description=body.__doc__)
        body.add_arguments(own)
        arguments = parse_with_config(own, argv[1:])
        if arguments is None:
            return None
        arguments.command_line = shlex.join([*prog.split(), *argv[1:]])  # as it was typed, for records
        return body, arguments

    def _listing(self, prog: str) -> Parser:
        """A parser that knows the names of the sub-commands and nothing about their arguments."""
        parser = Parser(
            prog=prog,
            description=self.description or self.summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_version()
        commands = parser.add_subparsers(dest="command", metavar=self.metavar, required=True)
        for name, command in self.commands.items():
            commands.add_parser(name, help=command.summary, add_help=False)
        return parser
