"""Read JSON files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bimodal_cl.errors import UserError, one_line
from bimodal_cl.files.text_files import read_text


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file cannot be read, or is not JSON.
    """
    try:
        return json.loads(read_text(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({one_line(error)})") from error


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds a mapping.

    Raises:
        UserError: the file cannot be read, or is not a JSON mapping.
    """
    values = read_json(path)
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a mapping, got {type(values).__name__}")
    return values
