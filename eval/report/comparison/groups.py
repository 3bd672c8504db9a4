"""Sort members into rows: runs that differ in the seed alone are one row, or those that the user puts together."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from bimodal_cl.config.keys import leaves
from bimodal_cl.errors import UserError

from ...trained_run import flat_settings
from .members import Member, ResultFile, load_members

_NOT_THE_RECIPE = ("seed", "output", "resume")


@dataclass(frozen=True)
class Group:
    """A row of a comparison.

    Attributes:
        label: its name.
        number: its place, which also chooses its colour.
        members: its seeds.
        averaged: whether the row holds the scores of the averaged weights.
    """

    label: str
    number: int
    members: tuple[Member, ...]
    averaged: bool = False

    def results(self, key: tuple[str, str]) -> list[ResultFile]:
        """Return the members' final results of a task on a data set, at most one of each member."""
        found = []
        for member in self.members:
            fitting = [each for each in member.results if self._holds(each) and each.key == key]
            found += fitting[-1:]
        return found

    def scored(self) -> list[tuple[str, str]]:
        """Return the tasks and data sets of which there are results."""
        return list(dict.fromkeys(each.key for one in self.members for each in one.results if self._holds(each)))

    def _holds(self, result: ResultFile) -> bool:
        return result.averaged == self.averaged and not result.of_step


def load_groups(paths: Sequence[str], named: Sequence[str] = ()) -> list[Group]:
    """Read runs and results and sort them into rows, in the order given.

    Args:
        paths: folders; runs whose configurations differ in the seed alone share a row.
        named: ``NAME=FOLDER,FOLDER``, a row each.

    Raises:
        UserError: a folder cannot be read, a name is given twice, a folder is given twice, or one of ``named`` holds
            several models, which are no seeds of one recipe.
    """
    labels: list[str] = []
    rows: list[list[Member]] = []
    for text in named:
        label, mark, folders = text.partition("=")
        if not mark or not label.strip() or not folders.strip(","):
            raise UserError(f"--group {text}: must be NAME=RUN or NAME=RUN,RUN")
        if label in labels:
            raise UserError(f"--group {text}: there is already a group '{label}'")
        labels.append(label)
        rows.append([_one_member(text, folder) for folder in folders.split(",") if folder])
    by_recipe: dict[str, list[Member]] = {}
    for path in paths:
        for member in load_members(path):
            by_recipe.setdefault(_recipe(member), []).append(member)
    loose = list(by_recipe.values())
    _refuse_repeats([*rows, *loose])
    labels += _label(loose, labels)
    rows += loose
    named_rows = enumerate(zip(labels, rows, strict=True))
    groups = [Group(label, number, tuple(members)) for number, (label, members) in named_rows]
    averages = [each for each in groups if any(result.averaged for one in each.members for result in one.results)]
    for each in averages:
        groups.append(Group(f"{each.label} (EMA)", len(groups), each.members, averaged=True))
    return [each for each in groups if not each.averaged or each.scored()]


def _one_member(group: str, folder: str) -> Member:
    members = load_members(folder)
    if len(members) > 1:
        names = ", ".join(each.name for each in members)
        raise UserError(
            f"--group {group}: {folder} holds the results of {len(members)} models ({names}); name one's folder"
        )
    return members[0]


def differing_settings(groups: Sequence[Group]) -> list[tuple[str, list[str]]]:
    """Return the dotted keys in which the configurations of rows differ, with each row's value ("" where unset)."""
    configs = [dict(flat_settings(each.members[0].run.config)) if each.members[0].run else {} for each in groups]
    keys = dict.fromkeys(key for config in configs for key in config)
    rows = [(key, [config.get(key, "") for config in configs]) for key in keys if key not in _NOT_THE_RECIPE]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def seed_of(member: Member) -> int | None:
    """Return a run's seed; None for results alone."""
    seed = None if member.run is None else member.run.config.get("seed")
    return seed if isinstance(seed, int) else None


def _recipe(member: Member) -> str:
    """Return what runs of one row share; other members stand for themselves."""
    if member.run is None:
        return f"{member.path.resolve()} {member.name}"
    recipe = {key: value for key, value in member.run.config.items() if key not in _NOT_THE_RECIPE}
    # An older version's configuration lacks the options that a newer one writes as off. Where the default is another
    # one, false is a setting.
    settings = {
        ".".join(keys) for keys, fields in leaves() if any(each.default is not False for each in fields.values())
    }
    used = {key: value for key, value in flat_settings(recipe) if value != "False" or key in settings}
    return json.dumps(used, sort_keys=True)


def _refuse_repeats(rows: Sequence[Sequence[Member]]) -> None:
    seen: set[tuple[str, str]] = set()
    for member in (each for row in rows for each in row):
        place = str(member.path.resolve()), member.name
        if place in seen:
            raise UserError(f"{member.path}: given twice; a run counted as two seeds would look too certain")
        seen.add(place)


def _label(rows: Sequence[Sequence[Member]], taken: Sequence[str]) -> list[str]:
    """Name rows by their loss where that tells them apart, else by their folders."""
    losses = [row[0].run.loss["name"] if row[0].run else row[0].name for row in rows]
    names = losses if len(set(losses)) == len(rows) else [_shared_name(row) for row in rows]
    found: list[str] = []
    for name in names:
        number, label = 2, name
        while label in found or label in taken:
            label, number = f"{name} {number}", number + 1
        found.append(label)
    return found


def _shared_name(row: Sequence[Member]) -> str:
    """Return a row's folder name without what tells its seeds apart."""
    if len(row) == 1:
        return row[0].name
    return re.sub(r"([-_.~](s|seed)?[-_=]?|seed)\d+$", "", row[0].name) or row[0].name
