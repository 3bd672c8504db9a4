"""Score linear probes on a few images of each class, for one or more numbers of images."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bimodal_cl.errors import UserError

from ..results import Scored, percent, percent_in_interval
from ..score_models import Summary
from ..zero_shot.class_scores import ClassScores, chance_levels
from .scores import PREFIX, describe_images
from .splits import Encoded, Split

if TYPE_CHECKING:
    from bimodal_cl.scoring.uncertainty import Resampled


def require_shots(train: Split, targets: np.ndarray, arguments: argparse.Namespace) -> None:
    """Refuse more shots than a class has training images, and images of several classes.

    Args:
        train: the training images.
        targets: the class of each of them that can be drawn.
        arguments: ``shots``.

    Raises:
        UserError: so it is; the message names the smallest class.
    """
    if train.several:
        raise UserError("--shots: needs images of one class each, but these have several; leave it out")
    classes, counts = np.unique(targets, return_counts=True)
    smallest = counts.argmin()
    if counts[smallest] < max(arguments.shots):
        name = train.labelled.classnames[classes[smallest]]
        raise UserError(
            f"--shots {max(arguments.shots)}: class '{name}' has only {counts[smallest]} training images that are not "
            f"held out for validation; at most {counts[smallest]} shots are possible"
        )


def score_few_shots(
    encoded: Mapping[str, Encoded], arguments: argparse.Namespace, on_draw: Callable[[], object]
) -> tuple[ClassScores, list[dict[str, Any]]]:
    """Score every number of shots.

    Args:
        encoded: the features of ``train``, ``val`` and ``test``.
        arguments: ``shots``, ``draws``, ``seed``.
        on_draw: called after each probe.

    Returns:
        The mean scores, such as ``lp_acc1_4shot``; and a row for each number of shots with its scores and, under
        ``by_draw``, those of each draw.
    """
    from bimodal_cl.scoring.probes.few_shot import mean_scores, resample_draws, score_shots

    train, val, test = (encoded[part].part for part in ("train", "val", "test"))
    metrics: dict[str, float] = {}
    samples: dict[str, np.ndarray] = {}
    table = []
    resampled: Resampled | None = None
    for shots in sorted(set(arguments.shots)):
        draws = score_shots(train, val, test, shots, arguments.draws, arguments.seed, on_draw)
        resampled = resample_draws(draws)
        means, intervals = mean_scores(draws), resampled.intervals()
        metrics |= {score_name(name, shots): value for name, value in means.items()}
        samples |= {score_name(name, shots): values for name, values in resampled.samples.items()}
        by_draw = [{**{PREFIX + name: value for name, value in each.scores.items()}, "l2": each.l2} for each in draws]
        row = {PREFIX + name: value for name, value in means.items()}
        ends = {PREFIX + name: ends for name, ends in intervals.items()}
        table.append({"shots": shots, **row, "intervals": ends, "by_draw": by_draw})
    assert resampled is not None  # there is at least one number of shots
    chance = chance_levels(metrics, len(train.classes()))
    return ClassScores(metrics, replace(resampled, samples=samples), chance, {}), table


def score_name(name: str, shots: int) -> str:
    """Return the name of a score for some shots, such as ``lp_acc1_4shot``."""
    return f"{PREFIX}{name}_{shots}shot"


def summarize_shots(scored: list[Scored], how: str) -> Summary:
    """Return what the terminal shows of some models' results on the same images: their top-1 accuracy by shots."""
    result = scored[-1].result
    shots = [row["shots"] for row in result["few_shot"]]
    columns = {score_name("acc1", each): f"{each} {'shot' if each == 1 else 'shots'}, top-1" for each in shots}
    rows = [[one.label, *(percent_in_interval(one.result, name) for name in columns)] for one in scored]
    rows.append(["chance", *(percent(result["provenance"]["chance"][name]) for name in columns)])
    draws = result["probe"]["draws"]
    before = describe_images(scored, f"{how}; means of {draws} draws" if draws > 1 else how)
    return Summary(before, ["", *columns.values()], rows, compared=columns)
