"""Define the flags of ``bimodal-prep index``, and run it."""

from __future__ import annotations

import argparse
from pathlib import Path

from bimodal_cl.cli.arguments import path_text
from bimodal_cl.cli.parser import Parser
from bimodal_cl.data.storage.locations import is_remote

from ..arguments import add_num_workers, add_storage_arguments, build_storage

DESCRIPTION = """Write manifest.json for existing shards, and tables of where their rows are, from the tar headers. No
shard is rewritten. Shards may be a folder, tars, patterns such as 'cc3m-train-{0000..0575}.tar' or '*.tar', or any of
these as a URL (https://, s3://, gs://, hf://); remote shards are downloaded into the cache."""


def add_arguments(parser: Parser) -> None:
    """Add the flags of ``bimodal-prep index``."""
    parser.description = DESCRIPTION
    parser.add_argument(
        "shards",
        nargs="+",
        type=path_text,
        metavar="SHARDS",
        help="folder, tar, pattern or URL; several form one data set",
    )
    parser.add_argument(
        "--to",
        type=Path,
        default=None,
        metavar="DIR",
        help="folder of the manifest (default: the folder of the shards)",
    )
    parser.add_argument(
        "--captions",
        choices=("lines", "whole"),
        default=None,
        help="lines: each line of a .txt is a caption; whole: the whole text is one caption (default: as an existing "
        "manifest or the layout says, else whole)",
    )
    add_num_workers(parser, "processes that read shards")
    parser.add_argument("--overwrite", action="store_true", help="replace a manifest that differs")
    parser.add_argument(
        "--damaged",
        choices=("refuse", "keep"),
        default="refuse",
        help="refuse: stop at a shard that is truncated or holds garbage; keep: use its intact samples before that",
    )
    add_storage_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Index the shards, print a summary, and return the exit status."""
    from .index import index_shards

    storage = build_storage(args) if any(is_remote(pattern) for pattern in args.shards) else None
    report = index_shards(
        args.shards, args.to, args.captions, args.num_workers, args.overwrite, args.damaged, storage=storage
    )
    print("\n".join(report.lines()))
    return 0
