"""Write the temperature of every image and text, with its caption, as CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..trained_run import TrainedRun
from .learned import LearnedTemperatures

if TYPE_CHECKING:
    from bimodal_cl.data.shards.mixture import Mixture


def text_rows(
    data: Mixture | None, images: LearnedTemperatures, texts: LearnedTemperatures
) -> Iterator[dict[str, Any]]:
    """Yield one mapping per text, in the order of ids; the temperature of an id never visited is ``None``."""
    image_tau, text_tau = images.by_id(), texts.by_id()
    if data is None:
        for text_id, tau in enumerate(text_tau.tolist()):
            yield {"text_id": text_id, "tau": _or_none(tau), "caption": None, "image_id": None, "image_tau": None}
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
            }


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(np.float32(value))


def as_csv(rows: list[dict[str, Any]]) -> str:
    """Return the rows of :func:`text_rows` as CSV."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, ["text_id", "tau", "caption", "image_id", "image_tau"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def as_json(run: TrainedRun, rows: list[dict[str, Any]], images: LearnedTemperatures) -> str:
    """Return the rows of :func:`text_rows`, and the images' temperatures, as JSON."""
    taus = [{"image_id": image_id, "tau": _or_none(tau)} for image_id, tau in enumerate(images.by_id().tolist())]
    content = {"loss": run.loss["name"], "step": run.step, "texts": rows, "images": taus}
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"
