"""Read a folder that img2dataset wrote: tars, sub-folders of files, or parquet files; count its failed downloads."""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import Any

from bimodal_cl.cli.progress import note
from bimodal_cl.data.images.decode import BadImage
from bimodal_cl.data.tar.samples import TarSample, TarSamples, open_samples
from bimodal_cl.errors import UserError
from bimodal_cl.files.image_files import HIDDEN, NO_ENDING, count_endings, describe_endings, ending_of, list_images
from bimodal_cl.files.image_formats import IMAGE_EXTENSIONS, TEXT_EXTENSIONS
from bimodal_cl.files.natural_sort import natural_sort_key
from bimodal_cl.files.text_files import decode_text

from ..input_paths import require_folder
from ..items import BadItem, Item, SourcePlan, Split
from .repeated_images import join_by, join_neighbours

SUMMARY = "folder that img2dataset wrote (webdataset, files or parquet): shards in TO itself"
SUCCESS = "success"
ROWS_AT_A_TIME = 16  # rows of a parquet file whose images are in memory at the same time
PartReader = Callable[[Path, Counter[str], Counter[str]], Iterator[Item | BadItem]]


class UnreadableTable(Exception):
    """A parquet file is damaged or unfinished."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f"cannot be read as parquet: {' '.join(str(error).split())}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the source's own flags."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the output_folder of img2dataset")


def read(args: argparse.Namespace) -> SourcePlan:
    """Plan one split: every downloaded image, in the order of the numbered parts.

    Raises:
        UserError: there is no such folder, or it holds none of the three formats.
    """
    folder = require_folder(args.folder)
    names = sorted((path.name for path in folder.iterdir() if not path.name.startswith(".")), key=natural_sort_key)
    paths = [folder / name for name in names]
    tars = [path for path in paths if path.suffix == ".tar"]
    parquets = [path for path in paths if path.suffix == ".parquet"]
    folders = [path for path in paths if path.is_dir() and path.name.isdecimal()]
    kind: PartReader
    if tars:
        kind, parts = _read_tar, tars
    elif folders:
        kind, parts = _read_files, folders
    elif any(path.suffix == ".tfrecord" for path in paths):
        raise UserError(
            f"{folder} holds .tfrecord files; give img2dataset --output_format webdataset, files or parquet"
        )
    elif any(map(_holds_images, parquets)):
        kind, parts = _read_parquet, parquets
    else:
        others = Counter("folders" if path.is_dir() else "".join(path.suffixes[-2:]) or NO_ENDING for path in paths)
        raise UserError(
            f"{folder} is not a folder of img2dataset: no .tar, no numbered folder, no .parquet with a column of images"
            f"{f'; it holds {describe_endings(others)}' if others else ''}"
        )
    expected = {*parts, *(part.with_suffix(".parquet") for part in parts)}
    others = Counter(
        "folders" if path.is_dir() else ending_of(path.name)
        for path in paths
        if path not in expected and not path.name.endswith("_stats.json")
    )
    if others:
        note(f"{folder}: left out: {describe_endings(others)}")
    lacking: Counter[str] = Counter()
    total = sum(filter(None, map(_count_successes, parts))) or None
    joined: Counter[str] = Counter()
    return SourcePlan([Split("", _items(parts, kind, lacking, joined), total, lacking, joined=joined)])


def _items(
    parts: list[Path], kind: PartReader, lacking: Counter[str], joined: Counter[str]
) -> Iterator[Item | BadItem]:
    for part in parts:
        yield from kind(part, lacking, joined)


def _read_tar(path: Path, lacking: Counter[str], joined: Counter[str]) -> Iterator[Item | BadItem]:
    lacking.update(_count_failures(path))
    with open_samples(path) as tar:
        yield from join_by(_digest, (_read_sample(path, tar, sample) for sample in tar.samples), joined)
        nameless = {ending: tar.left_out[ending] for ending in (HIDDEN, NO_ENDING) if tar.left_out[ending]}
        if nameless:
            note(f"{path.name}: left out: {describe_endings(nameless)}")
        if tar.damage is not None:
            yield BadItem(path.name, f"{tar.damage.reason}; the samples before it are used")


def _read_sample(path: Path, tar: TarSamples, sample: TarSample) -> Item | BadItem:
    where = f"{path.name} {sample.key}"
    extension = sample.image
    if extension is None:
        return BadItem(where, f"no image (only {', '.join(sample.members)})")
    try:
        text = tar.read(sample, sample.text) if sample.text else None
        metadata = tar.read(sample, ".json") if ".json" in sample.members else None
    except OSError as error:
        return BadItem(where, f"cannot be read: {error}")
    return _item(where, sample.key, partial(_read_member, path, *sample.members[extension]), text, metadata)


def _read_member(path: Path, offset: int, size: int) -> bytes:
    """Read an image of a tar; it is called when the image is written, so that images do not fill the memory."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(size)
    except OSError as error:
        raise BadImage("unreadable", f"cannot be read: {error.strerror}") from None
    if len(data) < size:
        raise BadImage("unreadable", f"cannot be read: {path.name} became shorter while it was read")
    return data


def _digest(item: Item) -> str | None:
    """Return img2dataset's hash of the downloaded image, which tells rows of the same image (COCO has five each)."""
    digest = json.loads(item.metadata).get("sha256") if item.metadata is not None else None
    return digest if isinstance(digest, str) and digest else None


def _read_files(folder: Path, lacking: Counter[str], joined: Counter[str]) -> Iterator[Item | BadItem]:
    lacking.update(_count_failures(folder))
    images, others = list_images(folder)
    stems = {path.with_suffix("") for path in images}
    beside = (*TEXT_EXTENSIONS, ".json")
    left_out = count_endings(
        [path for path in others if path.suffix.lower() not in beside or path.with_suffix("") not in stems], folder
    )
    if left_out:
        note(f"{folder.name}: left out: {describe_endings(left_out)}")
    ordered = sorted(images, key=lambda path: natural_sort_key(path.relative_to(folder).as_posix()))
    yield from join_by(_digest, (_read_file(folder, path) for path in ordered), joined)


def _read_file(folder: Path, path: Path) -> Item | BadItem:
    where = f"{folder.name}/{path.relative_to(folder).as_posix()}"
    try:
        texts = (_bytes_of(path.with_suffix(extension)) for extension in TEXT_EXTENSIONS)
        text = next((text for text in texts if text is not None), None)
        metadata = _bytes_of(path.with_suffix(".json"))
    except OSError as error:
        return BadItem(where, f"cannot be read: {error.strerror}")
    return _item(where, path.stem, path, text, metadata)


def _bytes_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _read_parquet(path: Path, lacking: Counter[str], joined: Counter[str]) -> Iterator[Item | BadItem]:
    yield from join_neighbours(_read_rows(path, lacking), joined)  # not join_by, which would hold all images in memory


def _read_rows(path: Path, lacking: Counter[str]) -> Iterator[Item | BadItem]:
    try:
        file = _open_parquet(path)
        column = _image_column(file)
        if column is None:
            yield BadItem(path.name, "has no column of images")
            return
        for number, row in enumerate(_rows(file)):
            image = row.pop(column)
            status = row.get("status", SUCCESS)
            key = str(row.get("key") or f"{path.stem}_{number:06d}")
            where = f"{path.name} {key}"
            if status != SUCCESS:
                lacking[str(status)] += 1
            elif image is None:
                yield BadItem(where, f"{column} is empty")
            else:
                caption = next((row[name] for name in ("caption", "txt", "text") if row.get(name) is not None), None)
                if isinstance(caption, float) and math.isnan(caption):  # a missing text, as pandas stores it
                    caption = None
                if caption is not None and not isinstance(caption, str):
                    yield BadItem(where, f"its caption is not text ({shorten(repr(caption), 60)})")
                    continue
                text = None if caption is None else caption.encode("utf-8", "surrogatepass")
                yield _item(where, key, image, text, json.dumps(row, default=str).encode())
    except UnreadableTable as error:
        yield BadItem(path.name, str(error))


def _item(
    where: str, key: str, image: Path | bytes | Callable[[], bytes], text: bytes | None, metadata: bytes | None
) -> Item | BadItem:
    """Return an item with one caption: its whole text, or without a text the caption of its metadata."""
    try:
        details = json.loads(metadata) if metadata is not None else None
        if metadata is not None and not isinstance(details, dict):
            raise ValueError("not an object")
    except ValueError as error:
        return BadItem(where, f"its .json is not JSON: {error}")
    if text is None:
        caption = (details or {}).get("caption")
        captions = (caption,) if isinstance(caption, str) else ()
    else:
        captions = (decode_text(text, "replace"),)
    return Item(key, image, captions, metadata)


def _image_column(file: Any) -> str | None:
    names = file.schema_arrow.names
    return next((extension[1:] for extension in IMAGE_EXTENSIONS if extension[1:] in names), None)


def _holds_images(path: Path) -> bool:
    try:
        return _image_column(_open_parquet(path)) is not None
    except UnreadableTable:  # this part is unfinished; others may not be
        return False


def _open_parquet(path: Path) -> Any:
    import pyarrow  # imported here, since it takes a fifth of a second
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise UnreadableTable(error) from None


def _rows(file: Any, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    import pyarrow

    try:
        for batch in file.iter_batches(ROWS_AT_A_TIME if columns is None else 10_000, columns=columns):
            yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise UnreadableTable(error) from None


def _count_failures(part: Path) -> Counter[str]:
    """Count the failed rows of a part by status, from the table or the statistics of the same name."""
    table = part.with_suffix(".parquet")
    try:
        file = _open_parquet(table) if table.exists() else None
        if file is not None and "status" in file.schema_arrow.names:
            found = Counter(str(row["status"]) for row in _rows(file, ["status"]))
            del found[SUCCESS]
            return found
    except UnreadableTable as error:
        note(f"{table.name}: {error}; failed downloads are counted from {part.stem}_stats.json, if it exists")
    statistics = _statistics(part)
    return Counter({key: statistics[key] for key in statistics if key.startswith("failed_to_") and statistics[key] > 0})


def _count_successes(part: Path) -> int | None:
    return _statistics(part).get("successes")


def _statistics(part: Path) -> dict[str, int]:
    """Return the integers in ``NNNNN_stats.json``; empty if there is no such file, as for an unfinished part."""
    try:
        content = json.loads(part.with_name(f"{part.stem}_stats.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in content.items() if type(value) is int} if isinstance(content, dict) else {}
