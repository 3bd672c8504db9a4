"""Flags of the command line for every key of the schema: ``--section.key VALUE``."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic.fields import FieldInfo

from bimodal_cl.cli.parser import Parser
from bimodal_cl.config.keys import Keys, leaves
from bimodal_cl.errors import UserError
from bimodal_cl.settings import describe_range


def add_flags(parser: Parser) -> None:
    """Add one flag for every key of the schema, with its description, default and range, by section."""
    groups = {}
    for keys, owners in leaves():
        field = next(iter(owners.values()))
        section = keys[0] if len(keys) > 1 else "run"
        if section not in groups:
            groups[section] = parser.add_argument_group(section)
        flag = "--" + ".".join(keys)
        description = (field.description or "").replace("%", "%%")
        if "" not in owners:
            description = f"[{', '.join(owners)}] {description}"
        description += _describe_ranges(owners) + _describe_defaults(owners)
        groups[section].add_argument(flag, dest=flag, metavar=_type_name(field), help=description, default=None)


def flags_given(arguments: Any) -> dict[Keys, Any]:
    """Return the values of the flags of :func:`add_flags` that were given, by key path.

    Raises:
        UserError: a list or mapping that is not valid YAML.
    """
    given = {name: value for name, value in vars(arguments).items() if name.startswith("--") and value is not None}
    return {tuple(name[2:].split(".")): _parse(name, value) for name, value in given.items()}


def _parse(flag: str, text: str) -> Any:
    """Read lists, mappings and null as YAML; the schema converts everything else."""
    if text[:1] in ("[", "{") or text in ("null", "none"):
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            raise UserError(f"{flag}: '{text}' is not a valid YAML list or mapping") from None
    return text


def _describe_ranges(owners: Mapping[str, FieldInfo]) -> str:
    """Return ``"; in (0, 1]"``, or ``""`` where nothing bounds the value or where losses differ in the bounds."""
    ranges = {describe_range(owner.metadata) for owner in owners.values()}
    return f";{ranges.pop()}" if len(ranges) == 1 and ranges != {""} else ""


def _describe_defaults(owners: Mapping[str, FieldInfo]) -> str:
    """Return ``" (default: 0.1)"``; where losses differ, ``" (default: clip, cyclip: 0.07, siglip: 0.1)"``."""
    losses: dict[str, list[str]] = {}
    for name, owner in owners.items():
        if not owner.is_required():
            losses.setdefault(str(owner.default), []).append(name)
    several = len(losses) > 1
    default = ", ".join(f"{', '.join(names)}: {value}" if several else value for value, names in losses.items())
    return f" (default: {default})" if default not in ("", "None") else ""


def _type_name(field: FieldInfo) -> str:
    def describe(annotation: Any) -> str:
        if typing.get_origin(annotation) is typing.Literal:
            return "|".join(str(choice) for choice in typing.get_args(annotation))
        if typing.get_origin(annotation) is typing.Annotated:
            return describe(typing.get_args(annotation)[0])
        if typing.get_origin(annotation) in (tuple, list):
            return "LIST"
        if isinstance(annotation, type):
            return {"str": "TEXT", "bool": "true|false"}.get(annotation.__name__, annotation.__name__.upper())
        inner = [describe(choice) for choice in typing.get_args(annotation) if choice is not type(None)]
        return "|".join(dict.fromkeys(inner))

    return describe(field.annotation)
