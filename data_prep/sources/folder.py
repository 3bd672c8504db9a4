"""Read a folder, with its sub-folders, of images that have a text file of the same name."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from bimodal_cl.errors import UserError
from bimodal_cl.files.image_files import count_endings, describe_endings, list_images
from bimodal_cl.files.image_formats import IMAGE_EXTENSIONS, TEXT_EXTENSIONS
from bimodal_cl.files.natural_sort import natural_sort_key
from bimodal_cl.files.text_files import NotText, read_text

from ..file_names import compose
from ..input_paths import require_folder
from ..items import BadItem, Item, SourcePlan, Split

SUMMARY = "folder of images, each with a .txt (and perhaps a .json) of the same name: shards in TO itself"
_METADATA = ".json"
_READ = (*TEXT_EXTENSIONS, _METADATA)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the source's own flags."""
    parser.add_argument("--images", type=Path, required=True, help="folder of the images")
    parser.add_argument(
        "--captions",
        choices=("lines", "whole"),
        default="lines",
        help="lines: each line of a .txt is a caption; whole: the whole text is one caption",
    )


def read(args: argparse.Namespace) -> SourcePlan:
    """Plan one split, in natural order of the relative paths (``img2`` before ``img10``).

    Files that are neither an image nor an image's text or ``.json`` are counted by ending.

    Raises:
        UserError: no such folder, or no image in it.
    """
    require_folder(args.images, "--images")
    images, others = list_images(args.images)
    images.sort(key=lambda path: natural_sort_key(path.relative_to(args.images).as_posix()))
    sidecars = _Sidecars(images, others)
    left_out = count_endings(sidecars.left_out, args.images)
    if not images:
        found = f"; it holds {describe_endings(left_out)}" if left_out else ""
        raise UserError(f"no image ({', '.join(IMAGE_EXTENSIONS[:8])}, ...) in {args.images}{found}")
    return SourcePlan([Split("", _items(images, sidecars, args), len(images), left_out=left_out)])


class _Sidecars:
    """Find the text and metadata of each image by its name without the extension, which may be in upper case.

    Composed and decomposed accented letters (NFC, NFD) are equal.

    Attributes:
        left_out: files that belong to no image.
    """

    def __init__(self, images: list[Path], others: list[Path]) -> None:
        stems = {path.with_suffix("") for path in images}
        spelled = {compose(str(stem)): stem for stem in stems}  # the image's own spelling
        self._files: dict[tuple[Path, str], Path] = {}
        self.left_out: list[Path] = []
        for path in others:
            stem = path.with_suffix("")
            place = stem if stem in stems else spelled.get(compose(str(stem)), stem), path.suffix.lower()
            if place[0] in stems and place[1] in _READ and not path.name.startswith(".") and place not in self._files:
                self._files[place] = path
            else:
                self.left_out.append(path)
        for stem in stems:
            texts = [self._files[stem, extension] for extension in TEXT_EXTENSIONS if (stem, extension) in self._files]
            self.left_out += texts[1:]

    def text(self, image: Path) -> Path | None:
        """Return the caption file of an image, by the first of ``TEXT_EXTENSIONS`` that exists, or None."""
        found = (self._files.get((image.with_suffix(""), extension)) for extension in TEXT_EXTENSIONS)
        return next((path for path in found if path is not None), None)

    def metadata(self, image: Path) -> Path | None:
        """Return the metadata file of an image; None if there is none."""
        return self._files.get((image.with_suffix(""), _METADATA))


def _items(images: list[Path], sidecars: _Sidecars, args: argparse.Namespace) -> Iterator[Item | BadItem]:
    for image in images:
        where = image.relative_to(args.images)
        text_path, metadata_path = sidecars.text(image), sidecars.metadata(image)
        if text_path is None:
            yield BadItem(
                str(where), f"no {where.stem}.txt in the same folder (nor {' or '.join(TEXT_EXTENSIONS[1:])})"
            )
            continue
        try:
            text = read_text(text_path)
        except (OSError, NotText) as error:
            yield BadItem(str(text_path.relative_to(args.images)), " ".join(str(error).split()))
            continue
        captions = (text,) if args.captions == "whole" else tuple(text.removesuffix("\n").split("\n"))
        try:
            metadata = None if metadata_path is None else _read_metadata(metadata_path)
        except (OSError, ValueError) as error:
            yield BadItem(str(where.with_suffix(_METADATA)), f"not JSON: {error}")
            continue
        yield Item(where.with_suffix("").as_posix(), image, captions, metadata)


def _read_metadata(path: Path) -> bytes:
    data = path.read_bytes()
    json.loads(data)
    return data
