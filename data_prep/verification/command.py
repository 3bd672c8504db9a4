"""Define the flags of ``bimodal-prep verify``, and run it."""

from __future__ import annotations

import argparse
from pathlib import Path

from bimodal_cl.cli.exit_status import EXIT_FAILURE
from bimodal_cl.cli.parser import Parser
from bimodal_cl.errors import UserError

from ..arguments import add_num_workers, add_storage_arguments, build_storage


def add_arguments(parser: Parser) -> None:
    """Add the flags of ``bimodal-prep verify``."""
    parser.description = (
        "Check manifest, hashes, tars, images (decoded) and captions. Prints a line for each fault, and a note for "
        "each oddity that training accepts. Exit status: 0 no fault, or a clean copy was written; 1 faults "
        "were found; 2 there is nothing to verify."
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of shards, with or without a manifest")
    parser.add_argument(
        "--captions",
        choices=("lines", "whole"),
        default="whole",
        help="lines: each line of a .txt is a caption; whole: the whole text is one caption; a manifest overrides this",
    )
    add_num_workers(parser, "processes that read shards")
    parser.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help="images with more pixels are faults (default: 89,478,485, as in training)",
    )
    parser.add_argument(
        "--repair",
        action="store_true",
        help="write clean copies to --to: broken samples are dropped; names, invalid UTF-8, and texts that are not "
        "adjacent to their images are repaired",
    )
    parser.add_argument(
        "--to", type=Path, default=None, metavar="DIR", help="folder of the clean copy (default: DIR-repaired)"
    )
    add_storage_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Verify the shards, print findings and a summary, and return the exit status."""
    from .verify import verify_folder

    to = args.to
    if args.repair:
        to = to or args.folder.resolve().with_name(f"{args.folder.resolve().name}-repaired")
    elif to is not None:
        raise UserError("--to requires --repair")
    storage = build_storage(args)
    report = verify_folder(args.folder, print, args.num_workers, args.captions, to, storage, args.max_pixels)
    print(f"{args.folder}: {report.num_images:,} images, {report.num_faults:,} faults, {report.num_notes:,} notes")
    print("".join(f"{line}\n" for line in report.lines()), end="")
    if to:
        left = "; samples with only notes are in it" if report.num_notes else ""
        if report.num_left_out:
            left += f"; {report.num_left_out:,} members with long names are not in it"
        print(f"clean copy: {to}: {report.num_copied:,} images, no fault{left}")
    return EXIT_FAILURE if report.num_faults and not to else 0
