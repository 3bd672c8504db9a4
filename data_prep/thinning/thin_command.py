"""Define the flags of ``bimodal-prep thin``, and run it."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from bimodal_cl.cli.arguments import natural_number, positive_integer
from bimodal_cl.cli.parser import Parser
from bimodal_cl.cli.yaml_arguments import without_config_flags

from ..arguments import build_storage
from .arguments import RULE, add_concept_arguments

_NOT_PART_OF_JOB = ("to", "overwrite", "allow_pipe", "cache_dir", "cache_gb")
DESCRIPTION = f"""Write a long-tailed subset of shards, by Zipf's law: HEAD images of the most frequent concept, and
HEAD times r^-EXPONENT of the concept of rank r, or as many as there are. Samples are copied whole and unchanged;
concepts.csv beside the manifest names the concept of each.
{RULE}"""


def _exponent(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, got '{text}'")
    return value


def add_arguments(parser: Parser) -> None:
    """Add the flags of ``bimodal-prep thin``."""
    parser.description = DESCRIPTION
    add_concept_arguments(parser)
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--exponent",
        type=_exponent,
        default=1.0,
        metavar="S",
        help="of Zipf's law; larger: fewer images of all concepts but the first",
    )
    parser.add_argument(
        "--head",
        type=positive_integer,
        metavar="N",
        help="images of the most frequent concept (default: all; then --exponent 0 keeps every image with a concept)",
    )
    parser.add_argument(
        "--min-images",
        type=natural_number,
        default=1,
        metavar="N",
        help="keep at least this many images of a concept, where there are as many",
    )
    parser.add_argument("--seed", type=natural_number, default=0, metavar="N", help="chooses which images stay")
    parser.add_argument("--shard-size", type=positive_integer, default=1000, metavar="N", help="samples per shard")
    parser.add_argument("--overwrite", action="store_true", help="replace a finished folder")


def run(args: argparse.Namespace) -> int:
    """Thin the shards, print what was kept, and return the exit status."""
    from bimodal_cl.data.shards.manifest import Manifest

    from .thin import ThinOptions, thin_shards

    options = ThinOptions(
        args.field, args.concepts, args.exponent, args.min_images, args.head, args.seed, args.shard_size
    )
    job = {key: value for key, value in without_config_flags(args).items() if key not in _NOT_PART_OF_JOB}
    job = json.loads(json.dumps({"thin": job}, default=str))
    manifest = Manifest.load(args.shards)
    print("\n".join(thin_shards(manifest, build_storage(args), args.to, options, job, args.overwrite).lines()))
    return 0
