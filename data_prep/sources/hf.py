"""Read what Hugging Face's ``datasets`` can load: a data set on the hub, a local folder, or a file."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import Any

from bimodal_cl.cli.arguments import path_text
from bimodal_cl.cli.parser import Parser
from bimodal_cl.cli.progress import note
from bimodal_cl.data.images.decode import BadImage
from bimodal_cl.errors import RunStopped, UserError, did_you_mean

from ..file_names import FileFinder
from ..input_paths import require_file, require_folder
from ..items import BadItem, Item, SourcePlan, Split
from ..tables.columns import URLS, names_urls
from ..tables.split_column import SPLIT_COLUMN, group_by_split, has_split_column
from .hf_tables import find_tables, pick_rows, plan_tables, require_named_splits, text_options
from .repeated_images import join_rows, make_split

SUMMARY = "Hugging Face data set, folder or parquet file: TO/SPLIT; with --split or for a file, TO itself"
BUILDER_OF = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".tar": "webdataset",
}
IMAGE_COLUMNS = ("image", "jpg", "jpeg", "png", "webp", "img")
CAPTION_COLUMNS = ("caption", "captions", "text", "txt")


def add_arguments(parser: Parser) -> None:
    """Add the source's own flags."""
    parser.add_argument(
        "--dataset",
        required=True,
        type=path_text,
        metavar="NAME|FOLDER|FILE",
        help=f"a name on the hub (owner/name), a local folder, or a file ({', '.join(BUILDER_OF)})",
    )
    parser.add_argument("--config-name", aliases=("--config",), metavar="NAME", help="configuration of the data set")
    parser.add_argument("--split", default=None, help="one split, or a slice such as train[:1000] (default: all)")
    parser.add_argument("--revision", default=None, help="branch, tag or commit of a data set on the hub")
    parser.add_argument(
        "--image-column",
        default=None,
        metavar="NAME",
        help="column of images (default: the only one of type Image, else image, jpg, ...)",
    )
    parser.add_argument(
        "--caption-column",
        default=None,
        metavar="NAME[,NAME...]",
        help="columns of captions or lists of captions, in order (default: the first of caption, captions, text, txt "
        "that exists, else caption_0, caption_1, ...)",
    )
    parser.add_argument(
        "--streaming", action="store_true", help="read rows as they arrive, without a copy in the cache of datasets"
    )


def read(args: argparse.Namespace) -> SourcePlan:
    """Plan all splits of the data set, or the one that ``--split`` asks for. Images keep their stored bytes.

    Raises:
        UserError: no such data set, configuration, split or column; the message names those that exist.
    """
    from datasets import disable_progress_bars  # imported here, since it takes half a second
    from datasets.utils.logging import set_verbosity_error

    disable_progress_bars()
    set_verbosity_error()
    loaded, folder = _load(args)
    if isinstance(loaded, SourcePlan):
        return loaded
    if not isinstance(loaded, dict):
        return SourcePlan(_plan_splits(args, "", "", args.split or "", loaded, folder))
    single = args.split is None and Path(args.dataset).is_file() and len(loaded) == 1
    splits: list[Split] = []
    for name, part in loaded.items():
        above = name if len(loaded) > 1 else ""
        splits += _plan_splits(args, "" if single else name, above, name, part, folder)
    return SourcePlan(splits)


def _load(args: argparse.Namespace) -> tuple[Any, Path]:
    """Return the data set and the folder that relative paths start from.

    The data set is one split, a dict of all splits, or, for tables, the finished plan.
    """
    from datasets import load_dataset, load_from_disk

    path = Path(args.dataset)
    if path.exists() and args.revision is not None:
        raise UserError(f"--revision only applies to data sets on the hub; {path} is a local path")
    try:
        if path.is_dir():
            if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
                return _pick_split(args, load_from_disk(str(path))), path
            tables = find_tables(str(path), args.config_name)
            if tables:
                return plan_tables(args, tables), path
            return load_dataset(str(path), args.config_name, split=args.split, streaming=args.streaming), path
        if path.is_file():
            if args.config_name is not None:
                raise UserError(f"--config-name: {path} is a file, and a file has no configurations")
            builder = BUILDER_OF.get(path.suffix.lower())
            if builder is None:
                raise UserError(
                    f"--dataset {path}: '{path.suffix}' files are not supported{did_you_mean(path.suffix, BUILDER_OF)}"
                )
            if builder == "csv":
                return plan_tables(args, {"train": [path]}, single=True), path.parent
            found = load_dataset(builder, data_files=str(path), split=args.split, streaming=args.streaming)
            return found, path.parent
        _refuse_missing_path(args.dataset)
        cells = text_options(args.dataset, args.config_name, args.revision)
        loaded = load_dataset(
            args.dataset, args.config_name, split=args.split, revision=args.revision, streaming=args.streaming, **cells
        )
        return loaded, Path()
    except UserError:
        raise
    except Exception as error:  # an error of the readers or the network concerns the data set that the user named
        raise UserError(f"--dataset {args.dataset}: {_one_line(error)}") from None


def _refuse_missing_path(name: str) -> None:
    """Raise ``UserError`` for a missing path; ``name`` and ``owner/name`` may be data sets on the hub instead."""
    path = Path(name)
    if path.suffix.lower() in BUILDER_OF:
        require_file(path, "--dataset")
    if path.is_absolute() or len(path.parts) != len(name.split("/")) or len(path.parts) > 2 or name[:1] in ".~":
        require_folder(path, "--dataset")


def _pick_split(args: argparse.Namespace, loaded: Any) -> Any:
    if args.split is None:
        return loaded
    from datasets import concatenate_datasets

    splits = loaded if isinstance(loaded, dict) else {"train": loaded}
    require_named_splits(args, splits)
    parts = pick_rows(args.split, {name: len(split) for name, split in splits.items()})
    return concatenate_datasets([splits[name].select(range(first, last)) for name, first, last in parts])


def _plan_splits(
    args: argparse.Namespace, name: str, above: str, where: str, dataset: Any, folder: Path
) -> list[Split]:
    """Plan one split of the data set; several, if a column of its rows names them.

    Args:
        args: the parsed flags.
        name: folder to write the split to.
        above: parent of the folders, if a column names several splits.
        where: name of the split in messages.
        dataset: the split.
        folder: the folder that relative paths start from.
    """
    features = dataset.features
    if features is None:  # a stream of untyped rows: the first one shows the columns
        features = next(iter(_rows(dataset, args.dataset)), {})
    parts: dict[str, list[int]] = {}
    if has_split_column(features):
        if args.streaming:
            note(f"{args.dataset}: column '{SPLIT_COLUMN}' is ignored; without --streaming each split gets a folder")
        else:
            parts = group_by_split(args.dataset, dataset[SPLIT_COLUMN])
    if len(parts) < 2:
        return [_plan_split(args, name, where, dataset, features, folder)]
    return [
        _plan_split(
            args,
            f"{above}/{part}" if above else part,
            f"{where} {part}".strip(),
            dataset.select(numbers),
            features,
            folder,
        )
        for part, numbers in parts.items()
    ]


def _plan_split(
    args: argparse.Namespace, name: str, where: str, dataset: Any, features: Mapping[str, Any], folder: Path
) -> Split:
    from datasets import Image

    image_column, caption_columns = find_columns(args, features)
    dataset = dataset.select_columns(list(dict.fromkeys([image_column, *caption_columns])))
    if isinstance(features[image_column], Image):
        dataset = dataset.cast_column(image_column, Image(decode=False))
    items = _items(_rows(dataset, args.dataset), where, image_column, caption_columns, folder)
    return make_split(name, items, getattr(dataset, "num_rows", None), join_rows)


def find_columns(args: argparse.Namespace, features: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the column of images and the columns of captions.

    Args:
        args: the parsed flags.
        features: the type of each column, or a row.

    Raises:
        UserError: a named column does not exist, or none is named and none can be guessed.
    """
    if args.image_column is not None:
        _require_column(args, "--image-column", args.image_column, features)
        image = args.image_column
    else:
        typed = [name for name, kind in features.items() if type(kind).__name__ == "Image"]
        named = [name for name in IMAGE_COLUMNS if name in features]
        if len(typed) != 1 and not named and any(map(names_urls, features)):
            raise UserError(f"--dataset {args.dataset}: no column holds images ({', '.join(features)}); {URLS}")
        if len(typed) != 1 and not named:
            raise UserError(
                f"--dataset {args.dataset}: which column holds the images? Give --image-column; "
                f"the columns are {', '.join(features)}"
            )
        image = typed[0] if len(typed) == 1 else named[0]
    if args.caption_column is not None:
        captions = [name.strip() for name in args.caption_column.split(",")]
        for name in captions:
            _require_column(args, "--caption-column", name, features)
        return image, captions
    one = [name for name in CAPTION_COLUMNS if name in features][:1]
    numbered = sorted(
        (name for name in features if name.startswith("caption_") and name[8:].isdecimal()),
        key=lambda name: int(name[8:]),
    )
    if not one and not numbered:
        raise UserError(
            f"--dataset {args.dataset}: which column holds the captions? Give --caption-column; "
            f"the columns are {', '.join(features)}"
        )
    return image, one or numbered


def _require_column(args: argparse.Namespace, flag: str, name: str, features: Mapping[str, Any]) -> None:
    if name not in features:
        raise UserError(f"--dataset {args.dataset} has no column '{name}' ({flag}){did_you_mean(name, features)}")


def _rows(dataset: Any, name: str) -> Iterator[dict[str, Any]]:
    rows = iter(dataset)
    count = 0
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except OSError as error:
            raise RunStopped(f"--dataset {name}: after {count:,} rows: {_one_line(error)}") from None
        except Exception as error:  # readers raise nearly anything for a damaged file
            raise UserError(f"--dataset {name}: after {count:,} rows: {_one_line(error)}") from None
        yield row
        count += 1


def _items(
    rows: Iterator[dict[str, Any]], split: str, image_column: str, caption_columns: Sequence[str], folder: Path
) -> Iterator[Item | BadItem]:
    files = FileFinder(folder)
    for number, row in enumerate(rows):
        where = f"{split} row {number}".strip()
        captions = [caption for column in caption_columns for caption in _captions(row[column])]
        if not all(isinstance(caption, str) for caption in captions):
            found = shorten(", ".join(repr(caption) for caption in captions if not isinstance(caption, str)), 60)
            yield BadItem(where, f"{', '.join(caption_columns)}: neither text nor a list of texts ({found})")
            continue
        image = _image(row[image_column], files)
        if image is None:
            yield BadItem(where, f"{image_column}: no image (the value is missing, a URL, or of another type)")
            continue
        yield Item(f"{number:09d}", image, tuple(captions))


def _captions(cell: Any) -> list[Any]:
    """Return the captions of a cell; a missing caption becomes an empty one."""
    cells = list(cell) if isinstance(cell, list | tuple) else [cell]
    return ["" if caption is None else caption for caption in cells]


def _image(cell: Any, files: FileFinder) -> Path | bytes | partial[bytes] | None:
    """Return the image of a cell: ``datasets``' struct of bytes and path, plain bytes, or a file name; else None."""
    if isinstance(cell, dict):
        if isinstance(cell.get("bytes"), bytes):
            return bytes(cell["bytes"])
        path = cell.get("path")
        if isinstance(path, str) and "://" in path:  # a member of a remote archive, read by streaming
            return partial(_fetch, path)
    else:
        path = cell
    if isinstance(path, bytes):
        return path
    return files.locate(path) if isinstance(path, str) and path and "://" not in path else None


def _fetch(location: str) -> bytes:
    import fsspec

    try:
        with fsspec.open(location, "rb") as file:
            return bytes(file.read())
    except Exception as error:  # each file system raises its own errors
        raise BadImage("unreadable", f"cannot be read: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]} ..."
