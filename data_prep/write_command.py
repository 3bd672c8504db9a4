"""Define the flags that all sources of ``bimodal-prep write SOURCE`` share, and run it."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bimodal_cl.cli.parser import Parser
from bimodal_cl.cli.sub_commands import Command, CommandGroup
from bimodal_cl.cli.yaml_arguments import without_config_flags

from .arguments import add_num_workers
from .sources import SOURCES

# Flags that change neither the shards' bytes nor their place within the folder: a repeated run may change them.
_NOT_PART_OF_JOB = ("to", "overwrite", "strict", "num_workers")


@dataclass(frozen=True)
class WriteCommand:
    """Write the shards of one source.

    Args:
        source: its name in ``SOURCES``.
    """

    source: str

    def add_arguments(self, parser: Parser) -> None:
        """Add the source's own flags, then those of every source."""
        parser.description = f"Write shards from: {SOURCES[self.source].SUMMARY}."
        SOURCES[self.source].add_arguments(parser)
        parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder to write to")
        parser.add_argument(
            "--max-side",
            type=int,
            metavar="N",
            help="scale larger images down to N pixels on their longer side; all others stay byte for byte",
        )
        parser.add_argument(
            "--quality",
            type=int,
            default=90,
            metavar="Q",
            help="JPEG quality (1-100) of images that are scaled or of a format that shards do not hold",
        )
        parser.add_argument("--shard-size", type=int, default=1000, metavar="N", help="samples per shard")
        add_num_workers(parser, "processes that read and encode images; the bytes written are the same for any number")
        parser.add_argument(
            "--strict", action="store_true", help="stop at the first item that cannot be used, so that no item is lost"
        )
        parser.add_argument("--overwrite", action="store_true", help="replace a finished folder")

    def run(self, args: argparse.Namespace) -> int:
        """Write the shards, print a report on every split, and return the exit status."""
        from .writing.writer import WriteOptions, write

        options = WriteOptions(args.max_side, args.quality, args.shard_size, args.strict, args.num_workers)
        job = {key: value for key, value in without_config_flags(args).items() if key not in _NOT_PART_OF_JOB}
        job = json.loads(json.dumps({"source": self.source, **job}, default=str))
        plan = SOURCES[self.source].read(args)
        for report in write(plan, args.to, options, job, args.overwrite):
            print("\n".join(report.lines()))
        return 0


WRITE = CommandGroup(
    "write shards and a manifest from a source",
    {name: Command(source.SUMMARY, partial(WriteCommand, name)) for name, source in SOURCES.items()},
    metavar="SOURCE",
    description="Write shards and a manifest from a source.",
)
