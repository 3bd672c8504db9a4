"""List the schema's keys: every leaf with its field, and the keys that a section has."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from bimodal_cl.config.schema import Config

Keys = tuple[str, ...]  # a dotted key in parts: ("loss", "rho")


def dotted_keys() -> list[str]:
    """Return all keys of the schema without repeats, such as ``loss.rho``."""
    return [".".join(keys) for keys, _ in leaves()]


def loss_names() -> set[str]:
    """Return the names of all losses."""
    return {name for section in _sections_of(Config.model_fields["loss"].annotation) for name in _names_of(section)}


def valid_keys(parent: Keys, loss: str) -> list[str]:
    """Return the keys of a section.

    Args:
        parent: the section's own key, ``()`` for the whole config; numbers in it are places in a list.
        loss: the name of the loss, which decides the keys of ``loss``; ``""``: none of them.
    """
    sections: list[type[BaseModel]] = [Config]
    for key in (key for key in parent if not key.isdigit()):
        sections = [inner for section in sections for inner in _sections_of(section.model_fields[key].annotation)]
        if key == "loss":
            sections = [section for section in sections if loss in _names_of(section)]
    return [name for section in sections for name in section.model_fields]


def leaves(section: type[BaseModel] = Config, prefix: Keys = ()) -> Iterator[tuple[Keys, dict[str, FieldInfo]]]:
    """Yield every leaf of a section with its field.

    Args:
        section: a group of fields.
        prefix: the section's own key.

    Yields:
        The key, and the field by the name of the loss where only some losses have it, or under ``""``.
    """
    for name, field in section.model_fields.items():
        sections = _sections_of(field.annotation)
        if not sections or typing.get_origin(field.annotation) in (tuple, list):
            yield (*prefix, name), {"": field}
        elif len(sections) == 1:
            yield from leaves(sections[0], (*prefix, name))
        else:
            yield from _union_leaves(sections, (*prefix, name))


def _union_leaves(sections: Sequence[type[BaseModel]], prefix: Keys) -> Iterator[tuple[Keys, dict[str, FieldInfo]]]:
    found: dict[Keys, dict[str, FieldInfo]] = {}
    for section in sections:
        for keys, owners in leaves(section, prefix):
            found.setdefault(keys, {})[_names_of(section)[0]] = owners[""]
    for keys, owners in found.items():
        if keys[-1] == "name":
            yield keys, {"": FieldInfo(annotation=str, description=f"one of {', '.join(owners)}")}
        elif len(owners) == len(sections):
            yield keys, {"": next(iter(owners.values()))}
        else:
            yield keys, owners


def _sections_of(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for inner in typing.get_args(annotation) for section in _sections_of(inner)]


def _names_of(section: type[BaseModel]) -> tuple[str, ...]:
    return typing.get_args(section.model_fields["name"].annotation)
