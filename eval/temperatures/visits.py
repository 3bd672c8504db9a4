"""Count how often a training has visited each image and each text, by computing the order of its samples again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bimodal_cl.errors import UserError
from bimodal_cl.run_folder import read_state

from ..trained_run import TrainedRun, differs_from_training
from .learned import LearnedTemperatures

if TYPE_CHECKING:
    from bimodal_cl.data.shards.mixture import Mixture

_ORDER = ("seed", "train.global_batch_size", "data.rows_per_epoch", "data.shuffle_window")


@dataclass(frozen=True)
class Visits:
    """How often each id was an anchor.

    Attributes:
        image, text: int64 ``[images]`` and ``[texts]``.
    """

    image: np.ndarray
    text: np.ndarray

    def of(self, kind: str) -> np.ndarray:
        """Return those of a kind, "image" or "text"."""
        return self.image if kind == "image" else self.text


def count_visits(
    run: TrainedRun, data: Mixture, images: LearnedTemperatures, texts: LearnedTemperatures
) -> tuple[Visits | None, str]:
    """Return ``(visits, "")`` up to the newest checkpoint, or ``(None, why)`` where they cannot be known exactly.

    They cannot where the checkpoint does not name the order of its samples, where faulty samples were replaced, where
    steps were left out, or where the ids that the order visits are not those that the tables know.

    Args:
        run: the run.
        data: its training data.
        images, texts: its temperatures.

    Raises:
        UserError: the data cannot be read.
    """
    if run.checkpoint is None:
        return None, "there is no checkpoint"
    state = read_state(run.checkpoint)
    order = state.get("identity")
    if not isinstance(order, dict) or any(key not in order for key in _ORDER):
        return None, "the checkpoint does not name the order of its samples"
    if differs_from_training(run, data):
        return None, f"{data}: not the shards of the training as they were then"
    replaced = state.get("data", {}).get("replaced", {}) if isinstance(state.get("data"), dict) else {}
    if any(replaced.values()):
        return None, f"{sum(replaced.values()):,} faulty samples were replaced by others"
    if any(line.get("event") == "non_finite" for line in run.folder.read_log()):
        return None, "steps that were not finite were left out"
    try:
        visits = replay_order(data, run.step, order)
    except UserError as error:
        return None, f"the order of the samples cannot be computed: {error}"
    for kind, each in (("image", images), ("text", texts)):
        if not np.array_equal(np.flatnonzero(visits.of(kind)), each.ids):
            return None, f"the order of the samples does not visit the {kind}s that the tables know"
    return visits, ""


def replay_order(data: Mixture, steps: int, order: Mapping[str, Any]) -> Visits:
    """Count the visits of a training's first steps.

    Args:
        data: the training data.
        steps: optimizer steps; each is one global batch.
        order: ``identity`` of the run's state: seed, global batch size, rows per epoch and shuffle window.

    Raises:
        UserError: the data cannot be read, or do not fill a batch.
    """
    from bimodal_cl.data.order.draws import draw_caption
    from bimodal_cl.data.order.schedule import TrainSchedule
    from bimodal_cl.data.pairs import find_first_text_ids
    from bimodal_cl.data.shards.mixture import Mixture

    seed, batch_size = order["seed"], order["train.global_batch_size"]
    sizes = [manifest.num_images for manifest in data.manifests]
    repeats = [rows / max(size, 1) for rows, size in zip(order["data.rows_per_epoch"], sizes, strict=True)]
    mixture = Mixture(data.manifests, repeats)
    # The global batches are the same for any number of ranks.
    schedule = TrainSchedule(mixture, seed, 0, 1, 0, batch_size, 0, 1, order["data.shuffle_window"])
    first_text_ids = find_first_text_ids(data)
    captions = np.diff(first_text_ids)
    images, texts = np.zeros(data.num_images, dtype=np.int64), np.zeros(data.num_texts, dtype=np.int64)
    for number in range(steps):
        batch = schedule(number)
        image_ids = np.array(batch.image_ids, dtype=np.int64)
        np.add.at(images, image_ids, 1)
        drawn = draw_caption(captions[image_ids], seed, batch.epoch, image_ids)
        np.add.at(texts, first_text_ids[image_ids] + drawn, 1)
    return Visits(images, texts)
