"""Define the flags of ``bimodal-prep encode``, and run it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from bimodal_cl.cli.arguments import natural_number, path_text, positive_integer
from bimodal_cl.cli.parser import Parser

DESCRIPTION = """Encode images and captions by the towers of a training config, once, so that a run with
data.features=DIR trains their heads alone (LiT, ShareLock), thousands of pairs a second on a CPU. The config's model
says which towers, its data.crop_scale, data.flip and seed how images are augmented. DIR/towers holds the towers,
DIR/NAME the features of the shards in a folder NAME."""


def add_arguments(parser: Parser) -> None:
    """Add the flags of ``bimodal-prep encode``."""
    parser.description = DESCRIPTION
    parser.add_argument(
        "data",
        nargs="+",
        type=Path,
        metavar="SHARDS",
        help="folders of shards with their manifest.json, or folders of such folders (train, val, test)",
    )
    parser.add_argument(
        "--model",
        required=True,
        type=path_text,
        metavar="CONFIG",
        help="a training config (YAML): a timm image tower and a Hugging Face text tower, both with heads",
    )
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder of the features")
    parser.add_argument(
        "--views",
        type=natural_number,
        default=0,
        metavar="K",
        help="augmented crops of each image to encode besides the one of evaluation; training draws one of them",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the towers run")
    parser.add_argument(
        "--num-workers",
        aliases=("--workers",),
        type=natural_number,
        default=max((os.cpu_count() or 1) - 1, 0),
        metavar="N",
        help="processes that decode images; 0: this one does (default: one per core but one)",
    )
    parser.add_argument(
        "--batch-size", type=positive_integer, default=64, help="images decoded at once; no feature depends on it"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace features that were encoded otherwise")


def run(args: argparse.Namespace) -> int:
    """Encode the shards, print a line for each data set, and return the exit status."""
    from .encode import EncodeOptions, encode

    options = EncodeOptions(args.views, args.device, args.num_workers, args.batch_size, args.overwrite)
    for line in encode(args.data, args.model, args.to, options):
        print(line, flush=True)
    return 0
