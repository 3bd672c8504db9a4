"""Classify labelled images by the nearest class prompt, without training on them.

The prompts are --templates, else the data set's own, else five common wordings of captions. The data are a folder of
class folders, with or without a split's folder above them, or CLIP_benchmark's wds_ layout. Class folders that are
numbers are class numbers. Classes whose prompts are the same count as one. Images with several classes (labels in
.npy) are scored by mean average precision.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bimodal_cl.cli.arguments import path_text
from bimodal_cl.cli.parser import Parser

from ..datasets import (
    add_column_arguments,
    column_options,
    load_templates,
    prompt_names,
    require_classes,
    require_labelled,
)
from ..encode import ScoredModel, add_model_arguments
from ..features.encoded import encode_images, encode_prompts
from ..features.identity import hash_values
from ..results import Scored, percent, percent_in_interval
from ..score_models import Score, Summary, score_models
from .scores import score_model

if TYPE_CHECKING:
    from bimodal_cl.scoring.uncertainty import Resampled

_COLUMNS = {
    "acc1": "top-1",
    "acc5": "top-5",
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
    parser.add_argument("--classnames", metavar="FILE", type=Path, default=None, help="names for the classes, in order")
    add_column_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Score every model, write a result for each, and print a table."""
    require_labelled(arguments.data, arguments.split)
    templates = load_templates(arguments.templates) if arguments.templates else None

    from bimodal_cl.data import open_labelled
    from bimodal_cl.scoring.zero_shot import DEFAULT_TEMPLATES

    labelled = open_labelled(arguments.data, arguments.split, arguments.classnames, column_options(arguments))
    require_classes(labelled.classnames, arguments.data)
    source = arguments.templates
    if templates is None:
        source = "data set" if labelled.templates else "default"
        templates = list(labelled.templates or DEFAULT_TEMPLATES)
    for line in labelled.notes:
        print(line)

    def encode(model: ScoredModel) -> Score:
        classifier = encode_prompts(model, labelled.classnames, templates, arguments)
        encoded = encode_images(model, labelled, arguments)

        def score() -> tuple[dict[str, Any], Resampled]:
            result, resampled = score_model(model, classifier, encoded, labelled, templates, arguments)
            result["provenance"]["prompts"]["source"] = source
            return result, resampled

        return score

    def hash_data() -> str:
        labels = [label if isinstance(label, int) else label.tolist() for label in labelled.labels]
        return hash_values(labelled.digest(), labels, labelled.classnames, templates)

    score_models(arguments, encode, lambda scored: _summarize(scored, source, len(templates)), hash_data)


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
