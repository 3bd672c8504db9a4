"""Print how a run's temperatures are distributed and the captions of the extremes; write all of them to a file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bimodal_cl.cli.arguments import path_text
from bimodal_cl.cli.parser import Parser
from bimodal_cl.errors import UserError
from bimodal_cl.files.atomic import write_atomically

from ..trained_run import TrainedRun, differs_from_training, find_training_data, load_run
from .learned import LearnedTemperatures, require_temperatures
from .tables import as_csv, as_json, text_rows, write_parquet

if TYPE_CHECKING:
    from bimodal_cl.data.shards.mixture import Mixture

_SUFFIXES = (".csv", ".json", ".parquet")


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
        "--shards",
        metavar="DIR",
        type=path_text,
        action="append",
        default=[],
        help="the training data where they are now, if they moved; given once for each data set, in their order",
    )
    parser.add_argument(
        "--to",
        metavar="FILE",
        type=path_text,
        help="also write every id's temperature to this .csv, .json or .parquet file",
    )


def run(args: argparse.Namespace) -> None:
    """Print quantiles and the captions of the extremes; write every id's temperature to ``--to``.

    Raises:
        UserError: no run, no temperatures in it, ``--top`` below 0, ``--shards`` that are not the run's data, or a file
            name that ends in none of .csv, .json and .parquet.
    """
    if args.top < 0:
        raise UserError(f"--top: {args.top} must be 0 or more")
    target = None if args.to is None else Path(args.to)
    if target is not None and target.suffix.lower() not in _SUFFIXES:
        raise UserError(f"--to: '{args.to}' must end in .csv, .json or .parquet")
    folder = load_run(args.run)
    images, texts = require_temperatures(folder)
    data, why = find_training_data(folder, args.shards)
    if data is None and args.shards:
        raise UserError(f"--shards: {why}")
    print("\n".join(describe(folder, images, texts)))
    if data is None:
        print(f"\nNo captions: {why}.")
    elif differs_from_training(folder, data):
        print(f"\nwarning: {data}: not the shards of the training as they were then, so captions may be wrong")
    captions = _captions_of(data, [*texts.largest(args.top), *texts.smallest(args.top)])
    for title, rows in (("largest", texts.largest(args.top)), ("smallest", texts.smallest(args.top))):
        if rows:
            print(f"\nCaptions with the {title} temperatures")
        for text_id, tau in rows:
            print(f"  {tau:<9.4g} text {text_id:<9d} {captions.get(text_id, '')}".rstrip())
    if target is not None:
        print(f"\n{target}: {_write(target, folder, data, images, texts)}")


def _write(
    target: Path, folder: TrainedRun, data: Mixture | None, images: LearnedTemperatures, texts: LearnedTemperatures
) -> str:
    """Write the file in the format that its name ends in, and return how much it holds."""
    if target.suffix.lower() == ".parquet":
        return f"{write_parquet(target, folder, data, images, texts):,} images and texts"
    rows = list(text_rows(data, images, texts))
    write_atomically(target, as_csv(rows) if target.suffix.lower() == ".csv" else as_json(folder, rows, images))
    return f"{len(rows):,} texts"


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
    from ..captions import read_captions

    return read_captions(data, [text_id for text_id, _ in rows])
