"""``bimodal-eval``: score models and show what a run learned. Sub-commands are imported when they are called."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from bimodal_cl.cli.command_line import Parser, path_text, run_command
from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.files.text_files import NotText, read_text

# name: (module with add_arguments and run, one line of help)
COMMANDS = {
    "zero-shot": ("zero_shot", "classify labelled images by the nearest class prompt"),
    "retrieval": ("retrieval", "find images by caption and captions by image, R@1, R@5, R@10 and median rank"),
    "temperatures": ("temperatures", "show the temperatures a run learned for its images and texts"),
    "report": ("report.command", "write a run's report.html"),
}
_OWN = ("help", "config", "print_config")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``bimodal-eval`` and return its exit status: 0 success, 2 the user's mistake, 1 anything else."""
    return run_command(_run, argv)


def _run(argv: Sequence[str]) -> None:
    parser = Parser(prog="bimodal-eval", description="Score models, and show what a run learned.")
    parser.add_version()
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for name, (_, explanation) in COMMANDS.items():
        commands.add_parser(name, help=explanation, add_help=False)
    if not argv or argv[0] not in COMMANDS:
        parser.parse_args(argv)  # --help, --version, or a mistake: nothing of this needs a sub-command
        return
    module = importlib.import_module(f".{COMMANDS[argv[0]][0]}", __package__)
    own = Parser(prog=f"bimodal-eval {argv[0]}", description=module.__doc__, formatter_class=_HelpFormatter)
    module.add_arguments(own)
    arguments = parse_with_config(own, argv[1:])
    if arguments is not None:
        module.run(arguments)


def parse_with_config(parser: Parser, argv: Sequence[str]) -> argparse.Namespace | None:
    """Parse a sub-command's arguments, which ``--config FILE`` (YAML) may give too; a flag wins over the file.

    The file's keys are the long flags' names with ``_`` for ``-``, and the positional arguments' names.

    Returns:
        The arguments, or None after ``--print-config`` has printed them.

    Raises:
        UserError: a mistake on the command line, or in the file (named with its key and the nearest valid one).
    """
    parser.add_argument("--config", metavar="FILE", type=path_text, help="YAML file that gives arguments")
    parser.add_argument("--print-config", action="store_true", help="print the arguments as YAML and stop")
    argv = parser.spell(argv)
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    early.add_argument("--config", type=path_text)
    early.add_argument("--print-config", action="store_true")
    try:
        found, _ = early.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise UserError(f"{parser.prog}: {error}") from None
    given = _load_config(parser, Path(found.config)) if found.config else {}
    for action in parser._actions:
        if action.dest in given or (found.print_config and action.dest not in _OWN):
            _make_optional(action, given.get(action.dest, action.default))
    _refuse_unknown_flags(parser, argv)
    arguments = parser.parse_args(argv)
    if not arguments.print_config:
        return arguments
    shown = {key: _plain(value) for key, value in vars(arguments).items() if key not in _OWN}
    print(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True), end="")
    return None


def _refuse_unknown_flags(parser: Parser, argv: Sequence[str]) -> None:
    """A mistyped flag is named before argparse complains that the flag it was meant to be is missing."""
    for word in argv:
        if word == "--":
            return
        flag = word.split("=")[0]
        if flag.startswith("--") and flag not in parser._option_string_actions:
            raise UserError(f"{parser.prog}: unknown flag '{flag}'{parser.suggest(flag)}")


def _plain(value: Any) -> Any:
    """A value as YAML writes it."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def _make_optional(action: argparse.Action, default: Any) -> None:
    action.default = default
    action.required = False
    if not action.option_strings:
        action.nargs = "*" if action.nargs in ("+", "*") else "?"


def _load_config(parser: Parser, path: Path) -> dict[str, Any]:
    """The typed values of a YAML file, by argument name."""
    try:
        content = yaml.safe_load(read_text(path)) or {}
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror}") from None
    except (yaml.YAMLError, NotText) as error:
        raise UserError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold `key: value` lines, got a {type(content).__name__}")
    actions = {action.dest: action for action in parser._actions if action.dest not in _OWN}
    for key in content:
        if key not in actions:
            raise UserError(f"{path}: unknown key '{key}' for {parser.prog}{did_you_mean(str(key), actions)}")
    return {key: _typed(parser, path, actions[key], value) for key, value in content.items() if value is not None}


def _typed(parser: Parser, path: Path, action: argparse.Action, value: Any) -> Any:
    """Check one value as the command line would."""
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise UserError(f"{path}: {action.dest} must be true or false, got {value!r}")
        return value
    if action.nargs in ("+", "*"):
        values = value if isinstance(value, list) else [value]
        if not values:
            raise UserError(f"{path}: {action.dest} must name at least one")
        return [_typed_one(parser, path, action, each) for each in values]
    return _typed_one(parser, path, action, value)


def _typed_one(parser: Parser, path: Path, action: argparse.Action, value: Any) -> Any:
    if isinstance(value, (list, dict, bool)):
        raise UserError(f"{path}: {action.dest} takes one value, got {value!r}")
    try:
        convert = parser._registry_get("type", action.type, action.type)  # as argparse: what `type=Path` means
        converted = convert(str(value))
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise UserError(f"{path}: {action.dest}: {error}") from None
    if action.choices is not None and converted not in action.choices:
        choices = [str(choice) for choice in action.choices]
        raise UserError(f"{path}: unknown {action.dest} '{value}'{did_you_mean(str(value), choices)}")
    return converted
