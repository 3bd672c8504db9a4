"""Karpathy's JSON with an image folder: COCO, Flickr8k, Flickr30k. ``restval`` belongs to ``train``, as usual."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.text_files import read_text

from ..input_paths import require_file, require_folder
from ..items import BadItem, Item, SourcePlan, Split

SUMMARY = "Karpathy's JSON and an image folder (COCO, Flickr8k, Flickr30k): TO/train, TO/val, TO/test"
SPLIT_OF = {"train": "train", "restval": "train", "val": "val", "test": "test"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the source's own flags."""
    parser.add_argument("--json", type=Path, required=True, help="dataset_flickr8k.json, dataset_coco.json, ...")
    parser.add_argument("--images", type=Path, required=True, help="folder of the images")
    parser.add_argument("--split", choices=("train", "val", "test", "all"), default="all", help="write only this one")


def read(args: argparse.Namespace) -> SourcePlan:
    """Plan the splits that the file has, or the one asked for.

    Raises:
        UserError: the file is not Karpathy's JSON, the image folder is missing, or the split is not in the file.
    """
    records = load_records(args.json)
    require_folder(args.images, "--images")
    by_split: dict[str, list[dict[str, Any]]] = {}
    for position, record in enumerate(records):
        split = record.get("split") if isinstance(record, dict) else None
        if not isinstance(split, str) or split not in SPLIT_OF:
            raise UserError(f"{args.json}: images[{position}] has split {split!r}{did_you_mean(str(split), SPLIT_OF)}")
        by_split.setdefault(SPLIT_OF[split], []).append(record)
    wanted = [name for name in ("train", "val", "test") if name in by_split]
    if args.split != "all":
        if args.split not in by_split:
            raise UserError(f"{args.json} has no image of split '{args.split}'{did_you_mean(args.split, wanted)}")
        wanted = [args.split]
    return SourcePlan([Split(name, _items(by_split[name], args), len(by_split[name])) for name in wanted])


def load_records(path: Path) -> list[Any]:
    """Return the list under ``images``.

    Raises:
        UserError: missing, not JSON, or of another shape.
    """
    require_file(path, "--json")
    try:
        content = json.loads(read_text(path))
        records = content["images"]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    except (KeyError, TypeError):
        raise UserError(f"{path} has no list 'images', so it is not in Karpathy's format") from None
    if not isinstance(records, list) or not records:
        raise UserError(f"{path}: 'images' must be a list that is not empty")
    return records


def _items(records: list[dict[str, Any]], args: argparse.Namespace) -> Iterator[Item | BadItem]:
    for record in records:
        filename = record.get("filename")
        sentences = record.get("sentences")
        if not isinstance(filename, str):
            yield BadItem(f"{args.json.name}: image {record.get('imgid', '?')}", "no 'filename'")
            continue
        try:
            captions = tuple(str(sentence["raw"]) for sentence in sentences or ())
        except (KeyError, TypeError):
            yield BadItem(filename, "a sentence without 'raw'")
            continue
        # COCO names a folder (val2014) beside the file; people keep the images with it or all in one folder.
        nested = args.images / str(record.get("filepath", "")) / filename
        image = nested if nested.exists() else args.images / filename
        yield Item(PurePosixPath(filename).stem, image, captions)
