"""``bimodal-prep``: write shards from a source, index the shards of others, verify shards."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bimodal_cl.cli.command_line import Parser, run_command

from .indexing import command as index_command
from .sources import SOURCES
from .verification import command as verify_command

DESCRIPTION = """Turn images with captions into shards that bimodal-train streams.

A folder of shards holds WebDataset tars and manifest.json. Exit status: 0 success, 1 verify found faults (or the disk
is full), 2 the command or its input is wrong."""

NOT_PART_OF_JOB = ("command", "source", "to", "overwrite", "strict", "num_proc")


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``bimodal-prep`` and return its exit status."""
    statuses: list[int] = []

    def command(arguments: Sequence[str]) -> None:
        args = build_parser().parse_args(arguments)
        statuses.append({"write": _write, "index": index_command.run, "verify": verify_command.run}[args.command](args))

    return run_command(command, argv) or max(statuses, default=0)


def build_parser() -> Parser:
    """Return the parser with all sub-commands."""
    parser = Parser(prog="bimodal-prep", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_version()
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    write = commands.add_parser("write", help="a source -> shards and manifest", description="Write shards.")
    sources = write.add_subparsers(dest="source", metavar="SOURCE", required=True)
    for name, source in SOURCES.items():
        sub = sources.add_parser(name, help=source.SUMMARY, description=f"Write shards from: {source.SUMMARY}.")
        source.add_arguments(sub)
        _add_write_arguments(sub)
    index_command.add_arguments(commands.add_parser("index", help="manifest for tars that somebody else wrote"))
    verify_command.add_arguments(commands.add_parser("verify", help="read every byte, report what is broken"))
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


def _write(args: argparse.Namespace) -> int:
    from .writing.writer import WriteOptions, write

    options = WriteOptions(args.max_side, args.quality, args.shard_size, args.strict, args.num_proc)
    job = {key: value for key, value in vars(args).items() if key not in NOT_PART_OF_JOB}
    job = json.loads(json.dumps({"source": args.source, **job}, default=str))
    plan = SOURCES[args.source].read(args)
    for report in write(plan, args.to, options, job, args.overwrite):
        print("\n".join(report.lines()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
