"""Read SugarCrepe's format: a JSON file of captions and negative captions for each subset, and a folder of images."""

from __future__ import annotations

from pathlib import Path

from bimodal_cl.errors import UserError
from bimodal_cl.files.json_files import read_json

from .examples import Example, find_image, image_folder, require_texts

KEYS = ("filename", "caption", "negative_caption")


def list_subsets(folder: Path) -> list[Path]:
    """Return the JSON files of a folder, whose names are the subsets: ``add_att.json``, ``swap_obj.json``, ..."""
    return sorted(folder.glob("*.json"))


def read_sugar_crepe(folder: Path, images: Path | None) -> list[Example]:
    """Read all subsets of a folder.

    Args:
        folder: of the JSON files.
        images: the folder of the images; None: ``images/`` or, for COCO, ``val2017/`` below ``folder``, else itself.

    Raises:
        UserError: a file is not in the format, a caption is empty, or an image is missing; the message names the entry.
    """
    pictures = image_folder(images, folder / "images", folder / "val2017", folder)
    examples = []
    for path in list_subsets(folder):
        entries = read_json(path)
        if not isinstance(entries, dict) or not entries:
            wanted = ", ".join(f'"{key}": ...' for key in KEYS)
            raise UserError(f'{path}: not in SugarCrepe\'s format {{"0": {{{wanted}}}, ...}}')
        for key, entry in entries.items():
            where = f"{path}, entry '{key}'"
            filename, caption, negative = require_texts(entry, KEYS, where)
            image = find_image(pictures, filename, where)
            examples.append(Example(where, key, path.stem, (image,), (caption, negative)))
    return examples
