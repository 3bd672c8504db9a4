"""Write a report's tables and figures as files for papers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from bimodal_cl.errors import UserError
from bimodal_cl.files.atomic import write_atomically

from ..results import make_folder
from .sources import Sources


def write_texts(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    """Write texts by their file names, each whole or not at all, and return the paths.

    Raises:
        UserError: the folder cannot be made, or a file in it cannot be written.
    """
    make_folder(folder)
    for name, text in texts.items():
        write_atomically(folder / name, text)
    return [folder / name for name in texts]


def write_figures(folder: str | None, sources: Sources) -> list[Path]:
    """Write the figures of a page as PNG and SVG, and ``figures.json``: their titles and the files they are from.

    Args:
        folder: None: write nothing.
        sources: the page's figures.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    if folder is None:
        return []
    target = Path(folder)
    make_folder(target)
    try:
        written = [path for each in sources.figures for path in each.drawing.save(target)]
    except PermissionError as error:
        raise UserError(f"cannot write {error.filename}: {error.strerror}") from None
    files = {each.number: {"path": each.path, "sha256": each.sha256, **dict(each.facts)} for each in sources.files}
    listed = [
        {"name": each.drawing.name, "title": each.title, "reads": each.read, "files": [files[n] for n in each.files]}
        for each in sources.figures
    ]
    write_atomically(target / "figures.json", json.dumps(listed, ensure_ascii=False, indent=1) + "\n")
    return [*written, target / "figures.json"]
