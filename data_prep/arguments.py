"""Flags that several commands of ``bimodal-prep`` share: worker processes, and access to remote shards."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bimodal_cl.cli.arguments import positive_integer
from bimodal_cl.cli.parser import Parser
from bimodal_cl.errors import UserError

if TYPE_CHECKING:
    from bimodal_cl.data.storage.storage import Storage


def add_num_workers(parser: Parser, purpose: str) -> None:
    """Add ``--num-workers``.

    Args:
        parser: the command's parser.
        purpose: what the processes do.
    """
    parser.add_argument(
        "--num-workers",
        aliases=("--num-proc", "--workers"),
        type=positive_integer,
        metavar="N",
        help=f"{purpose} (default: one per core)",
    )


def add_storage_arguments(parser: Parser) -> None:
    """Add ``--allow-pipe``, ``--cache-dir`` and ``--cache-gb``."""
    parser.add_argument(
        "--allow-pipe", action="store_true", help="run the commands of pipe:COMMAND locations, whose output is a shard"
    )
    parser.add_argument(
        "--cache-dir", type=Path, metavar="DIR", help="cache of remote shards (default: below ~/.cache)"
    )
    parser.add_argument("--cache-gb", type=float, default=16.0, metavar="GB", help="size limit of the cache, in GiB")


def build_storage(args: argparse.Namespace) -> Storage:
    """Build the storage that these flags describe.

    Raises:
        UserError: the size limit is negative or not a number.
    """
    from bimodal_cl.data.storage.storage import Storage

    if not 0 <= args.cache_gb < float("inf"):
        raise UserError(f"--cache-gb must be at least 0, got {args.cache_gb}")
    return Storage(args.cache_dir, int(args.cache_gb * 2**30), args.allow_pipe)
