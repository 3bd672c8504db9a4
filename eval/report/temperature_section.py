"""Prepare a run's learned temperatures: distribution, course, extremes with pictures, and semantic frequency."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bimodal_cl.run_folder import LOSS_FILE

from ..temperatures.concepts import visited_concepts
from ..temperatures.correlation import correlate
from ..temperatures.history import spread_by_checkpoint, thin_out
from ..temperatures.learned import LearnedTemperatures, learned_temperatures
from ..temperatures.summary import read_summary
from ..trained_run import TrainedRun, find_training_data
from .figures.curves import Series, draw_curves
from .figures.distributions import draw_histogram, histogram_edges
from .figures.frequencies import draw_frequencies
from .figures.look import IMAGE, TEXT
from .pictures import both_ends, extreme_images, extreme_texts
from .sources import Placed, Sources

if TYPE_CHECKING:
    from bimodal_cl.data.shards.mixture import Mixture

_EXTREMES = 6


def visited_temperatures(run: TrainedRun) -> tuple[LearnedTemperatures, LearnedTemperatures] | None:
    """Return the images' and the texts' temperatures; None where the run has none that a step visited."""
    images, texts = learned_temperatures(run, "image"), learned_temperatures(run, "text")
    if images is None or texts is None or not (len(images.ids) and len(texts.ids)):
        return None
    return images, texts


def temperature_section(run: TrainedRun, sources: Sources, side: int, prefix: str = "") -> dict[str, Any] | None:
    """Return what the page shows of a run's temperatures; None where it learned none.

    Args:
        run: the run.
        sources: the page's figures and files.
        side: pixels of a thumbnail's longer side.
        prefix: begins the names of the figures.
    """
    found = visited_temperatures(run)
    if found is None or run.checkpoint is None:
        return None
    images, texts = found
    table = run.checkpoint / LOSS_FILE
    edges = histogram_edges(np.concatenate([images.tau, texts.tau]))
    bounds = [bound for bound in (images.tau_min, images.tau_max) if bound is not None]
    modalities = []
    for title, each, color in (("Images", images, IMAGE), ("Texts", texts, TEXT)):
        what = title.lower()
        drawing = draw_histogram(f"{prefix}tau-{what}", each.tau, edges, what, color, bounds)
        modalities.append((title, each, sources.place(title, drawing, _read_histogram(what, each), [table])))
    data, why = find_training_data(run)
    content: dict[str, Any] = {
        "modalities": modalities,
        "quantile_names": ["min", "5 %", "25 %", "median", "75 %", "95 %", "max"],
        "history": _history(run, sources, prefix),
        "extremes": [],
        "concepts": None,
        "neighbours": _neighbours(run, sources, prefix),
        "why_no_data": why,
    }
    if data is not None:
        large, small = both_ends(texts, _EXTREMES)
        content["extremes"].append(("Captions", extreme_texts(data, large, side), extreme_texts(data, small, side)))
        large, small = both_ends(images, _EXTREMES)
        content["extremes"].append(("Pictures", extreme_images(data, large, side), extreme_images(data, small, side)))
        content["concepts"] = _concepts(run, data, images, texts, sources, prefix)
    return content


def _read_histogram(what: str, each: LearnedTemperatures) -> str:
    read = f"A bar counts the {what} whose temperature lies in its interval; both figures share their axis."
    if each.tau_min is not None and each.tau_max is not None:
        read += (
            f" Dashed lines mark the loss's bounds if these lie within the axis: {each.num_at_min:,} at tau_min "
            f"{each.tau_min:.4g}, {each.num_at_max:,} at tau_max {each.tau_max:.4g}."
        )
    return read


def _history(run: TrainedRun, sources: Sources, prefix: str) -> dict[str, Any] | None:
    """Return the percentiles at the kept checkpoints; None where fewer than two are kept."""
    spreads = spread_by_checkpoint(run)
    if len(spreads) < 2:
        return None
    steps = np.array([each.step for each in spreads], dtype=np.float64)
    series = []
    for label, kind, color, dash in (("images", "image", IMAGE, "-"), ("texts", "text", TEXT, "--")):
        low, middle, high = np.array([getattr(each, kind) for each in spreads], dtype=np.float64).T
        series.append(Series(label, steps, middle, color, dash, "o", np.stack([low, high])))
    read = (
        "The median over all ids visited by then, at each kept checkpoint; the band is from the 5th to the 95th "
        "percentile."
    )
    drawing = draw_curves(f"{prefix}tau-history", series, "median tau (no unit)", decades=True)
    files = [each / LOSS_FILE for each in run.folder.list_checkpoints()]
    return {"figure": sources.place("Temperatures over the training", drawing, read, files), "rows": thin_out(spreads)}


def _neighbours(run: TrainedRun, sources: Sources, prefix: str) -> Placed | None:
    """Return the temperatures over the number of near neighbours; None where these were not counted."""
    summary = read_summary(run)
    points = (summary or {}).get("neighbours") or {}
    measured = (summary or {}).get("correlations", {}).get("neighbours", {})
    if set(points) != {"image", "text"} or set(measured) != {"image", "text"}:
        return None
    pairs = [tuple(np.array(points[kind][name]) for name in ("num_neighbours", "tau")) for kind in ("image", "text")]
    shown = {kind: _correlation(each["spearman"], each["low"], each["high"]) for kind, each in measured.items()}
    read = (
        "A point is a sampled image (circle) or caption (triangle); lines join means of groups of equal size. "
        "Neighbours have a cosine among the highest 1 % of the sample. Rank correlation with its 95 % bootstrap "
        f"interval: images {shown['image']}, texts {shown['text']}."
    )
    label = "near neighbours in the sample"
    drawing = draw_frequencies(f"{prefix}tau-neighbours", [(x, y) for x, y in pairs], label, "tau (no unit)")
    return sources.place("Temperature by near neighbours", drawing, read, [run.folder.temperatures])


def _correlation(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or low is None or high is None:
        return "not defined"
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def _concepts(
    run: TrainedRun,
    data: Mixture,
    images: LearnedTemperatures,
    texts: LearnedTemperatures,
    sources: Sources,
    prefix: str,
) -> dict[str, Any] | None:
    """Return the section on temperature by concept frequency; None where fewer than 3 concepts were seen."""
    rows = visited_concepts(data, images, texts)
    if len(rows) < 3 or run.checkpoint is None:
        return None
    counts = np.array([each.count for each in rows], dtype=np.float64)
    image_tau, text_tau = (np.array([getattr(each, name) for each in rows]) for name in ("image_tau", "text_tau"))
    rows.sort(key=lambda each: (-each.count, each.concept))
    shown = min(5, len(rows) // 2)
    drawing = draw_frequencies(
        f"{prefix}concepts",
        [(counts, image_tau), (counts, text_tau)],
        "occurrences of the concept in the training data",
        "mean tau (no unit)",
    )
    read = (
        "A point is the mean temperature of the pictures that show a concept (circles) or of the captions that name it "
        f"(triangles), {len(rows):,} concepts; lines join means of groups of equal size. Rank correlation with "
        f"frequency and its 95 % bootstrap interval: images {correlate(counts, image_tau)}, "
        f"texts {correlate(counts, text_tau)}."
    )
    files = [run.checkpoint / LOSS_FILE, data.manifests[0].folder.resolve().parent / "concepts.json"]
    return {
        "figure": sources.place("Temperature by concept frequency", drawing, read, files),
        "frequent": rows[:shown],
        "rare": rows[-shown:],
    }
