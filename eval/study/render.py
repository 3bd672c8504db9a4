"""Write a study's tables, figures and page."""

from __future__ import annotations

from pathlib import Path

from ..report.export import write_texts
from .records import Records
from .tables import Findings, as_csv, as_markdown, differences_as_csv


def write_study(findings: Findings, records: Records) -> list[Path]:
    """Write the tables, and return the paths."""
    folder = findings.study.output
    texts = {
        "table.md": as_markdown(findings),
        "table.csv": as_csv(findings),
        "differences.csv": differences_as_csv(findings),
    }
    return write_texts(folder, texts)
