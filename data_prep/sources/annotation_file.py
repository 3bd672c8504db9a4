"""Load COCO's and Karpathy's JSON, tell the two formats apart, and locate the images that they name."""

from __future__ import annotations

import json
from pathlib import Path, PureWindowsPath
from typing import Any

from bimodal_cl.errors import UserError
from bimodal_cl.files.image_formats import name_other_content
from bimodal_cl.files.text_files import decode_text

from ..file_names import FileFinder
from ..input_paths import require_file

CAPTIONS, KARPATHY = "coco", "karpathy"  # names of the sources


def load_annotations(path: Path, source: str) -> dict[str, Any]:
    """Load a JSON file for the source ``source``.

    Args:
        path: the file.
        source: ``CAPTIONS`` (COCO's ``captions_*.json``) or ``KARPATHY`` (``dataset_*.json``).

    Raises:
        UserError: the file is missing, is not JSON, has no list ``images``, or belongs to another source, which the
            message names.
    """
    require_file(path, "--json")
    content = load_json(path)
    wanted = "COCO's captions" if source == CAPTIONS else "Karpathy's"
    if isinstance(content, list) and content and isinstance(content[0], dict) and "images" not in content[0]:
        keys = ", ".join(map(repr, list(content[0])[:8]))
        raise UserError(
            f"{path} is a list of rows ({keys}), not {wanted} JSON; 'bimodal-prep write hf --dataset {path}' reads rows"
        )
    if not isinstance(content, dict) or "images" not in content:
        raise UserError(f"{path} has no list 'images', so it is not in {wanted} format")
    images = content["images"]
    if not isinstance(images, list) or not images:
        raise UserError(f"{path}: 'images' must be a list that is not empty")
    first = images[0] if isinstance(images[0], dict) else {}
    is_karpathy = "sentences" in first
    if source == CAPTIONS:
        if is_karpathy:
            raise UserError(f"{path} is Karpathy's JSON; use 'bimodal-prep write karpathy'")
        _require_captions(path, content)
    elif not is_karpathy and ("annotations" in content or "file_name" in first):
        _require_captions(path, content)
        raise UserError(f"{path} is COCO's own JSON of captions, not Karpathy's; use 'bimodal-prep write coco'")
    return content


def locate_image(files: FileFinder, name: str) -> Path:
    """Return the file of an image, also where the first folders of its name do not exist.

    Karpathy's JSON puts ``val2014/`` before COCO's file names; some users keep that folder, others put all images
    in one.
    """
    parts = PureWindowsPath(name).parts
    shorter = ("/".join(parts[dropped:]) for dropped in range(1, len(parts)))
    found = next((path for path in map(files.find, (name, *shorter)) if path is not None), None)
    return found or files.root / parts[-1]


def load_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        UserError: it cannot be read, is compressed, or is not JSON, as a file of JSON lines is not.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    packed = name_other_content(data)
    if packed in ("gzip", "zip"):
        raise UserError(f"{path} is compressed by {packed}: unpack it first")
    try:
        return json.loads(decode_text(data))
    except (ValueError, RecursionError) as error:
        rows = str(error).startswith("Extra data: line 2 column 1 ")
        hint = "; if each line is a row, rename it to .jsonl and give it to 'bimodal-prep write hf'" if rows else ""
        raise UserError(f"{path} is not JSON: {error}{hint}") from None


def _require_captions(path: Path, content: dict[str, Any]) -> None:
    """Raise ``UserError`` unless COCO's file holds captions."""
    hint = "captions are in captions_train2017.json and the like, which 'bimodal-prep write coco' reads"
    annotations = content.get("annotations")
    if annotations is None:
        raise UserError(f"{path} lists images without annotations, as COCO's image_info_*.json does; {hint}")
    if not isinstance(annotations, list) or not annotations:
        raise UserError(f"{path}: 'annotations' must be a list that is not empty")
    if not any(isinstance(each, dict) and "caption" in each for each in annotations):
        first = annotations[0]
        keys = ", ".join(map(repr, list(first)[:8])) if isinstance(first, dict) else type(first).__name__
        what = "instances_*.json or person_keypoints_*.json" if "'bbox'" in keys else "a file without captions"
        raise UserError(f"{path} has annotations of {keys}, no 'caption', like {what}; {hint}")
