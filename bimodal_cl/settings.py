"""Define the base class of all settings, a frozen group of checked fields, and the fields' types. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from bimodal_cl.files.paths import expand_path


def _refuse_boolean(value: Any) -> Any:
    """Refuse booleans, which Python counts as 0 and 1; YAML reads ``yes`` as a boolean."""
    if isinstance(value, bool):
        raise ValueError("should be a number")
    return value


NotTruth = BeforeValidator(_refuse_boolean)
Fraction = Annotated[float, Field(ge=0, le=1), NotTruth]
BelowOne = Annotated[float, Field(ge=0, lt=1), NotTruth]
Weight = Annotated[float, Field(gt=0, le=1), NotTruth]
Positive = Annotated[float, Field(gt=0), NotTruth]
NotNegative = Annotated[float, Field(ge=0), NotTruth]
Cosine = Annotated[float, Field(ge=-1, le=1), NotTruth]
Count = Annotated[int, Field(ge=1), NotTruth]
CountOrZero = Annotated[int, Field(ge=0), NotTruth]
PathText = Annotated[str, AfterValidator(expand_path)]  # with ~ and $NAME expanded, also in config.yaml


class Section(BaseModel):
    """A frozen group of fields that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    def is_set(self, key: str) -> bool:
        """Whether the user gave a key another value than its default (a run's own config.yaml names all keys)."""
        return key in self.model_fields_set and getattr(self, key) != type(self).model_fields[key].default

    @model_serializer(mode="wrap")
    def _without_unset(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        return {
            key: value for key, value in serialize(self).items() if value is not None or fields[key].default is not None
        }


def describe_range(constraints: Sequence[Any]) -> str:
    """Say which range a field's constraints allow.

    Args:
        constraints: the field's ``metadata``.

    Returns:
        Such as ``" in (0, 1]"``; ``""`` without constraints.
    """
    flat = [inner for each in constraints for inner in (getattr(each, "metadata", None) or [each])]
    bounds = {key: getattr(each, key) for each in flat for key in ("ge", "gt", "le", "lt") if hasattr(each, key)}
    if not bounds:
        return ""
    low = f"[{bounds['ge']:g}" if "ge" in bounds else f"({bounds.get('gt', -math.inf):g}"
    high = f"{bounds['le']:g}]" if "le" in bounds else f"{bounds.get('lt', math.inf):g})"
    return f" in {low}, {high}"
