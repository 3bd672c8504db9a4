"""Read a command's arguments from flags and from a YAML file, ``--config FILE``, and print them as YAML.

The file's keys are the names of the long flags with ``_`` for ``-``, and the names of the positional arguments. A flag
wins over the file. What ``--print-config`` prints gives the same arguments when it is read again.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bimodal_cl.cli.arguments import path_text
from bimodal_cl.cli.parser import Parser
from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.files.text_files import NotText, read_text

_OWN = ("help", "config", "print_config")


def parse_with_config(parser: Parser, argv: Sequence[str]) -> argparse.Namespace | None:
    """Parse a command's arguments.

    Args:
        parser: with the command's own arguments; ``--config`` and ``--print-config`` are added here.
        argv: the words after the command's name.

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
    given = _load_arguments(parser, Path(found.config)) if found.config else {}
    for action in parser._actions:
        if action.dest in given or (found.print_config and action.dest not in _OWN):
            _make_optional(action, given.get(action.dest, action.default))
    parser.require_known_flags(argv)
    arguments = parser.parse_args(argv)
    if arguments.print_config:
        print_yaml(without_config_flags(arguments))
        return None
    return arguments


def without_config_flags(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return a command's arguments without ``--config`` and ``--print-config``, as YAML or JSON can hold them."""
    return {key: _plain(value) for key, value in vars(arguments).items() if key not in _OWN}


def print_yaml(values: Mapping[str, Any]) -> None:
    """Print plain values as ``--print-config`` shows them: YAML, in their order."""
    print(yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True), end="")


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def _make_optional(action: argparse.Action, default: Any) -> None:
    action.default = default
    action.required = False
    if not action.option_strings:
        action.nargs = "*" if action.nargs in ("+", "*") else "?"


def _load_arguments(parser: Parser, path: Path) -> dict[str, Any]:
    """Return the checked values of a YAML file, by argument name."""
    try:
        content = yaml.safe_load(read_text(path)) or {}
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror}") from None
    except (yaml.YAMLError, NotText) as error:
        raise UserError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold `key: value` lines, got a {type(content).__name__}")
    actions = {action.dest: action for action in parser._actions if action.dest not in _OWN}
    aliases = {_key(alias): _key(flag) for alias, flag in parser.aliases.items()}
    keys: dict[str, str] = {}  # as the file spells them
    for key in content:
        name = aliases.get(key, key)
        if name not in actions:
            raise UserError(f"{path}: unknown key '{key}' for {parser.prog}{did_you_mean(str(key), actions)}")
        if name in keys:
            raise UserError(f"{path}: '{keys[name]}' and '{key}' mean the same; leave one of them out")
        keys[name] = key
    return {
        name: _typed(parser, path, key, actions[name], content[key])
        for name, key in keys.items()
        if content[key] is not None
    }


def _key(flag: str) -> str:
    return flag.lstrip("-").replace("-", "_")


def _typed(parser: Parser, path: Path, key: str, action: argparse.Action, value: Any) -> Any:
    """Check one value as the command line would; ``key`` is the file's own spelling, for messages."""
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise UserError(f"{path}: {key} must be true or false, got {value!r}")
        return value
    if action.nargs in ("+", "*"):
        values = value if isinstance(value, list) else [value]
        if not values:
            raise UserError(f"{path}: {key} must name at least one")
        return [_typed_one(parser, path, key, action, each) for each in values]
    return _typed_one(parser, path, key, action, value)


def _typed_one(parser: Parser, path: Path, key: str, action: argparse.Action, value: Any) -> Any:
    if isinstance(value, (list, dict, bool)):
        raise UserError(f"{path}: {key} takes one value, got {value!r}")
    try:
        convert = parser._registry_get("type", action.type, action.type)  # as argparse: what `type=Path` means
        converted = convert(str(value))
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise UserError(f"{path}: {key}: {error}") from None
    if action.choices is not None and converted not in action.choices:
        choices = [str(choice) for choice in action.choices]
        raise UserError(f"{path}: unknown {key} '{value}'{did_you_mean(str(value), choices)}")
    return converted
