"""Flags of the command line for every key of the schema: ``--section.key VALUE``."""

from __future__ import annotations

import typing
from typing import Any

import yaml
from pydantic.fields import FieldInfo

from bimodal_cl.cli.parser import Parser
from bimodal_cl.config.keys import Keys, leaves
from bimodal_cl.errors import UserError


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
        defaults = {str(owner.default): name for name, owner in owners.items() if not owner.is_required()}
        default = ", ".join(f"{name}: {value}" if len(defaults) > 1 else value for value, name in defaults.items())
        default = f" (default: {default})" if default not in ("", "None") else ""
        groups[section].add_argument(
            flag, dest=flag, metavar=_type_name(field), help=description + default, default=None
        )


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
