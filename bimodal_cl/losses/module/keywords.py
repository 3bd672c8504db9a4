"""Check a loss's keyword arguments and make its settings; every mistake is an error of one line. Imports no torch."""

from __future__ import annotations

import numbers
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.losses.module.registry import LOSS_SETTINGS, LOSSES
from bimodal_cl.losses.rules.base import LossSettings
from bimodal_cl.settings import describe_range

_UNIONS = (types.UnionType, typing.Union)
_OUT_OF_RANGE = {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number"}
_TYPES = {float: "a number", int: "a whole number", bool: "True or False", types.NoneType: "None"}


def read_settings(name: str, **hyperparameters: Any) -> LossSettings:
    """Check a loss's hyperparameters, without converting text to numbers.

    Args:
        name: one of ``LOSSES``.
        hyperparameters: fields of the named loss's settings; numpy's numbers are numbers.

    Raises:
        UserError: an unknown name, an unknown hyperparameter for that name, or a value of the wrong type (text where a
            number belongs).
        ValueError: a value out of range, or one that another hyperparameter leaves without effect.
    """
    if name not in LOSS_SETTINGS:
        raise UserError(f"unknown loss '{name}'{did_you_mean(name, LOSSES)}")
    settings = LOSS_SETTINGS[name]
    known = [field for field in settings.model_fields if field != "name"]
    for key in hyperparameters:
        if key not in known:
            raise UserError(f"loss '{name}' has no hyperparameter '{key}'{did_you_mean(key, known)}")
    plain = {key: _as_plain_number(value) for key, value in hyperparameters.items()}
    try:
        return settings.model_validate({"name": name, **plain}, strict=True)
    except ValidationError as error:
        raise _describe(settings, error.errors(include_url=False), hyperparameters) from None


def _as_plain_number(value: object) -> object:
    if isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else value


def _describe(
    settings: type[LossSettings], problems: Sequence[ErrorDetails], given: Mapping[str, Any]
) -> UserError | ValueError:
    """Turn pydantic's problems into one error of one line, for the first field that has any."""
    (name,) = typing.get_args(settings.model_fields["name"].annotation)
    if not problems[0]["loc"]:
        return ValueError(problems[0]["msg"].removeprefix("Value error, "))
    key = str(problems[0]["loc"][0])
    field = settings.model_fields[key]
    if any(problem["type"] in _OUT_OF_RANGE for problem in problems if problem["loc"][0] == key):
        expected = describe_type(field.annotation, ranges=True) + describe_range(field.metadata)
        return ValueError(f"{key}={given[key]!r} must be {expected}")
    return UserError(f"loss '{name}': {key}={given[key]!r} must be {describe_type(field.annotation)}")


def describe_type(expected: Any, ranges: bool = False) -> str:
    """Say what a type takes, such as ``a whole number or 'auto' or None``.

    Args:
        expected: an annotation.
        ranges: with the range of numbers, such as ``a number in (0, 1]``.
    """
    if typing.get_origin(expected) is typing.Annotated:
        plain, *constraints = typing.get_args(expected)
        return describe_type(plain, ranges) + (describe_range(constraints) if ranges else "")
    if typing.get_origin(expected) in _UNIONS:
        return " or ".join(describe_type(choice, ranges) for choice in typing.get_args(expected))
    if typing.get_origin(expected) is typing.Literal:
        choices = ", ".join(repr(choice) for choice in typing.get_args(expected))
        return f"one of {choices}" if len(typing.get_args(expected)) > 1 else choices
    return _TYPES.get(expected) or f"of type {getattr(expected, '__name__', expected)}"
