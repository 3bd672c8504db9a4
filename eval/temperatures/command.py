"""Print how a run's temperatures are distributed and the captions of the extremes; write all of them to a file."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bimodal_cl.cli.arguments import natural_number, path_text
from bimodal_cl.cli.parser import Parser
from bimodal_cl.errors import UserError
from bimodal_cl.files.atomic import write_atomically

from ..captions import ConceptTemperature
from ..encode import resolve_device
from ..trained_run import TrainedRun, differs_from_training, find_training_data, load_run
from .concepts import visited_concepts
from .correlation import correlate
from .frequency import (
    Frequency,
    correlate_with_concepts,
    correlate_with_visits,
    correlation_lines,
    correlations_as_json,
    find_owners,
    load_image_concepts,
    mean_by_concept,
)
from .history import describe_spreads, spread_by_checkpoint, spread_by_log, thin_out
from .learned import LearnedTemperatures, require_temperatures
from .neighbours import CROWDED, DUPLICATE, Neighbours, find_neighbours
from .summary import write_summary
from .tables import as_csv, as_json, text_rows, write_parquet
from .visits import Visits, count_visits

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
    parser.add_argument(
        "--sample",
        metavar="N",
        type=natural_number,
        default=2000,
        help="images, with one caption each, that the run's model encodes to count near neighbours; 0: none",
    )
    parser.add_argument(
        "--concepts",
        metavar="FILE",
        type=path_text,
        help="CSV file with the columns concept, and image_id or key, as bimodal-prep concepts and thin write it: "
        "correlate temperatures with the number of images of the concept",
    )
    parser.add_argument(
        "--device", default="auto", help="where to encode: cpu, cuda, ...; auto: cuda where there is one"
    )


def run(args: argparse.Namespace) -> None:
    """Print quantiles and the captions of the extremes; write every id's temperature to ``--to``.

    Raises:
        UserError: no run, no temperatures in it, ``--top`` below 0, ``--shards`` or ``--concepts`` that are not of the
            run's data, or a file name that ends in none of .csv, .json and .parquet.
    """
    if args.top < 0:
        raise UserError(f"--top: {args.top} must be 0 or more")
    target = None if args.to is None else Path(args.to)
    if args.sample == 1:
        raise UserError("--sample: one image has no neighbours; give 0 or at least 2")
    if target is not None and target.suffix.lower() not in _SUFFIXES:
        raise UserError(f"--to: '{args.to}' must end in .csv, .json or .parquet")
    if target is not None and not target.parent.is_dir():
        raise UserError(f"cannot write {target}: no folder '{target.parent}'")  # before the sample is encoded
    folder = load_run(args.run)
    images, texts = require_temperatures(folder)
    data, why = find_training_data(folder, args.shards)
    if data is None and (args.shards or args.concepts):
        raise UserError(f"{'--shards' if args.shards else '--concepts'}: {why}")
    concepts = load_image_concepts(Path(args.concepts), data) if data is not None and args.concepts else None
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
    _show_images(data, images, args.top)
    measures, frequency = _show_history(folder), Frequency(concepts=concepts)
    neighbours: dict[str, Neighbours] = {}
    if data is not None:
        neighbours = _show_neighbours(folder, data, images, texts, args)
        correlations = {"neighbours": {kind: each.as_json() for kind, each in neighbours.items()}}
        if concepts is not None or target is not None:
            frequency = replace(frequency, visits=_find_visits(folder, data, images, texts))
        correlations |= _show_frequency(data, images, texts, frequency)
        measures["correlations"] = {name: found for name, found in correlations.items() if found}
    if neighbours:  # the report measures everything else itself
        both = {"image": images, "text": texts}
        print(f"\n{write_summary(folder, both, neighbours, measures, args.command_line)}")
    if target is not None:
        print(f"\n{target}: {_write(target, folder, data, images, texts, measures, neighbours, frequency)}")


def _show_images(data: Mixture | None, images: LearnedTemperatures, top: int) -> None:
    """Print where the images with the extreme temperatures are, and their first captions."""
    if data is None:
        return
    from bimodal_cl.data.shards.reader import RowReader

    reader = RowReader(data)
    try:
        for title, rows in (("largest", images.largest(top)), ("smallest", images.smallest(top))):
            if rows:
                print(f"\nImages with the {title} temperatures")
            for image_id, tau in rows:
                shard, key = reader.describe(image_id)
                _, captions = reader.read_captions(image_id)
                place = f"{Path(shard).name}/{key}"
                print(f"  {tau:<9.4g} image {image_id:<8d} {place}  {captions[0] if captions else ''}".rstrip())
    finally:
        reader.close()


def _show_history(folder: TrainedRun) -> dict[str, Any]:
    """Print the percentiles over the training, and return those of the checkpoints for the JSON file."""
    kept, logged = spread_by_checkpoint(folder), thin_out(spread_by_log(folder))
    if len(kept) > 1:
        print("", *describe_spreads("Over all visited ids, by checkpoint", kept), sep="\n")
    if len(logged) > 1:
        print("", *describe_spreads("In the batches, from the log", logged), sep="\n")
    return {"checkpoints": [each.as_json() for each in kept]}


def _show_neighbours(
    folder: TrainedRun,
    data: Mixture,
    images: LearnedTemperatures,
    texts: LearnedTemperatures,
    args: argparse.Namespace,
) -> dict[str, Neighbours]:
    """Print the correlation of the temperatures with the number of near neighbours, or why there is none."""
    if args.sample == 0:
        return {}
    device = resolve_device(args.device)
    try:
        pair = find_neighbours(str(folder.checkpoint), data, images, texts, args.sample, device)
    except UserError as error:
        print(f"\nNo neighbours were counted: {error}")
        return {}
    found = dict(zip(("image", "text"), pair, strict=True))
    print("\nRank correlation of tau with the number of near neighbours, with its 95 % interval")
    for kind, each in found.items():
        near = f"cosine from {each.threshold:.3f} (the highest 1 % of pairs)"
        twins = f"{(each.duplicates > 0).sum():,} with one above {DUPLICATE}"
        print(f"  {kind + 's':8}{each.correlation}   {len(each.ids):,} sampled; neighbours: {near}; {twins}")
        if each.threshold > CROWDED:
            print(
                f"  warning: most {kind}s lie close together in this model's features, so a cosine above {DUPLICATE} "
                "does not show a duplicate; the counts of near duplicates mean little"
            )
    return found


def _find_visits(
    folder: TrainedRun, data: Mixture, images: LearnedTemperatures, texts: LearnedTemperatures
) -> Visits | None:
    """Return the number of visits, or print why it is not known."""
    visits, why = count_visits(folder, data, images, texts)
    if visits is None:
        print(f"\nVisits were not counted: {why}")
    return visits


def _show_frequency(
    data: Mixture, images: LearnedTemperatures, texts: LearnedTemperatures, frequency: Frequency
) -> dict[str, Any]:
    """Print the correlations with the concepts' counts and the visits, as far as known, and return them by name."""
    both, concepts, visits = {"image": images, "text": texts}, frequency.concepts, frequency.visits
    if concepts is None:
        return {"concept_counts": _show_concepts(visited_concepts(data, images, texts))}
    owners = find_owners(data)
    by_concept = _show_concepts(mean_by_concept(concepts, owners, images, texts))
    found = {"concept_frequency": correlate_with_concepts(concepts, owners, both, visits)}
    title = "Rank correlation with the number of images of the anchor's concept, with its 95 % interval over concepts"
    print("", *correlation_lines(title, found["concept_frequency"]), sep="\n")
    if visits is not None:
        found["visits"] = correlate_with_visits(visits, owners, both)
        title = "Rank correlation with the number of visits of the anchor, with its 95 % interval over images"
        print("", *correlation_lines(title, found["visits"]), sep="\n")
    return {"concept_counts": by_concept, **{name: correlations_as_json(each) for name, each in found.items()}}


def _show_concepts(rows: list[ConceptTemperature]) -> dict[str, Any]:
    """Print the correlation of the concepts' mean temperatures with their counts, where there are enough concepts."""
    if len(rows) < 3:
        return {}
    counts = np.array([each.count for each in rows])
    found = {
        "image": correlate(counts, np.array([each.image_tau for each in rows])),
        "text": correlate(counts, np.array([each.text_tau for each in rows])),
    }
    print("\nRank correlation of a concept's mean tau with its count, with its 95 % interval")
    for kind, each in found.items():
        print(f"  {kind + 's':8}{each}   {len(rows):,} concepts")
    return {kind: each.as_json() for kind, each in found.items()}


def _write(
    target: Path,
    folder: TrainedRun,
    data: Mixture | None,
    images: LearnedTemperatures,
    texts: LearnedTemperatures,
    measures: dict[str, Any],
    neighbours: dict[str, Neighbours],
    frequency: Frequency,
) -> str:
    """Write the file in the format that its name ends in, and return how much it holds."""
    if target.suffix.lower() == ".parquet":
        return f"{write_parquet(target, folder, data, images, texts, neighbours, frequency):,} images and texts"
    rows = list(text_rows(data, images, texts, frequency))
    as_text = as_csv(rows) if target.suffix.lower() == ".csv" else as_json(folder, rows, images, measures, frequency)
    write_atomically(target, as_text)
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
