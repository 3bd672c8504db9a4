"""Write the temperature of every image and text, with its caption, as a CSV, JSON or Parquet file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bimodal_cl.errors import UserError
from bimodal_cl.files.atomic import open_atomically

from ..trained_run import TrainedRun
from .frequency import Frequency
from .learned import LearnedTemperatures
from .neighbours import Neighbours

if TYPE_CHECKING:
    from bimodal_cl.data.shards.mixture import Mixture

_ROWS_AT_ONCE = 50_000
_CSV_COLUMNS = ("text_id", "tau", "caption", "image_id", "image_tau", "visits", "concept", "concept_count")
UNKNOWN = Frequency()


def text_rows(
    data: Mixture | None, images: LearnedTemperatures, texts: LearnedTemperatures, frequency: Frequency = UNKNOWN
) -> Iterator[dict[str, Any]]:
    """Yield one mapping per text, in the order of ids; the temperature of an id never visited is ``None``."""
    image_tau, text_tau = images.by_id(), texts.by_id()
    if data is None:
        for text_id, tau in enumerate(text_tau.tolist()):
            place = {"caption": None, "image_id": None, "image_tau": None}
            yield {"text_id": text_id, "tau": _or_none(tau), **place, **frequency.columns("text", text_id, None)}
        return
    from ..captions import iterate_captions

    for image_id, first_text_id, captions in iterate_captions(data):
        for text_id, caption in enumerate(captions, start=first_text_id):
            yield {
                "text_id": text_id,
                "tau": _or_none(text_tau[text_id]),
                "caption": caption,
                "image_id": image_id,
                "image_tau": _or_none(image_tau[image_id]),
                **frequency.columns("text", text_id, image_id),
            }


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(np.float32(value))


def as_csv(rows: list[dict[str, Any]]) -> str:
    """Return the rows of :func:`text_rows` as CSV."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def as_json(
    run: TrainedRun,
    rows: list[dict[str, Any]],
    images: LearnedTemperatures,
    measures: dict[str, Any] | None = None,
    frequency: Frequency = UNKNOWN,
) -> str:
    """Return the rows of :func:`text_rows`, the images' temperatures, and other measures by name as JSON."""
    taus = [
        {"image_id": image_id, "tau": _or_none(tau), **frequency.columns("image", image_id, image_id)}
        for image_id, tau in enumerate(images.by_id().tolist())
    ]
    content = {"loss": run.loss["name"], "step": run.step, **(measures or {}), "texts": rows, "images": taus}
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def write_parquet(
    path: Path,
    run: TrainedRun,
    data: Mixture | None,
    images: LearnedTemperatures,
    texts: LearnedTemperatures,
    neighbours: Mapping[str, Neighbours] | None = None,
    frequency: Frequency = UNKNOWN,
) -> int:
    """Write one row per image and per text, an image's row before those of its captions, and return their number.

    Rows are written in groups, so that the table may be larger than the memory. The columns are listed in
    ``docs/evaluation.md``; the file's metadata hold the run, its loss and its step.

    Args:
        path: the file to write.
        run: of which the temperatures are.
        data: its training data; None: the table has no keys and no captions.
        images, texts: their temperatures.
        neighbours: of a sample of the images ("image") and texts ("text"); their columns are null elsewhere.
        frequency: of the anchors and of their concepts.

    Raises:
        UserError: the file cannot be written, or the data cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    neighbours = neighbours or {}
    origin = {"run": str(run.path), "loss": str(run.loss["name"]), "step": str(run.step)}
    origin |= {f"cosine_threshold_{kind}": repr(each.threshold) for kind, each in neighbours.items()}
    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("kind", pa.string()),
            ("tau", pa.float32()),
            ("log_u", pa.float32()),
            ("visited", pa.bool_()),
            ("image_id", pa.int64()),
            ("data_set", pa.string()),
            ("shard", pa.string()),
            ("key", pa.string()),
            ("caption", pa.string()),
            ("num_neighbours", pa.int32()),
            ("num_near_duplicates", pa.int32()),
            ("nearest_id", pa.int64()),
            ("nearest_cosine", pa.float32()),
            ("visits", pa.int64()),
            ("concept", pa.string()),
            ("concept_count", pa.int64()),
        ],
        metadata=origin,
    )
    places = _places(data, images.num_ids, texts.num_ids)
    rows = _with_values(places, {"image": images, "text": texts}, neighbours, frequency)
    count = 0
    try:
        with open_atomically(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
            while group := list(islice(rows, _ROWS_AT_ONCE)):
                writer.write_table(pa.Table.from_pylist(group, schema=schema))
                count += len(group)
    except (FileNotFoundError, NotADirectoryError, PermissionError, IsADirectoryError) as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    return count


def _with_values(
    places: Iterable[dict[str, Any]],
    temperatures: Mapping[str, LearnedTemperatures],
    neighbours: Mapping[str, Neighbours],
    frequency: Frequency,
) -> Iterator[dict[str, Any]]:
    """Add each row's values to its place."""
    tau = {kind: each.by_id() for kind, each in temperatures.items()}
    log_u = {}
    for kind, each in temperatures.items():
        if each.log_u is not None:
            log_u[kind] = np.full(each.num_ids, np.nan)
            log_u[kind][each.ids] = each.log_u
    found = {kind: _columns_by_id(each) for kind, each in neighbours.items()}
    for place in places:
        kind, number = place["kind"], place["id"]
        value = _or_none(tau[kind][number])
        estimate = _or_none(log_u[kind][number]) if kind in log_u else None
        yield {
            **place,
            "tau": value,
            "log_u": estimate,
            "visited": value is not None,
            **found.get(kind, {}).get(number, {}),
            **frequency.columns(kind, number, place.get("image_id")),
        }


def _columns_by_id(neighbours: Neighbours) -> dict[int, dict[str, Any]]:
    columns = {
        "num_neighbours": neighbours.count,
        "num_near_duplicates": neighbours.duplicates,
        "nearest_id": neighbours.nearest,
        "nearest_cosine": neighbours.cosine,
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return {
        number: dict(zip(columns, row, strict=True)) for number, row in zip(neighbours.ids.tolist(), rows, strict=True)
    }


def _places(data: Mixture | None, num_images: int, num_texts: int) -> Iterator[dict[str, Any]]:
    """Yield the id, the kind and the place of every image and of its texts; without data, all images, then all texts.

    The caption of an image's row is its first one.
    """
    if data is None:
        yield from ({"id": number, "kind": "image", "image_id": number} for number in range(num_images))
        yield from ({"id": number, "kind": "text"} for number in range(num_texts))
        return
    from bimodal_cl.data.shards.reader import RowReader

    reader = RowReader(data)
    try:
        for image_id in range(data.num_images):
            first_text_id, captions = reader.read_captions(image_id)
            shard, key = reader.describe(image_id)
            data_set = data.names[data.shards[data.locate(image_id)[0]].data_set]
            place = {"image_id": image_id, "data_set": data_set, "shard": shard, "key": key}
            yield {"id": image_id, "kind": "image", "caption": captions[0] if captions else None, **place}
            for text_id, caption in enumerate(captions, start=first_text_id):
                yield {"id": text_id, "kind": "text", "caption": caption, **place}
    finally:
        reader.close()
