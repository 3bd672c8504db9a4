"""Read Karpathy's JSON (COCO, Flickr8k, Flickr30k) and its image folder; ``restval`` goes to ``train``, as usual."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bimodal_cl.errors import UserError, did_you_mean

from ..file_names import FileFinder, compose
from ..input_paths import require_folder
from ..items import BadItem, Item, SourcePlan
from ..tables.split_column import SPLIT_OF
from .annotation_file import KARPATHY, load_annotations, locate_image
from .repeated_images import make_split

SUMMARY = "Karpathy's JSON and an image folder (COCO, Flickr8k, Flickr30k): TO/train, TO/val, TO/test"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the source's own flags."""
    parser.add_argument("--json", type=Path, required=True, help="dataset_flickr8k.json, dataset_coco.json, ...")
    parser.add_argument("--images", type=Path, required=True, help="folder of the images")
    parser.add_argument("--split", choices=("train", "val", "test", "all"), default="all", help="write only this one")


def read(args: argparse.Namespace) -> SourcePlan:
    """Plan all splits of the file, or the one that ``--split`` asks for.

    Raises:
        UserError: the file is not Karpathy's JSON, the image folder is missing, or the split is not in the file.
    """
    records = load_annotations(args.json, KARPATHY)["images"]
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
    return SourcePlan([make_split(name, _items(by_split[name], args), len(by_split[name])) for name in wanted])


def _items(records: list[dict[str, Any]], args: argparse.Namespace) -> Iterator[Item | BadItem]:
    files = FileFinder(args.images)
    for record in records:
        filename = record.get("filename")
        sentences = record.get("sentences") or []
        where = f"{args.json.name}: image {record.get('imgid', '?')}"
        if not isinstance(filename, str) or not filename:
            yield BadItem(where, "no 'filename'")
            continue
        if not isinstance(sentences, list):
            yield BadItem(filename, "'sentences' is not a list")
            continue
        raw = (sentence.get("raw") for sentence in sentences if isinstance(sentence, dict))
        captions = [caption for caption in raw if isinstance(caption, str)]
        if len(captions) < len(sentences):
            yield BadItem(filename, "a sentence without 'raw', or with a 'raw' that is not text")
            continue
        folder = record.get("filepath")
        path = locate_image(files, f"{folder}/{filename}" if isinstance(folder, str) and folder else filename)
        yield Item(compose(path.stem), path, tuple(captions))
