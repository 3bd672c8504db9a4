"""Read the files beside labelled images that name the classes and hold prompts, and warn of files left out."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

from bimodal_cl.data.labelled.class_names import NameList, read_lines, read_name_list
from bimodal_cl.errors import UserError
from bimodal_cl.files.image_files import HIDDEN, describe_endings

logger = logging.getLogger(__name__)

CLASSNAMES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"


def find_beside(folders: list[Path], name: str) -> Path | None:
    """Return the first file of a name in some folders, or None."""
    return next((folder / name for folder in folders if (folder / name).exists()), None)


def read_names_beside(folders: list[Path]) -> NameList | None:
    """Read the class names of the first folder that has any; None if none has.

    Raises:
        UserError: the file cannot be read, or a line of it is no name.
    """
    file = find_beside(folders, CLASSNAMES)
    return None if file is None else read_name_list(file)


def read_templates(folders: list[Path]) -> list[str] | None:
    """Read the prompts of the first folder that has any; None if none has.

    Raises:
        UserError: a prompt has no ``{c}``, or the file cannot be read.
    """
    file = find_beside(folders, TEMPLATES)
    if file is None:
        return None
    templates = [line for line in read_lines(file) if line]
    for template in templates:
        if "{c}" not in template:
            raise UserError(f"{TEMPLATES}: template {template!r} has no {{c}} for the class name")
    return templates


def warn_of_left_out(folder: Path, left_out: Counter[str]) -> None:
    """Warn about files that are not images, by extension, unless all of them are hidden."""
    if set(left_out) - {HIDDEN}:
        logger.warning("%s: left out, since they are not images: %s", folder, describe_endings(left_out))
