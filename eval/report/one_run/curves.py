"""Draw what a run logged over its training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ...trained_run import TrainedRun
from ..figures.curves import Series, draw_curves
from ..figures.drawing import Drawing
from ..figures.look import IMAGE, INK, TEXT
from ..scores import EMA, averaged_note, metric_name


def training_curves(run: TrainedRun) -> Iterator[tuple[str, Drawing, str]]:
    """Yield ``(title, figure, how to read it)`` of every value that the log holds at two steps or more."""

    def series(
        lines: list[dict[str, Any]], key: str, label: str = "", color: str = INK, band: Sequence[str] = (), **style: str
    ) -> list[Series]:
        numbers = [[line.get(name) for name in ("step", key, *band)] for line in lines]
        points = [each for each in numbers if all(isinstance(n, (int, float)) and np.isfinite(n) for n in each)]
        if len(points) < 2:
            return series(lines, key, label, color, **style) if band else []
        steps, values, *bounds = np.array(points, dtype=np.float64).T
        return [Series(label, steps, values, color, band=np.array(bounds) if band else None, **style)]

    blocks = " Where points are dense, the line is the mean of neighbouring points and the band their range."
    if loss := series(run.training, "loss"):
        read = (
            f"The training loss ({run.loss['name']}); its level depends on the loss and the batch size, "
            "so compare only runs with the same loss and batch size."
        )
        yield "Loss", draw_curves("loss", loss, "loss (no unit)"), read + blocks
    tau = [
        one
        for name, label, color, dash in (("tau_image", "images", IMAGE, "-"), ("tau_text", "texts", TEXT, "--"))
        for one in series(run.training, name, label, color, band=(f"{name}_p05", f"{name}_p95"), dash=dash)
    ]
    if tau:
        read = "Mean temperature of the pairs of each batch; a smaller one gives similar negatives more weight."
        if any(one.band is not None and (one.band[1] > one.band[0]).any() for one in tau):
            read += " The band is from the 5th to the 95th percentile."
        yield "Temperature", draw_curves("tau", tau, "mean tau (no unit)", decades=True), read
    if alignment := series(run.training, "alignment"):
        read = "Mean cosine between an image and its own caption: 1 is perfect agreement, 0 is none."
        yield "Alignment", draw_curves("alignment", alignment, "mean cosine (−1 to 1)"), read
    uniformity = series(run.training, "uniformity_image", "images", IMAGE)
    uniformity += series(run.training, "uniformity_text", "texts", TEXT, dash="--")
    if uniformity:
        read = (
            "How evenly features spread over the sphere: 0 where all are one point, near −4 where they spread evenly."
        )
        yield "Uniformity", draw_curves("uniformity", uniformity, "uniformity (no unit)"), read
    for prefix in ("", EMA):
        retrieval = [
            one
            for direction, color in (("image_retrieval", TEXT), ("text_retrieval", IMAGE))
            for cut, dash in ((1, ":"), (5, "-"), (10, "--"))
            for key in [f"{prefix}retrieval/{direction}_recall@{cut}"]
            for one in series(run.evaluations, key, metric_name(key.rpartition("/")[2]), color, dash=dash, marker="o")
        ]
        name, slug = averaged_note(prefix), prefix.replace("/", "-")
        weights = " These are the scores of the averaged weights." if prefix else ""
        if retrieval:
            read = "How often the right partner is among the first K candidates (R@K), on held-out pairs; higher is "
            figure = draw_curves(f"{slug}retrieval", retrieval, "recall (%)", percent=True)
            yield f"Retrieval{name}", figure, f"{read}better.{weights}"
        zero_shot = [
            one
            for metric, dash in (("acc1", "-"), ("acc5", "--"))
            for key in [f"{prefix}zero_shot/{metric}"]
            for one in series(run.evaluations, key, metric_name(metric), dash=dash, marker="o")
        ]
        if zero_shot:
            read = (
                "Share of test images whose class is the first (top-1) or among the first five (top-5) guesses; "
                f"higher is better.{weights}"
            )
            figure = draw_curves(f"{slug}zero-shot", zero_shot, "accuracy (%)", percent=True)
            yield f"Zero-shot classification{name}", figure, read
    if rate := series(run.training, "learning_rate"):
        read = "The optimizer's step size: it rises during the warm-up and then falls."
        yield "Learning rate", draw_curves("learning-rate", rate, "learning rate (no unit)"), read
