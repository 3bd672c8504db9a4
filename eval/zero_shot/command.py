"""Classify labelled images by the nearest class prompt, without training on them.

The data are class folders (with or without a split's folder above them), CLIP_benchmark's wds_ layout, a CSV or TSV
table, or a Hugging Face data set. The prompts are --templates, else the data set's own, else five common wordings of
captions. Class folders that are numbers are class numbers. Classes whose prompts are the same count as one. Images
with several classes are scored by mean average precision. Otherwise the scores are top-1, top-5, the mean per class,
the calibration error (ECE), and with --train-counts top-1 of the head, the medium and the tail.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bimodal_cl.cli.arguments import path_text
from bimodal_cl.cli.parser import Parser
from bimodal_cl.data.labelled.imagenet_variants import OBJECTNET, VARIANTS
from bimodal_cl.errors import UserError

from ..class_prompts import IMAGENET, add_classnames_argument, load_classnames, load_templates, prompt_names
from ..datasets import (
    add_column_arguments,
    column_options,
    dataset_name,
    require_classes,
    require_file,
    require_labelled,
)
from ..encode import ScoredModel, add_model_arguments
from ..features.encoded import encode_images, encode_prompts
from ..features.identity import hash_labelled, hash_values
from ..results import Scored, percent, percent_in_interval
from ..score_models import Score, Summary, score_models
from .scores import score_model
from .train_counts import read_train_counts

if TYPE_CHECKING:
    from bimodal_cl.data import LabelledImages
    from bimodal_cl.data.labelled.class_names import NameList
    from bimodal_cl.scoring.uncertainty import Resampled

_COLUMNS = {
    "acc1": "top-1",
    "acc5": "top-5",
    "acc1_head": "top-1 head",
    "acc1_medium": "top-1 medium",
    "acc1_tail": "top-1 tail",
    "mean_per_class_recall": "mean per class",
    "mean_average_precision": "mean average precision",
    "ece": "ECE",
    "ece_fitted": "ECE fitted",
}


def add_arguments(parser: Parser) -> None:
    """Add the arguments of ``bimodal-eval zero-shot``."""
    add_model_arguments(parser)
    parser.add_argument(
        "--data",
        metavar="DIR|FILE|hf:NAME",
        type=path_text,
        required=True,
        help="labelled images: a folder, a .csv, .tsv or .parquet file, or a data set on the Hugging Face hub",
    )
    parser.add_argument("--split", default="test", help="the split to score on")
    parser.add_argument(
        "--templates",
        metavar="FILE",
        type=path_text,
        help=f"prompts, one per line with {{c}} for the class; or one of {', '.join(prompt_names())} (default: the "
        "data set's own, else five wordings of captions)",
    )
    add_classnames_argument(parser)
    parser.add_argument(
        "--class-map",
        metavar="FILE",
        type=path_text,
        default=None,
        help="JSON of the data's classes and their names, for a part of the classes or several names each; or one of "
        f"{', '.join(VARIANTS)}",
    )
    add_column_arguments(parser)
    parser.add_argument(
        "--train-counts",
        metavar="FILE",
        type=Path,
        default=None,
        help="training images by class (JSON, CSV or TSV), for scores of the head, the medium and the tail",
    )
    parser.add_argument(
        "--medium-shot",
        metavar="LOW,HIGH",
        type=_bounds,
        default=None,
        help="training images of medium classes, both included; the tail has fewer, the head more (default: 20,100)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Score every model, write a result for each, and print a table."""
    require_labelled(arguments.data, arguments.split)
    if arguments.medium_shot and not arguments.train_counts:
        raise UserError("--medium-shot: needs --train-counts")
    if arguments.classnames and arguments.class_map:
        raise UserError("--classnames: --class-map names the classes already; give one of the two")
    templates = load_templates(arguments.templates) if arguments.templates else None
    names = load_classnames(arguments.classnames) if arguments.classnames else None

    from bimodal_cl.scoring.frequency_buckets import BOUNDS
    from bimodal_cl.scoring.zero_shot import DEFAULT_TEMPLATES

    labelled = _open(arguments, names)
    require_classes(labelled.classnames, arguments.data)
    counts = None
    if arguments.train_counts:
        counts = read_train_counts(arguments.train_counts, labelled, arguments.medium_shot or BOUNDS)
    source = arguments.templates
    if templates is None and not labelled.templates and arguments.class_map in VARIANTS:
        source, templates = IMAGENET, load_templates(IMAGENET)
    elif templates is None:
        source = "data set" if labelled.templates else "default"
        templates = list(labelled.templates or DEFAULT_TEMPLATES)
    for line in labelled.notes:
        print(line)

    def encode(model: ScoredModel) -> Score:
        classifier = encode_prompts(model, labelled.names_of_class, templates, arguments)
        encoded = encode_images(model, labelled, arguments)

        def score() -> tuple[dict[str, Any], Resampled]:
            result, resampled = score_model(model, classifier, encoded, labelled, templates, arguments, counts)
            result["provenance"]["prompts"]["source"] = source
            return result, resampled

        return score

    def hash_data() -> str:
        return hash_values(hash_labelled(labelled), templates)

    score_models(arguments, encode, lambda scored: _summarize(scored, source, len(templates)), hash_data)


def _open(arguments: argparse.Namespace, names: NameList | None) -> LabelledImages:
    """Open the images, those of the classes of ``--class-map`` alone if there is one."""
    from bimodal_cl.data import open_labelled
    from bimodal_cl.data.labelled.class_map import read_class_map
    from bimodal_cl.data.labelled.imagenet_variants import objectnet_images, variant_map

    given, data, columns = arguments.class_map, arguments.data, column_options(arguments)
    if given is None:
        return open_labelled(data, arguments.split, names, columns)
    if given not in VARIANTS:
        require_file(given, "--class-map", VARIANTS)
        return read_class_map(Path(given)).apply(open_labelled(data, arguments.split, None, columns))
    found = variant_map(given, Path(data))
    if not given.startswith(OBJECTNET):
        return found.apply(open_labelled(data, arguments.split, None, columns))
    labelled = found.apply(open_labelled(objectnet_images(Path(data)), arguments.split, None, columns))
    labelled.name = dataset_name(Path(data))  # not that of the folder of images inside it
    return labelled


def _bounds(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,9}),([0-9]{1,9})", text.replace(" ", ""))
    if match is None or int(match[1]) > int(match[2]):
        raise argparse.ArgumentTypeError(f"must be two whole numbers such as 20,100, got '{text}'")
    return int(match[1]), int(match[2])


def _summarize(scored: list[Scored], source: str, num_templates: int) -> Summary:
    """Return what the terminal shows of some models' results on the same images."""
    provenance = scored[-1].result["provenance"]
    counts, chance = provenance["counts"], provenance["chance"]
    size = f"{counts['num_images']:,} images of {counts['num_classes']:,} classes"
    before = [f"{size}, {num_templates} prompts per class ({source})"]
    if counts["num_skipped"]:
        before.append(f"{counts['num_skipped']:,} images could not be read and are left out; the results name them")
    columns = {name: shown for name, shown in _COLUMNS.items() if any(name in one.result["metrics"] for one in scored)}
    rows = [[one.label, *(percent_in_interval(one.result, name) for name in columns)] for one in scored]
    rows.append(["chance", *(percent(chance.get(name)) for name in columns)])
    return Summary(before, ["", *columns.values()], rows, compared=columns)
