"""The file of a study: its schema, and the mistakes in it, each in one line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, field_validator

from bimodal_cl.config.yaml_files import read_yaml
from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.settings import Count, NotTruth, PathText, Section

Seed = Annotated[int, Field(ge=0, lt=2**63), NotTruth]
Values = dict[str, Any]  # by dotted key of a training config


def _as_dotted(value: Any) -> Any:
    """Flatten nested mappings, so that ``{train: {num_epochs: 3}}`` is ``{train.num_epochs: 3}``."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError("should be a mapping of dotted keys, such as {train.num_epochs: 15}")
    flat: Values = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping) and str(key) != "loss":
            flat |= {f"{key}.{below}": each for below, each in _as_dotted(inner).items()}
        else:
            flat[str(key)] = inner
    return _without_own(flat)


def _without_own(values: Values) -> Values:
    """Refuse the keys of a training config that the study itself sets."""
    for key, instead in (("seed", "tune.seeds and final.seeds give the seeds"), ("output", "a study names its runs")):
        if key in values:
            raise ValueError(f"{key} cannot be set here: {instead}")
    return values


Overrides = Annotated[Values, BeforeValidator(_as_dotted)]


class Stage(Section):
    """The runs of a stage: its seeds, and what they change in the config."""

    seeds: tuple[Seed, ...] = Field(min_length=1)
    overrides: Overrides = Field(default={})

    @field_validator("seeds")
    @classmethod
    def _different(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a seed is given twice")
        return value


class Test(Section):
    """The data that every final run is scored on."""

    data: PathText
    split: str = "test"
    features: PathText | None = None


def _as_grid(value: Any) -> Any:
    if isinstance(value, Mapping):
        for key, values in value.items():
            if not isinstance(values, list | tuple) or not values:
                raise ValueError(f"{key} should be a list of values, got {values!r}")
        return _without_own({str(key): tuple(values) for key, values in value.items()})
    if isinstance(value, list | tuple) and value and all(isinstance(each, Mapping) for each in value):
        return tuple(_as_dotted(each) for each in value)
    raise ValueError("should be a mapping of lists, {loss.tau: [0.05, 0.1]}, or a list of points, [{loss.tau: 0.05}]")


Grid = Annotated[tuple[Values, ...] | dict[str, tuple[Any, ...]], BeforeValidator(_as_grid)]


class AxisValue(Section):
    """A value of an axis: what it changes in the config, what is tuned at it alone, and the methods that are run there.

    Attributes:
        overrides: laid over the config.
        grid: every method is tuned on it as well, each of its points with each of the method's own.
        methods: names; None: all.
    """

    overrides: Overrides = Field(default={})
    grid: Grid = Field(default={})
    methods: tuple[str, ...] | None = Field(default=None, min_length=1)


class Method(Section):
    """A method: what it changes in the base config, and the grid it is tuned on."""

    loss: dict[str, Any] | None = None
    overrides: Overrides = Field(default={})
    grid: Grid = Field(default={})

    @field_validator("loss")
    @classmethod
    def _named(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None and "name" not in value:
            raise ValueError("replaces the whole section, so it needs a name, such as {name: clip}")
        return value


def _axis(name: str, value: Any) -> dict[str, Values]:
    if isinstance(value, Mapping) and value:
        return {str(label): _axis_value(values) for label, values in value.items()}
    if isinstance(value, list | tuple) and value and not any(isinstance(each, Mapping) for each in value):
        if len({str(each) for each in value}) < len(value):
            raise ValueError(f"{name} has a value twice")
        return {str(each): {"overrides": {name: each}} for each in value}
    raise ValueError(f"{name} should be a list of its values, or a mapping of names to settings, got {value!r}")


def _axis_value(values: Any) -> Values:
    """Tell what an axis value changes in the config from its own keys."""
    own = AxisValue.model_fields.keys() - {"overrides"}
    if not isinstance(values, Mapping):
        return {"overrides": values}
    own_values = {str(key): value for key, value in values.items() if key in own}
    return {"overrides": {key: value for key, value in values.items() if key not in own}, **own_values}


class StudySettings(Section):
    """A study.

    Attributes:
        output: its folder.
        base: the training config, or several that are laid over one another, relative to the study's file.
        overrides: laid over it.
        jobs: processes that train at the same time.
        score: the validation score that chooses the point of a grid; larger is better.
        tune: seeds of every point.
        final: seeds of the chosen points.
        test: what the final runs are scored on; without it, they are compared by their validation scores.
        axes: values by label, by axis; every method is run at every combination, unless a value names its methods.
        methods: by name.
        compare: pairs as ``"a vs b"``, or ``"a@64 vs b@512"`` with the labels of the axes; None: all methods at each
            combination.
    """

    output: PathText
    base: tuple[str, ...]
    overrides: Overrides = Field(default={})
    jobs: Count = 1
    score: str = "retrieval/rsum"
    tune: Stage = Stage(seeds=(0,))
    final: Stage
    test: Test | None = None
    axes: dict[str, dict[str, AxisValue]] = Field(default={})
    methods: dict[str, Method] = Field(min_length=1)
    compare: tuple[str, ...] | None = None

    @field_validator("axes", mode="before")
    @classmethod
    def _axes(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError("should be a mapping, such as {train.global_batch_size: [32, 128]}")
        return {str(name): _axis(str(name), values) for name, values in value.items()}

    @field_validator("methods", mode="before")
    @classmethod
    def _method_names(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            for name in map(str, value):
                if not name or any(each in name for each in "@,/\\") or " vs " in name:
                    raise ValueError(f"the name '{name}' may hold none of @ , / \\ and not ' vs '")
            return {str(name): {} if method is None else method for name, method in value.items()}
        return value


def read_study(path: Path) -> StudySettings:
    """Read a study's file; ``extends`` names one whose other keys are taken.

    Raises:
        UserError: the file cannot be read, a key is unknown, or a value is not valid; one line with file and key.
    """
    return _validate(path, _read(path))


def _validate(path: Path, values: Values) -> StudySettings:
    try:
        return StudySettings.model_validate(values)
    except ValidationError as error:
        raise UserError(_describe(path, error)) from None


def _read(path: Path, extended_by: Path | None = None) -> Values:
    """Read a study's file over the one that it extends; the training configs become paths from the working directory.

    Raises:
        UserError: a file cannot be read, one extends a file that extends another, or the extended one has a mistake.
    """
    values = read_yaml(path, "study file")
    if isinstance(values.get("base"), str):
        values["base"] = [values["base"]]
    if isinstance(values.get("base"), list):
        values["base"] = [str(path.parent / str(each)) for each in values["base"]]
    if "extends" not in values:
        return values
    if extended_by is not None:
        raise UserError(f"{extended_by}: extends: {path} extends {values['extends']}; one that extends none is needed")
    extended = path.parent / str(values.pop("extends"))
    below = _read(extended, path)
    _validate(extended, below)  # so that a mistake in it is said of it
    return {**below, **values}


def _describe(path: Path, error: ValidationError) -> str:
    """Return one line for the first mistake; an unknown key comes first, as it explains a missing one."""
    problems = sorted(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
    problem = problems[0]
    location = [str(each) for each in problem["loc"] if not str(each).startswith(("tuple[", "dict[", "function-"))]
    more = f" (and {len(problems) - 1} more mistake{'s' * (len(problems) > 2)})" if len(problems) > 1 else ""
    where = f"{path}: {'.'.join(location)}"
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key{did_you_mean(location[-1], _keys(location[:-1]))}{more}"
    if problem["type"] == "missing":
        return f"{where} is missing{more}"
    message = problem["msg"].removeprefix("Value error, ")
    given = "" if isinstance(problem["input"], Mapping | BaseModel) else f", got {problem['input']!r}"
    return f"{where}: {message[0].lower()}{message[1:]}{given}{more}"


def _keys(location: list[str]) -> list[str]:
    """Return the keys of a section of the study's file."""
    sections: dict[str, type[Section]] = {"tune": Stage, "final": Stage, "test": Test, "methods": Method}
    return list(sections[location[0]].model_fields) if location else ["extends", *StudySettings.model_fields]
