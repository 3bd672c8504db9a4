"""Prepare the page of a comparison: scores, curves, errors and calibration, temperatures, examples, settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bimodal_cl.run_folder import LOSS_FILE

from ..classifier_section import confusion_figure, reliability_figure
from ..figures.distributions import draw_outlines, histogram_edges
from ..figures.intervals import Dot, draw_dots
from ..figures.look import MARKERS
from ..retrieval_examples import CaptionExample, Examples, retrieval_examples
from ..scores import metric_name
from ..sources import Placed, Sources
from ..temperature_section import temperature_section, visited_temperatures
from . import cells
from .curves import overlaid_curves
from .groups import Group, differing_settings, seed_of
from .score_tables import SIGNIFICANT, ComparedScores, Row, lower_is_better
from .warnings import find_warnings

_EXAMPLES = 3  # of each row and direction
_MOST_GALLERIES, _MOST_HEAT_MAPS, _MOST_EXAMPLES = 4, 24, 24  # on the page
SYMBOLS = dict(zip(MARKERS, "●■▲◆▼✚✖★", strict=True))


def describe_comparison(
    groups: Sequence[Group], tables: Sequence[ComparedScores], sources: Sources, side: int
) -> dict[str, Any]:
    """Return what the page of a comparison shows.

    Args:
        groups: the rows.
        tables: their scores.
        sources: receives the page's figures and files.
        side: pixels of a thumbnail's longer side.
    """
    for table in tables:
        sources.tabulate(table.title, [file.path for row in table.rows for file in row.files])
    members = [member for each in groups if not each.averaged for member in each.members]
    return {
        "groups": [_group(each) for each in groups],
        "num_members": len(members),
        "warnings": find_warnings(groups, tables),
        "tables": [_table(each) for each in tables],
        "method": cells.METHOD,
        "dots": [placed for each in tables if (placed := _dots(each, sources)) is not None],
        "curves": overlaid_curves(groups, sources),
        "confusions": _confusions(tables, sources),
        "reliability": _reliability(tables, sources),
        "outlines": _outlines(groups, sources),
        "temperatures": _temperatures(groups, sources, side),
        "examples": _examples(tables, side),
        "settings": differing_settings([each for each in groups if not each.averaged]),
        "settings_rows": [each.label for each in groups if not each.averaged],
    }


def _group(group: Group) -> dict[str, Any]:
    seeds = [seed for each in group.members if (seed := seed_of(each)) is not None]
    return {
        "label": group.label,
        "number": group.number,
        "symbol": SYMBOLS[MARKERS[group.number % len(MARKERS)]],
        "paths": [str(each.path) for each in group.members],
        "seeds": ", ".join(map(str, seeds)),
    }


def _table(table: ComparedScores) -> dict[str, Any]:
    """Return a table's texts."""
    return {
        "title": table.title,
        "columns": [(metric_name(each), cells.unit_of(each), lower_is_better(each)) for each in table.metrics],
        "rows": [
            (_group(row.group), len(row.files), [_cell(each, row) for each in table.metrics]) for row in table.rows
        ],
        "chance": [cells.digits(each, table.chance[each]) if each in table.chance else "" for each in table.metrics]
        if table.chance
        else [],
        "differences": [
            (f"{one.first.label} − {one.second.label}", [_difference(each, one.scores) for each in table.metrics])
            for one in table.differences
        ],
    }


def _cell(metric: str, row: Row) -> dict[str, Any] | None:
    cell = row.cells.get(metric)
    if cell is None:
        return None
    value, half = cells.digits(metric, cell.estimate.value), cells.half_width(metric, cell)
    return {"value": value, "half": half, "best": cell.best, "worse": cell.worse}


def _difference(metric: str, scores: dict[str, Any]) -> dict[str, Any] | None:
    if metric not in scores:
        return None
    one, corrected = scores[metric]
    p_value = "" if np.isnan(corrected) else "p < 0.001" if corrected < 0.001 else f"p = {corrected:.3f}"
    text, ends = cells.signed(metric, one.value), cells.interval_text(metric, one)
    return {"value": text, "ends": ends.strip(), "p": p_value, "star": bool(corrected < SIGNIFICANT)}


def _dots(table: ComparedScores, sources: Sources) -> Placed | None:
    """Return the dot plot of a table's fractions; None where it has none."""
    shown = [each for each in table.metrics if cells.unit_of(each) == "%"]
    if not shown:
        return None
    scores = []
    for metric in shown:
        dots: list[Dot | None] = []
        for row in table.rows:
            cell = row.cells.get(metric)
            if cell is None:
                dots.append(None)
                continue
            one = cell.estimate
            dots.append(
                Dot(
                    100 * one.value,
                    float(100 * np.maximum(one.low, 0)),
                    float(100 * np.minimum(one.high, 1)),
                    tuple(100 * each for each in cell.values) if len(cell.values) > 1 else (),
                )
            )
        chance = table.chance.get(metric)
        scores.append((metric_name(metric), dots, None if chance is None else 100 * chance))
    rows = [(row.group.label, row.group.number) for row in table.rows]
    read = "Dots are means with 95 % intervals, strokes the seeds; dashed lines are the level of chance, if known."
    drawing = draw_dots(f"scores-{_slug(table.name)}", f"scores of {table.title}", scores, rows)
    return sources.place(table.title, drawing, read, [file.path for row in table.rows for file in row.files])


def _slug(name: str) -> str:
    return "".join(each if each.isalnum() or each in "-_" else "-" for each in name)


def _confusions(tables: Sequence[ComparedScores], sources: Sources) -> list[Placed]:
    placed: list[Placed] = []
    for table, row in [(each, row) for each in tables for row in each.rows]:
        if len(placed) < _MOST_HEAT_MAPS:
            name = f"confusions-{_slug(table.name)}-{row.group.number}"
            files = [(each.path, each.content) for each in row.files]
            figure = confusion_figure(name, f"{table.title}: {row.group.label}", files, sources)
            placed += [] if figure is None else [figure]
    return placed


def _reliability(tables: Sequence[ComparedScores], sources: Sources) -> list[Placed]:
    placed = []
    for table in tables:
        rows = [(row.group.label, row.group.number, [(f.path, f.content) for f in row.files]) for row in table.rows]
        for key, note in (("bins", "the models' own temperature"), ("bins_fitted", "fitted temperatures")):
            name = f"reliability-{_slug(table.name)}-{key}"
            placed.append(reliability_figure(name, f"{table.title}, {note}", rows, key, sources))
    return [each for each in placed if each is not None]


def _outlines(groups: Sequence[Group], sources: Sources) -> list[Placed]:
    """Return the distributions of the rows' temperatures, of images and of texts; the first seed of each row."""
    found = []
    for each in groups:
        run = each.members[0].run
        if run is not None and run.checkpoint is not None and not each.averaged:
            temperatures = visited_temperatures(run)
            if temperatures is not None:
                found.append((each, temperatures, run.checkpoint / LOSS_FILE))
    if len(found) < 2:
        return []
    edges = histogram_edges(np.concatenate([each.tau for _, both, _ in found for each in both]))
    placed = []
    for place, what in enumerate(("images", "texts")):
        taus = [(group.label, group.number, both[place].tau) for group, both, _ in found]
        read = f"The share of the {what} in each of {len(edges) - 1} intervals of tau; the first seed of each row."
        drawing = draw_outlines(f"tau-outlines-{what}", taus, edges, what)
        placed.append(sources.place(f"Temperatures of {what}", drawing, read, [path for *_, path in found]))
    return placed


def _temperatures(groups: Sequence[Group], sources: Sources, side: int) -> list[tuple[str, str, dict[str, Any]]]:
    """Return label, run and section of the first seed of the rows that learned temperatures."""
    found: list[tuple[str, str, dict[str, Any]]] = []
    for each in groups:
        run = each.members[0].run
        if run is None or each.averaged or len(found) >= _MOST_GALLERIES:
            continue
        section = temperature_section(run, sources, side, f"row{each.number}-")
        if section is not None:
            found.append((each.label, str(run.path), section))
    return found


def _examples(tables: Sequence[ComparedScores], side: int) -> list[Examples]:
    """Return each row's examples, from its first seed, with the ranks of the same captions in the other rows."""
    found: list[Examples] = []
    for table, row in [(each, row) for each in tables for row in each.rows]:
        if len(found) < _MOST_EXAMPLES:
            file = row.files[0]
            title = f"{table.dataset}: {row.group.label}"
            examples = retrieval_examples(title, file.path.parent, file.content, _EXAMPLES, side)
            if examples is not None:
                captions = [replace(one, note=_elsewhere(one, row, table)) for one in examples.captions]
                found.append(replace(examples, captions=captions))
    return found


def _elsewhere(one: CaptionExample, row: Row, table: ComparedScores) -> str:
    """Return the ranks of a caption's picture in the other rows' first seeds, from outcomes of the same data."""
    own = row.files[0].resampled
    ranks = []
    for other in table.rows:
        kept = other.files[0].resampled
        skipped = (other.files[0].provenance.get("counts") or {}).get("num_skipped", 0)
        if other is row or own is None or kept is None or kept.data != own.data or kept.outcomes is None or skipped:
            continue
        of_captions = kept.outcomes.arrays.get("image_ranks")
        if of_captions is not None and 0 <= one.text_id < len(of_captions):
            ranks.append(f"{other.group.label} {int(of_captions[one.text_id]):,}")
    return f"in other rows: {', '.join(ranks)}" if ranks else ""
