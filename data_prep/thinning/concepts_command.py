"""Define the flags of ``bimodal-prep concepts``, and run it."""

from __future__ import annotations

import argparse
from pathlib import Path

from bimodal_cl.cli.parser import Parser
from bimodal_cl.errors import UserError

from ..arguments import build_storage
from .arguments import RULE, add_concept_arguments

_MOST_LINES = 20
DESCRIPTION = f"""Name a concept for each image of shards, and write the table image_id, key, concept, concept_count.
{RULE}"""


def add_arguments(parser: Parser) -> None:
    """Add the flags of ``bimodal-prep concepts``."""
    parser.description = DESCRIPTION
    add_concept_arguments(parser)
    parser.add_argument("--to", type=Path, required=True, metavar="FILE", help="CSV file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the file")


def run(args: argparse.Namespace) -> int:
    """Name the concepts, print the most frequent ones, and return the exit status."""
    from bimodal_cl.data.shards.manifest import Manifest
    from bimodal_cl.files.atomic import write_atomically

    from .naming import name_images
    from .table import as_csv, count_lines

    if args.to.exists() and (args.to.is_dir() or not args.overwrite):
        what = "is a folder, not a file" if args.to.is_dir() else "is there already; give --overwrite to replace it"
        raise UserError(f"--to: {args.to} {what}")
    if not args.to.parent.is_dir():
        raise UserError(f"--to: cannot write {args.to}: no folder '{args.to.parent}'")
    images = name_images(Manifest.load(args.shards), build_storage(args), args.field, args.concepts)
    concepts = images.concepts
    rows = (
        (image_id, key, concepts.names[number], concepts.counts[number]) if number >= 0 else (image_id, key, "", "")
        for image_id, (key, number) in enumerate(zip(images.keys, concepts.of_image.tolist(), strict=True))
    )
    write_atomically(args.to, as_csv(("image_id", "key", "concept", "concept_count"), rows))
    without = len(images.keys) - int(concepts.counts.sum())
    print(f"{args.to}: {len(images.keys):,} images, {len(concepts.names):,} concepts, {without:,} images without one")
    print("\n".join(count_lines(concepts.names, {"images": concepts.counts}, _MOST_LINES)))
    return 0
