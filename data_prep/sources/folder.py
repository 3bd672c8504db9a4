"""A folder (with sub-folders) of images, each with a text file of the same name beside it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from bimodal_cl.data.natural_order import natural_order
from bimodal_cl.errors import UserError
from bimodal_cl.text_files import NotText, read_text

from ..input_paths import require_folder
from ..items import BadItem, Item, SourcePlan, Split

SUMMARY = "folder of images, each with a .txt (and perhaps a .json) of the same name: shards in TO itself"
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the source's own flags."""
    parser.add_argument("--images", type=Path, required=True, help="the folder")
    parser.add_argument(
        "--captions",
        choices=("lines", "whole"),
        default="lines",
        help="lines: every line of a .txt is a caption; whole: the text is one caption",
    )


def read(args: argparse.Namespace) -> SourcePlan:
    """Plan the one split, in natural order of the relative paths (``img2`` before ``img10``).

    Raises:
        UserError: no such folder, or no image in it.
    """
    require_folder(args.images, "--images")
    found = (path for path in args.images.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
    paths = sorted(found, key=lambda path: natural_order(path.relative_to(args.images).as_posix()))
    if not paths:
        raise UserError(f"no image ({', '.join(EXTENSIONS)}) in {args.images}")
    return SourcePlan([Split("", _items(paths, args), len(paths))])


def _items(paths: list[Path], args: argparse.Namespace) -> Iterator[Item | BadItem]:
    for path in paths:
        where = path.relative_to(args.images)
        try:
            text = read_text(path.with_suffix(".txt"))
        except FileNotFoundError:
            yield BadItem(str(where), f"no {where.stem}.txt beside it")
            continue
        except (OSError, NotText) as error:
            yield BadItem(str(where.with_suffix(".txt")), " ".join(str(error).split()))
            continue
        captions = (text,) if args.captions == "whole" else tuple(text.removesuffix("\n").split("\n"))
        try:
            metadata = _metadata(path.with_suffix(".json"))
        except (OSError, ValueError) as error:
            yield BadItem(str(where.with_suffix(".json")), f"not JSON: {error}")
            continue
        yield Item(where.with_suffix("").as_posix(), path, captions, metadata)


def _metadata(path: Path) -> bytes | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    json.loads(data)
    return data
