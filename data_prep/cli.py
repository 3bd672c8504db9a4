"""``bimodal-prep``: write shards from a source, index the shards of others, verify shards."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bimodal_cl.command_line import EXIT_FAILURE, Parser, run_command
from bimodal_cl.errors import UserError

from . import index_command
from .sources import SOURCES

if TYPE_CHECKING:
    from bimodal_cl.data.storage import Storage

DESCRIPTION = """Turn images with captions into shards that bimodal-train streams.

A folder of shards holds WebDataset tars and manifest.json. Exit status: 0 success, 1 verify found faults (or the disk
is full), 2 the command or its input is wrong."""

NOT_PART_OF_JOB = ("command", "source", "to", "overwrite", "strict", "num_proc")


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``bimodal-prep`` and return its exit status."""
    statuses: list[int] = []

    def command(arguments: Sequence[str]) -> None:
        args = build_parser().parse_args(arguments)
        statuses.append({"write": _write, "index": index_command.run, "verify": _verify}[args.command](args))

    return run_command(command, argv) or max(statuses, default=0)


def build_parser() -> Parser:
    """Return the parser with all sub-commands."""
    parser = Parser(prog="bimodal-prep", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_version()
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    write = commands.add_parser("write", help="a source -> shards and manifest", description="Write shards.")
    sources = write.add_subparsers(dest="source", metavar="SOURCE", required=True)
    for name, source in SOURCES.items():
        sub = sources.add_parser(name, help=source.summary, description=f"Write shards from: {source.summary}.")
        source.add_arguments(sub)
        _add_write_arguments(sub)
    index_command.add_arguments(commands.add_parser("index", help="manifest for tars that somebody else wrote"))
    _add_verify_arguments(commands.add_parser("verify", help="read every byte, report what is broken"))
    return parser


def _add_write_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--max-side",
        type=int,
        default=None,
        metavar="N",
        help="scale larger images down to N pixels on their longer side; others stay byte for byte",
    )
    parser.add_argument(
        "--quality",
        type=int,
        default=90,
        metavar="Q",
        help="JPEG quality (1-100) of images that are scaled or of a format that shards do not hold",
    )
    parser.add_argument("--shard-size", type=int, default=1000, metavar="N", help="samples a shard")
    parser.add_argument(
        "--num-proc",
        type=int,
        default=None,
        metavar="N",
        help="processes that read and encode images; None: one a core; the bytes written are the same for any number",
    )
    parser.add_argument("--strict", action="store_true", help="an item that cannot be used ends the run; no item lost")
    parser.add_argument("--overwrite", action="store_true", help="replace a finished folder")


def _add_verify_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Check manifest, hashes, tars, images (decoded) and captions. Prints a line for each fault, and for each "
        "oddity that training uses as it is (a note). Exit status: 0 no fault, or a clean copy was written; 1 faults "
        "were found; 2 there is nothing to verify."
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of shards, with or without a manifest")
    parser.add_argument(
        "--captions",
        choices=("lines", "whole"),
        default="whole",
        help="how a .txt is split where no manifest says it",
    )
    parser.add_argument("--workers", type=int, default=None, metavar="N", help="processes; None: one a core")
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=None,
        metavar="N",
        help="images of more pixels are faults; None: more than 89,478,485, as in training",
    )
    parser.add_argument(
        "--repair",
        action="store_true",
        help="write clean copies to --to: without what is broken, with names, UTF-8 and texts that stand apart from "
        "their images mended",
    )
    parser.add_argument("--to", type=Path, default=None, metavar="DIR", help="for --repair; None: DIR-repaired")
    _add_storage_arguments(parser)


def _add_storage_arguments(parser: argparse.ArgumentParser) -> None:
    """How shards that are not files here are reached."""
    parser.add_argument(
        "--allow-pipe", action="store_true", help="run the commands of shards called pipe:COMMAND; they can do anything"
    )
    parser.add_argument(
        "--cache-dir", type=Path, default=None, metavar="DIR", help="copies of remote shards; None: below ~/.cache"
    )
    parser.add_argument("--cache-gb", type=float, default=16.0, metavar="GB", help="limit of all copies together, GiB")


def _build_storage(args: argparse.Namespace) -> Storage:
    from bimodal_cl.data.storage import Storage

    return Storage(cache_dir=args.cache_dir, cache_bytes=int(args.cache_gb * 2**30), allow_pipe=args.allow_pipe)


def _write(args: argparse.Namespace) -> int:
    from .writer import WriteOptions, write

    options = WriteOptions(args.max_side, args.quality, args.shard_size, args.strict, args.num_proc)
    job = {key: value for key, value in vars(args).items() if key not in NOT_PART_OF_JOB}
    job = json.loads(json.dumps({"source": args.source, **job}, default=str))
    plan = SOURCES[args.source].read(args)
    for report in write(plan, args.to, options, job, args.overwrite):
        print("\n".join(report.lines()))
    return 0


def _verify(args: argparse.Namespace) -> int:
    from .verify import verify_folder

    to = args.to
    if args.repair:
        to = to or args.folder.resolve().with_name(f"{args.folder.resolve().name}-repaired")
    elif to is not None:
        raise UserError("--to goes with --repair")
    storage = _build_storage(args)
    report = verify_folder(args.folder, print, args.workers, args.captions, to, storage, args.max_pixels)
    print(f"{args.folder}: {report.num_images:,} images, {report.num_faults:,} faults, {report.num_notes:,} notes")
    print("".join(f"{line}\n" for line in report.lines()), end="")
    if to:
        left = "; what only has notes is in it" if report.num_notes else ""
        print(f"clean copy: {to}: {report.num_copied:,} images, no fault{left}")
    return EXIT_FAILURE if report.num_faults and not to else 0


if __name__ == "__main__":
    sys.exit(main())
