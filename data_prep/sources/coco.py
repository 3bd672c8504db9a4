"""Read COCO's own ``captions_*.json`` and its image folder, in the order of ``images`` and ``annotations``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from ..file_names import FileFinder, name_without_ending
from ..input_paths import require_folder
from ..items import BadItem, Item, SourcePlan
from .annotation_file import CAPTIONS, load_annotations, locate_image
from .repeated_images import make_split

SUMMARY = "COCO's own captions_*.json and the folder of its images: shards in TO itself"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the source's own flags."""
    parser.add_argument("--json", type=Path, required=True, help="captions_train2017.json, captions_val2014.json, ...")
    parser.add_argument("--images", type=Path, required=True, help="folder of its images, such as train2017")


def read(args: argparse.Namespace) -> SourcePlan:
    """Plan the one split: the images of the list ``images``, each with the captions of its annotations.

    Raises:
        UserError: the file is not COCO's JSON of captions, or the image folder is missing.
    """
    content = load_annotations(args.json, CAPTIONS)
    files = FileFinder(require_folder(args.images, "--images"))
    images, bad = _list_images(content["images"], args.json.name)
    captions: dict[str, list[str]] = {image_id: [] for image_id in images}
    bad += _collect_captions(content["annotations"], captions, args.json.name)
    items: Iterator[Item | BadItem] = chain(bad, _items(args.json.name, files, images, captions))
    return SourcePlan([make_split("", items, len(bad) + len(images))])


def _items(file: str, files: FileFinder, images: dict[str, str], captions: dict[str, list[str]]) -> Iterator[Item]:
    for image_id, file_name in images.items():
        path = locate_image(files, file_name)
        where = f"{file}: image {image_id}: {path}"
        yield Item(name_without_ending(files.root, path), path, tuple(captions[image_id]), where=where)


def _list_images(records: list[Any], file: str) -> tuple[dict[str, str], list[BadItem]]:
    """Return file names by image id, and the records without a usable one."""
    images: dict[str, str] = {}
    bad = []
    for position, record in enumerate(records):
        if not isinstance(record, dict) or not isinstance(record.get("file_name"), str) or not record["file_name"]:
            bad.append(BadItem(f"{file}: images[{position}]", "no 'file_name'"))
        elif record.get("id") is None:
            bad.append(BadItem(f"{file}: images[{position}] ({record['file_name']})", "no 'id'"))
        elif str(record["id"]) in images:
            bad.append(BadItem(f"{file}: images[{position}]", f"id {record['id']} is already used by an earlier image"))
        else:
            images[str(record["id"])] = record["file_name"]
    return images, bad


def _collect_captions(annotations: list[Any], captions: dict[str, list[str]], file: str) -> list[BadItem]:
    """Add each annotation's caption to its image; return the unusable and repeated annotations."""
    bad = []
    seen: set[tuple[str, str, str]] = set()
    for position, record in enumerate(annotations):
        where = f"{file}: annotations[{position}]"
        caption = record.get("caption") if isinstance(record, dict) else None
        if not isinstance(caption, str):
            bad.append(BadItem(where, "'caption' is not text" if isinstance(record, dict) else "not an object"))
            continue
        image_id = str(record.get("image_id"))
        if image_id not in captions:
            bad.append(BadItem(where, f"'images' has no image of id {image_id}"))
            continue
        if record.get("id") is not None:
            once = (str(record["id"]), image_id, caption)
            if once in seen:
                bad.append(BadItem(where, f"annotation {record['id']} occurs a second time"))
                continue
            seen.add(once)
        captions[image_id].append(caption)
    return bad
