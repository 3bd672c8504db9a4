"""Expand a study into its runs: every method at every combination of the axes, at every point of its grid."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from bimodal_cl.config.checks import check_config
from bimodal_cl.config.schema import Config
from bimodal_cl.config.yaml_files import load_config
from bimodal_cl.errors import UserError, did_you_mean

from ..encode import slug
from .settings import AxisValue, Grid, Method, Stage, StudySettings, Values

TUNE, FINAL = "tune", "final"
_LONGEST_NAME = 120


@dataclass(frozen=True)
class Place:
    """A combination of the axes: their labels by name, and what these stand for."""

    labels: dict[str, str]
    axis_values: tuple[AxisValue, ...]

    @property
    def overrides(self) -> Values:
        """What it changes in the config."""
        return {key: value for each in self.axis_values for key, value in each.overrides.items()}

    def takes(self, method: str) -> bool:
        """Return whether a method is run at it."""
        return all(each.methods is None or method in each.methods for each in self.axis_values)

    def describe(self) -> str:
        """Return it in words, such as ``global batch size 128``; "" without axes."""
        return ", ".join(f"{axis_name(axis)} {label}" for axis, label in self.labels.items())


@dataclass(frozen=True)
class Cell:
    """A method at a combination of the axes, with the points of its grid."""

    method: str
    place: Place
    points: tuple[Values, ...]

    @property
    def key(self) -> tuple[str, ...]:
        """What tells it from the other cells."""
        return (self.method, *self.place.labels.values())

    def describe(self) -> str:
        """Return its name in tables."""
        return ", ".join(filter(None, [self.method, self.place.describe()]))


@dataclass(frozen=True)
class Run:
    """A run of a study.

    Attributes:
        cell: what it is a run of.
        point: its place in the cell's grid.
        stage: ``"tune"`` or ``"final"``.
        config: of the training.
        recipe: what its config shares with that of other seeds, see :func:`hash_recipe`.
    """

    cell: Cell
    point: int
    stage: str
    config: Config
    recipe: str

    @property
    def seed(self) -> int:
        """Its seed."""
        return self.config.seed

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.config.output)

    def describe(self) -> str:
        """Return what a line of the progress calls it."""
        point = describe_point(self.cell.points[self.point])
        return f"{self.stage} {', '.join(filter(None, [self.cell.describe(), point]))}, seed {self.seed}"


@dataclass(frozen=True)
class Study:
    """An expanded study.

    Attributes:
        settings: of its file.
        path: its file.
        output: its folder.
        cells: what is compared.
        recipes: the config of each point and stage, of any seed, with its hash.
        notes: warnings about the configs of its runs.
    """

    settings: StudySettings
    path: Path
    output: Path
    cells: tuple[Cell, ...]
    recipes: dict[tuple[tuple[str, ...], int, str], tuple[Config, str]]
    notes: tuple[str, ...]

    def tuning(self, cell: Cell) -> list[Run]:
        """Return the runs that choose the point of a cell; none where it has one point."""
        if len(cell.points) == 1:
            return []
        seeds = self.settings.tune.seeds
        return [self._run(cell, point, TUNE, seed) for point in range(len(cell.points)) for seed in seeds]

    def finals(self, cell: Cell, point: int) -> list[Run]:
        """Return the final runs of a cell at a point of its grid."""
        return [self._run(cell, point, FINAL, seed) for seed in self.settings.final.seeds]

    def only(self, methods: Sequence[str]) -> Study:
        """Return the study of some of its methods.

        Raises:
            UserError: one is unknown.
        """
        for name in methods:
            if name not in self.settings.methods:
                raise UserError(f"--only: no method '{name}' in {self.path}{did_you_mean(name, self.settings.methods)}")
        return replace(self, cells=tuple(each for each in self.cells if each.method in methods))

    def places(self) -> list[Place]:
        """Return the combinations of the axes."""
        return list({tuple(each.place.labels.values()): each.place for each in self.cells}.values())

    def may_be_final(self, run: Run) -> bool:
        """Return whether a run that tunes is also the final run of its point."""
        return any(each.recipe == run.recipe and each.seed == run.seed for each in self.finals(run.cell, run.point))

    def _run(self, cell: Cell, point: int, stage: str, seed: int) -> Run:
        config, recipe = self.recipes[cell.key, point, stage]
        labels = "-".join(f"{axis.rpartition('.')[2]}={label}" for axis, label in cell.place.labels.items())
        settings = "-".join(f"{_last(key)}={value}" for key, value in cell.points[point].items())
        name = slug("-".join(filter(None, [cell.method, labels, settings])))[:_LONGEST_NAME]
        folder = self.output / "runs" / f"{name}-{recipe[:8]}_s{seed}"
        return Run(cell, point, stage, config.model_copy(update={"output": str(folder), "seed": seed}), recipe)


def axis_name(axis: str) -> str:
    """Return an axis as a table calls it: ``train.global_batch_size`` is ``global batch size``."""
    return _last(axis).replace("_", " ")


def describe_point(point: Values) -> str:
    """Return the settings of a point, each by the last part of its key."""
    return ", ".join(f"{_last(key)} {_short(value)}" for key, value in point.items())


def hash_recipe(config: Config) -> str:
    """Return the hash of what a config says beside seed and folder, without what has its default.

    So an option that a later version adds, off, leaves it as it is.
    """
    values = config.model_dump(mode="json", exclude_defaults=True, exclude={"seed", "output"})
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def expand(settings: StudySettings, path: Path, output: Path) -> Study:
    """Expand a study, and check the config of every run.

    Args:
        settings: of its file.
        path: its file, for messages.
        output: its folder.

    Raises:
        UserError: a config is not valid; one line with file, method and key.
    """
    places = list(_places(settings, path))
    cells = []
    recipes: dict[tuple[tuple[str, ...], int, str], tuple[Config, str]] = {}
    notes: dict[str, None] = {}
    for place, (name, method) in product(places, settings.methods.items()):
        if not place.takes(name):
            continue
        cell = Cell(name, place, _points(method, place, f"{path}: methods.{name}"))
        cells.append(cell)
        for point, stage in product(range(len(cell.points)), (TUNE, FINAL)):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                config = _load(settings, path, cell, point, stage)
            recipes[cell.key, point, stage] = config, hash_recipe(config)
            notes |= {f"{path}: methods.{name}: {warning.message}": None for warning in caught}
    for name in settings.methods:
        if all(each.method != name for each in cells):
            raise UserError(f"{path}: methods.{name}: the axes' lists of methods leave it out everywhere")
    return Study(settings, path, output, tuple(cells), recipes, tuple(notes))


def _places(settings: StudySettings, path: Path) -> Iterator[Place]:
    for axis, values in settings.axes.items():
        for label, value in values.items():
            for name in value.methods or ():
                if name not in settings.methods:
                    where = f"{path}: axes.{axis}.{label}.methods"
                    raise UserError(f"{where}: no method '{name}'{did_you_mean(name, settings.methods)}")
    for labels in product(*settings.axes.values()):
        chosen = tuple(values[label] for values, label in zip(settings.axes.values(), labels, strict=True))
        yield Place(dict(zip(settings.axes, labels, strict=True)), chosen)


def _points(method: Method, place: Place, where: str) -> tuple[Values, ...]:
    """Return a method's points at a place: each of its own with each of those of the axis values.

    Raises:
        UserError: two of these grids set the same key.
    """
    points: tuple[Values, ...] = ({},)
    for grid in (method.grid, *(each.grid for each in place.axis_values)):
        added = _expand(grid)
        if twice := sorted(points[0].keys() & {key for point in added for key in point}):
            raise UserError(f"{where}: {twice[0]} is in the grid of the method and of an axis: leave it out of one")
        points = tuple({**point, **more} for point, more in product(points, added))
    return points


def _expand(grid: Grid) -> tuple[Values, ...]:
    if not isinstance(grid, Mapping):
        return grid
    return tuple(dict(zip(grid, values, strict=True)) for values in product(*grid.values()))


def _load(settings: StudySettings, path: Path, cell: Cell, point: int, stage: str) -> Config:
    method = settings.methods[cell.method]
    own: Stage = getattr(settings, stage)
    flags: Values = {}
    # The section is emptied and filled key by key, so that a mistake in it is said of its key.
    loss = {} if method.loss is None else {"loss": {}, **{f"loss.{key}": value for key, value in method.loss.items()}}
    for layer in (settings.overrides, loss, method.overrides, cell.place.overrides, cell.points[point], own.overrides):
        for key, value in layer.items():
            flags.pop(key, None)  # a later layer is laid over an earlier one, also where that replaced the section
            flags[key] = value
    flags |= {"output": str(path), "seed": own.seeds[0]}
    where = f"{path}: methods.{cell.method}"
    try:
        config = load_config(settings.base, flags)
        check_config(config)
    except UserError as error:
        raise UserError(f"{where}: {str(error).removeprefix('--')}") from None
    if config.data.val is None and config.data.zero_shot is None:
        raise UserError(f"{where}: data.val is missing: the validation data choose among its settings")
    return config


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
