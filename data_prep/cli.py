"""The program ``bimodal-prep``: write shards from a source; index, thin, verify and encode shards."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from functools import partial

from bimodal_cl.cli.exit_status import with_exit_status
from bimodal_cl.cli.sub_commands import Command, CommandGroup

from .write_command import WRITE

DESCRIPTION = """Turn images with captions into shards that bimodal-train streams.

A folder of shards holds WebDataset tars and manifest.json. Exit status: 0 success, 1 verify found faults (or the disk
is full), 2 the command or its input is wrong."""
COMMANDS = CommandGroup(
    "Turn images with captions into shards.",
    {
        "write": WRITE,
        "index": Command(
            "write a manifest for existing tars",
            partial(importlib.import_module, ".indexing.command", __package__),
        ),
        "concepts": Command(
            "name a concept for each image of shards",
            partial(importlib.import_module, ".thinning.concepts_command", __package__),
        ),
        "thin": Command(
            "write a long-tailed subset of shards, by concept",
            partial(importlib.import_module, ".thinning.thin_command", __package__),
        ),
        "verify": Command(
            "read every byte, and report what is broken",
            partial(importlib.import_module, ".verification.command", __package__),
        ),
        "encode": Command(
            "encode shards by locked towers, to train heads on their features",
            partial(importlib.import_module, ".encoding.command", __package__),
        ),
    },
    description=DESCRIPTION,
)


@with_exit_status
def main(argv: Sequence[str]) -> int:
    """Run ``bimodal-prep`` and return its exit status: 0, 1 or 2, see ``bimodal-prep --help``."""
    return COMMANDS.run("bimodal-prep", argv)


if __name__ == "__main__":
    sys.exit(main())
