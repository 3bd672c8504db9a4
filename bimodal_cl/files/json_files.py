"""Read JSON files that hold a mapping."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bimodal_cl.errors import UserError, one_line
from bimodal_cl.files.text_files import read_text


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON mapping.

    Raises:
        UserError: the file cannot be read, or is not a JSON mapping.
    """
    try:
        values = json.loads(read_text(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({one_line(error)})") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a mapping, got {type(values).__name__}")
    return values
