"""The table of sources. To add one: a file with ``SUMMARY``, ``add_arguments`` and ``read``, and a line here."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from bimodal_cl.cli.parser import Parser

from ..items import SourcePlan
from ..synthetic import source as synthetic
from . import coco, csv_file, folder, hf, img2dataset, karpathy


@dataclass(frozen=True)
class Source:
    """A place that items come from.

    Args:
        summary: one line for ``--help``.
        add_arguments: adds the source's own flags.
        read: turns parsed flags into a plan; raises ``UserError`` for what cannot be read at all.
    """

    summary: str
    add_arguments: Callable[[Parser], None]
    read: Callable[[argparse.Namespace], SourcePlan]


SOURCES: dict[str, Source] = {
    "synthetic": Source(synthetic.SUMMARY, synthetic.add_arguments, synthetic.read),
    "karpathy": Source(karpathy.SUMMARY, karpathy.add_arguments, karpathy.read),
    "coco": Source(coco.SUMMARY, coco.add_arguments, coco.read),
    "csv": Source(csv_file.SUMMARY, csv_file.add_arguments, csv_file.read),
    "folder": Source(folder.SUMMARY, folder.add_arguments, folder.read),
    "hf": Source(hf.SUMMARY, hf.add_arguments, hf.read),
    "img2dataset": Source(img2dataset.SUMMARY, img2dataset.add_arguments, img2dataset.read),
}
