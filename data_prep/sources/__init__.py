"""List the sources of ``bimodal-prep write``. A new source is a module with the names of ``Source``."""

from __future__ import annotations

import argparse
from typing import Protocol

from bimodal_cl.cli.parser import Parser

from ..items import SourcePlan
from ..synthetic import source as synthetic
from . import coco, csv_file, folder, hf, img2dataset, karpathy


class Source(Protocol):
    """What a source module defines.

    Attributes:
        SUMMARY: one line for ``--help``.
    """

    SUMMARY: str

    def add_arguments(self, parser: Parser) -> None:
        """Add the source's own flags."""

    def read(self, args: argparse.Namespace) -> SourcePlan:
        """Plan the splits to write from the parsed flags; raise ``UserError`` if the input cannot be read at all."""


SOURCES: dict[str, Source] = {
    "synthetic": synthetic,
    "karpathy": karpathy,
    "coco": coco,
    "csv": csv_file,
    "folder": folder,
    "hf": hf,
    "img2dataset": img2dataset,
}
