"""Score the choice between captions that differ in their order or in one word, for one image or two.

The data are in SugarCrepe's format (a JSON file for each subset beside a folder of images) or in Winoground's
(examples.jsonl with a folder of images, parquet files, or a saved data set of Hugging Face). A tie is a miss.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from bimodal_cl.cli.arguments import natural_number
from bimodal_cl.cli.parser import Parser
from bimodal_cl.errors import UserError

from ..datasets import require_folder
from ..encode import ScoredModel, add_model_arguments
from ..results import Scored, percent, percent_in_interval
from ..score_models import Score, Summary, score_models
from .examples import Example, hash_examples
from .scores import encode_examples, score_model
from .sugar_crepe import list_subsets, read_sugar_crepe
from .winoground import is_winoground, read_winoground

_SHOWN = {"text_acc": "text", "image_acc": "image"}


def add_arguments(parser: Parser) -> None:
    """Add the arguments of ``bimodal-eval composition``."""
    add_model_arguments(parser)
    parser.add_argument(
        "--data", metavar="DIR", type=Path, required=True, help="a folder in SugarCrepe's or in Winoground's format"
    )
    parser.add_argument(
        "--images",
        metavar="DIR",
        type=Path,
        help="the folder of the images (default: images/, val2017/ or data/images/ in DIR)",
    )
    parser.add_argument("--split", default="test", help="the split to score, of parquet files or of a saved data set")
    parser.add_argument("--examples", type=natural_number, default=12, help="number of misses that go into the results")


def run(arguments: argparse.Namespace) -> None:
    """Score every model, write a result for each, and print a table."""
    require_folder(arguments.data)
    examples = open_examples(arguments.data, arguments.split, arguments.images)

    def encode(model: ScoredModel) -> Score:
        encoded = encode_examples(model, examples, arguments)
        return lambda: score_model(model, encoded, len(examples), arguments)

    score_models(arguments, encode, _summarize, partial(hash_examples, examples))


def open_examples(folder: Path, split: str, images: Path | None) -> list[Example]:
    """Read the examples of a folder in either format.

    Raises:
        UserError: it is in neither, or its files contradict the format.
    """
    if is_winoground(folder, split):
        return read_winoground(folder, split, images)
    if list_subsets(folder):
        return read_sugar_crepe(folder, images)
    raise UserError(
        f"--data {folder}: neither SugarCrepe's JSON files (add_att.json, ...) nor Winoground's examples.jsonl, "
        "parquet files or saved data set"
    )


def _summarize(scored: list[Scored]) -> Summary:
    """Return what the terminal shows of some models' results on the same examples."""
    provenance = scored[-1].result["provenance"]
    counts, chance, subsets = provenance["counts"], provenance["chance"], provenance["subsets"]
    before = [f"{counts['num_examples']:,} examples" + (f" in {len(subsets)} subsets" if len(subsets) > 1 else "")]
    if counts["num_skipped"]:
        total = counts["num_examples"] + counts["num_skipped"]
        before.append(f"left out: {counts['num_skipped']:,} of {total:,}, the first for {provenance['skipped'][0]}")
    overall = "group" if "text_acc" in chance else "mean" if len(subsets) > 1 else "accuracy"
    columns = {name: _SHOWN.get(name, overall if name == "acc" else name.removeprefix("acc_")) for name in chance}
    rows = [[one.label, *(percent_in_interval(one.result, name) for name in columns)] for one in scored]
    rows.append(["chance", *(percent(chance[name]) for name in columns)])
    return Summary(before, ["", *columns.values()], rows, compared=columns)
