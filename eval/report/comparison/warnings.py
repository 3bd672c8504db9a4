"""Say what makes the rows of a comparison less comparable than they look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .groups import Group, seed_of
from .members import ResultFile
from .score_tables import ComparedScores, same_data

_SETTINGS = ("precision", "split")


def find_warnings(groups: Sequence[Group], tables: Sequence[ComparedScores]) -> list[str]:
    """Return sentences on different data, prompts and steps, on equal weights and seeds, and on missing scores."""
    lines = []
    for each in groups:
        seeds = [seed_of(member) for member in each.members]
        if len(seeds) > 1 and len(set(seeds)) < len(seeds) and None not in seeds:
            names = ", ".join(str(seed) for seed in seeds)
            lines.append(f"{each.label}: seeds {names}; runs of the same seed are not independent.")
    for table in tables:
        files = [(row.group.label, file) for row in table.rows for file in row.files]
        lines += [f"{table.title}: {line}" for line in _of_table(groups, table, files)]
    return lines


def _of_table(groups: Sequence[Group], table: ComparedScores, files: Sequence[tuple[str, ResultFile]]) -> list[str]:
    lines = []
    first_label, first = files[0]
    same = [(label, True if file is first else same_data(first, file)) for label, file in files]
    if unknown := [label for label, known in same if known is None]:
        names = ", ".join(dict.fromkeys(unknown))
        lines.append(
            f"it is not known whether {names} and {first_label} were scored on the same data; they are not tested."
        )
    if other := [label for label, known in same if known is False]:
        names = ", ".join(dict.fromkeys(other))
        counts = "; ".join(dict.fromkeys(_counts(file) for _, file in files if _counts(file)))
        lines.append(
            f"{names} and {first_label} were scored on different data ({counts}), so their scores cannot be compared."
        )
    for key in _SETTINGS:
        values = dict.fromkeys(str(file.provenance[key]) for _, file in files if key in file.provenance)
        if len(values) > 1:
            lines.append(f"the {key} differs: {', '.join(values)}.")
    if len({repr(_prompts(file)) for _, file in files if _prompts(file)}) > 1:
        lines.append("the prompts differ.")
    for row in table.rows:
        steps = dict.fromkeys(file.provenance.get("step") for file in row.files)
        if len(steps) > 1:
            lines.append(
                f"{row.group.label}: the seeds were scored after different steps ({', '.join(map(str, steps))})."
            )
        if len(row.files) < len(row.group.members):
            lines.append(f"{row.group.label}: only {len(row.files)} of {len(row.group.members)} seeds were scored.")
    trained = {row.group.label: row.files[0].provenance.get("step") for row in table.rows}
    if len({step for step in trained.values() if step is not None}) > 1:
        shown = ", ".join(f"{label} {step:,}" for label, step in trained.items() if isinstance(step, int))
        lines.append(f"the rows were trained for different numbers of steps ({shown}).")
    owners: dict[str, list[str]] = {}
    for label, file in files:
        if sha := file.provenance.get("checkpoint_sha256"):
            owners.setdefault(str(sha), []).append(label)
    repeated = [each for each in owners.values() if len(each) > 1]
    return lines + [
        f"the same weights were scored {len(each)} times ({', '.join(dict.fromkeys(each))})." for each in repeated
    ]


def _prompts(file: ResultFile) -> Any:
    prompts = file.provenance.get("prompts")
    return prompts.get("templates") if isinstance(prompts, dict) else None


def _counts(file: ResultFile) -> str:
    counts = file.provenance.get("counts")
    if not isinstance(counts, dict):
        return ""
    return ", ".join(f"{value:,} {name.removeprefix('num_')}" for name, value in counts.items() if value)
