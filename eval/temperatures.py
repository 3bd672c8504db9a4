"""Show the temperatures that a run learned, one for each image and each text."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bimodal_cl.cli.arguments import path_text
from bimodal_cl.cli.parser import Parser
from bimodal_cl.errors import UserError
from bimodal_cl.files.atomic import write_atomically
from bimodal_cl.losses.module.keywords import read_settings
from bimodal_cl.losses.module.registry import LOSS_SETTINGS

from .trained_run import TrainedRun, find_training_data, load_run

if TYPE_CHECKING:
    from bimodal_cl.data.shards.mixture import Mixture

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
Kind = Literal["image", "text"]


@dataclass(frozen=True)
class LearnedTemperatures:
    """The temperatures of one modality's visited ids.

    Attributes:
        ids: int64 ``[visited]``, ascending.
        tau: float64 ``[visited]``, > 0.
        num_ids: size of the table, never visited ids included.
        tau_min, tau_max: the loss's bounds, if it has any.
    """

    ids: np.ndarray
    tau: np.ndarray
    num_ids: int
    tau_min: float | None = None
    tau_max: float | None = None

    @property
    def num_never_visited(self) -> int:
        """Number of ids without a temperature of their own yet."""
        return self.num_ids - len(self.ids)

    @property
    def num_at_min(self) -> int:
        """Number of ids at the lower bound."""
        return 0 if self.tau_min is None else int((self.tau <= self.tau_min * (1 + 1e-4)).sum())

    @property
    def num_at_max(self) -> int:
        """Number of ids at the upper bound."""
        return 0 if self.tau_max is None else int((self.tau >= self.tau_max * (1 - 1e-4)).sum())

    def quantiles(self) -> dict[float, float]:
        """Return the values at ``QUANTILES``; empty when no id was visited."""
        if not len(self.tau):
            return {}
        return dict(zip(QUANTILES, np.quantile(self.tau, QUANTILES).tolist(), strict=True))

    def largest(self, count: int) -> list[tuple[int, float]]:
        """Return the ``count`` largest as ``(id, tau)``, largest first; equal ones by id."""
        order = np.lexsort((self.ids, -self.tau))[:count]
        return list(zip(self.ids[order].tolist(), self.tau[order].tolist(), strict=True))

    def smallest(self, count: int) -> list[tuple[int, float]]:
        """Return the ``count`` smallest as ``(id, tau)``, smallest first; equal ones by id."""
        order = np.lexsort((self.ids, self.tau))[:count]
        return list(zip(self.ids[order].tolist(), self.tau[order].tolist(), strict=True))

    def by_id(self) -> np.ndarray:
        """Return all temperatures by id, ``[num_ids]``, NaN where never visited."""
        values = np.full(self.num_ids, np.nan)
        values[self.ids] = self.tau
        return values


def learned_temperatures(run: TrainedRun, kind: Kind) -> LearnedTemperatures | None:
    """Return a modality's temperatures from the newest checkpoint; ``None`` if the loss has none for each id.

    The loss says how they follow from its tables: see
    :meth:`~bimodal_cl.losses.rules.base.LossSettings.own_tau`.

    Keys of ``config.yaml`` that this version does not know are left out.

    Raises:
        UserError: this version has no such loss, or a value that it refuses.
    """
    prefix = f"{kind}_anchors."
    columns = {
        name.removeprefix(prefix): column.astype(np.float64)
        for name, column in run.tables.items()
        if name.startswith(prefix)
    }
    if not columns:
        return None
    known = LOSS_SETTINGS[run.loss["name"]].model_fields if run.loss["name"] in LOSS_SETTINGS else run.loss
    try:
        settings = read_settings(**{key: value for key, value in run.loss.items() if key in known})
    except ValueError as error:
        raise UserError(f"{run.folder.config}: loss: {error}") from None
    tau = settings.own_tau(kind, columns)
    if tau is None or tau.ndim != 1:
        return None
    visited = np.isfinite(tau)
    if "log_u" in columns:
        visited &= ~np.isneginf(columns["log_u"])
    return LearnedTemperatures(
        ids=np.flatnonzero(visited),
        tau=tau[visited],
        num_ids=len(tau),
        tau_min=run.loss.get("tau_min"),
        tau_max=run.loss.get("tau_max"),
    )


def require_temperatures(run: TrainedRun) -> tuple[LearnedTemperatures, LearnedTemperatures]:
    """Return ``(images', texts')`` temperatures.

    Raises:
        UserError: there is no checkpoint, or the loss learns none for each image and text.
    """
    if run.checkpoint is None:
        raise UserError(f"{run.path}: no checkpoint yet, so no temperatures")
    images, texts = learned_temperatures(run, "image"), learned_temperatures(run, "text")
    if images is None or texts is None:
        last = run.training[-1] if run.training else {}
        now = f" (tau {last['tau_image']:.4g} at step {last['step']})" if "tau_image" in last else ""
        raise UserError(
            f"{run.path}: loss '{run.loss['name']}' keeps one temperature for all pairs{now}, "
            "not one for each image and text"
        )
    return images, texts


def add_arguments(parser: Parser) -> None:
    """Add the sub-command's arguments."""
    parser.add_argument("run", metavar="RUN", type=path_text, help="the run's folder")
    parser.add_argument(
        "--top",
        metavar="K",
        type=int,
        default=10,
        help="number of captions to print with the largest and the smallest temperatures",
    )
    parser.add_argument(
        "--to", metavar="FILE", type=path_text, help="also write every id's temperature to this .csv or .json file"
    )


def run(args: argparse.Namespace) -> None:
    """Print quantiles and the captions of the extremes; write every id's temperature to ``--to``.

    Raises:
        UserError: no run, no temperatures in it, ``--top`` below 0, or a file name that ends in neither .csv nor .json.
    """
    if args.top < 0:
        raise UserError(f"--top: {args.top} must be 0 or more")
    target = None if args.to is None else Path(args.to)
    if target is not None and target.suffix.lower() not in (".csv", ".json"):
        raise UserError(f"--to: '{args.to}' must end in .csv or .json")
    folder = load_run(args.run)
    images, texts = require_temperatures(folder)
    data, why = find_training_data(folder)
    print("\n".join(describe(folder, images, texts)))
    if data is None:
        print(f"\nNo captions: {why}.")
    captions = _captions_of(data, [*texts.largest(args.top), *texts.smallest(args.top)])
    for title, rows in (("largest", texts.largest(args.top)), ("smallest", texts.smallest(args.top))):
        if rows:
            print(f"\nCaptions with the {title} temperatures")
        for text_id, tau in rows:
            print(f"  {tau:<9.4g} text {text_id:<9d} {captions.get(text_id, '')}".rstrip())
    if target is not None:
        rows_of_texts = list(_rows(data, images, texts))
        write_atomically(
            target,
            _as_csv(rows_of_texts) if target.suffix.lower() == ".csv" else _as_json(folder, rows_of_texts, images),
        )
        print(f"\n{target}: {len(rows_of_texts):,} texts")


def describe(run: TrainedRun, images: LearnedTemperatures, texts: LearnedTemperatures) -> list[str]:
    """Return the lines of a table of quantiles and counts, one row per modality."""
    heads = ["min", "5 %", "25 %", "median", "75 %", "95 %", "max"]
    lines = [
        f"{run.path}: {run.loss['name']}, step {run.step:,}",
        "",
        f"{'':8}{'ids':>12}{'visited':>12}" + "".join(f"{head:>10}" for head in heads),
    ]
    for name, each in (("images", images), ("texts", texts)):
        values = "".join(f"{value:>10.4g}" for value in each.quantiles().values())
        lines.append(f"{name:8}{each.num_ids:>12,}{len(each.ids):>12,}{values}")
    for name, each in (("images", images), ("texts", texts)):
        if each.num_at_min or each.num_at_max:
            lines.append(f"{name}: {each.num_at_min:,} at tau_min, {each.num_at_max:,} at tau_max")
    return lines


def _captions_of(data: Mixture | None, rows: list[tuple[int, float]]) -> dict[int, str]:
    if data is None or not rows:
        return {}
    from .captions import read_captions

    return read_captions(data, [text_id for text_id, _ in rows])


def _rows(data: Mixture | None, images: LearnedTemperatures, texts: LearnedTemperatures) -> Iterator[dict[str, Any]]:
    """Yield one mapping per text, in the order of ids; the temperature of an id never visited is ``None``."""
    image_tau, text_tau = images.by_id(), texts.by_id()
    if data is None:
        for text_id, tau in enumerate(text_tau.tolist()):
            yield {"text_id": text_id, "tau": _or_none(tau), "caption": None, "image_id": None, "image_tau": None}
        return
    from .captions import iterate_captions

    for image_id, first_text_id, captions in iterate_captions(data):
        for text_id, caption in enumerate(captions, start=first_text_id):
            yield {
                "text_id": text_id,
                "tau": _or_none(text_tau[text_id]),
                "caption": caption,
                "image_id": image_id,
                "image_tau": _or_none(image_tau[image_id]),
            }


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(np.float32(value))


def _as_csv(rows: list[dict[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, ["text_id", "tau", "caption", "image_id", "image_tau"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _as_json(run: TrainedRun, rows: list[dict[str, Any]], images: LearnedTemperatures) -> str:
    taus = [{"image_id": image_id, "tau": _or_none(tau)} for image_id, tau in enumerate(images.by_id().tolist())]
    content = {"loss": run.loss["name"], "step": run.step, "texts": rows, "images": taus}
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"
