"""Write a run's scores, curves, temperatures and examples to one self-contained ``report.html``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bimodal_cl import __version__
from bimodal_cl.cli.arguments import path_text
from bimodal_cl.cli.parser import Parser
from bimodal_cl.files.atomic import write_atomically

from ..temperatures.concepts import visited_concepts
from ..temperatures.correlation import correlate
from ..temperatures.history import spread_by_checkpoint, thin_out
from ..temperatures.learned import LearnedTemperatures, learned_temperatures
from ..trained_run import TrainedRun, find_training_data, load_run, sections_in_use
from .scores import class_errors, dataset_label, format_metric, metric_name, score_tables

if TYPE_CHECKING:
    from markupsafe import Markup

    from bimodal_cl.data.shards.mixture import Mixture

_TEMPLATES = Path(__file__).parent / "templates"
_SECTIONS = ("data", "model", "loss", "optim", "train", "ema")
_EXTREMES = 6
_EMA = "ema/"  # begins the names of the averaged weights' scores
_HEADLINES = ("acc1", "mean_average_precision", "image_retrieval_recall@5", "text_retrieval_recall@5")


def add_arguments(parser: Parser) -> None:
    """Add the sub-command's arguments."""
    parser.add_argument("run", metavar="RUN", type=path_text, help="the run's folder")
    parser.add_argument("--to", metavar="FILE", type=path_text, help="where to write it instead of RUN/report.html")


def run(args: argparse.Namespace) -> None:
    """Write the report and print its path.

    Raises:
        UserError: no complete run there, a file in it cannot be read, or the target cannot be written.
    """
    trained = load_run(args.run)
    target = trained.folder.report if args.to is None else Path(args.to)
    write_atomically(target, render_report(trained))
    print(target)


def render_report(run: TrainedRun) -> str:
    """Return the page: it refers to no other file, and every text from the run or its data is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(thousands=lambda value: f"{value:,}", tau=lambda value: f"{value:.4g}")
    data, why_no_data = find_training_data(run)
    images, texts = learned_temperatures(run, "image"), learned_temperatures(run, "text")
    if images is not None and texts is not None and not (len(images.ids) and len(texts.ids)):
        images = texts = None
    return environment.get_template("report.html.j2").render(
        name=run.path.resolve().name,
        run=run,
        version=__version__,
        subtitle=_subtitle(run),
        headlines=_headlines(run),
        settings=[(section, _flat(values)) for section, values in sections_in_use(run.config, _SECTIONS).items()],
        facts=_facts(run, data),
        tables=score_tables(run.results),
        curves=list(_curves(run)),
        temperatures=_temperatures(run, images, texts, data),
        why_no_data=why_no_data,
        retrievals=list(_retrievals(run)),
        errors=class_errors(run.results),
    )


def _subtitle(run: TrainedRun) -> str:
    steps = f"{run.step:,} optimizer steps"
    seen = next((line["samples_seen"] for line in reversed(run.training) if "samples_seen" in line), None)
    return f"{steps}, {seen:,} pairs seen" if isinstance(seen, int) else steps


def _headlines(run: TrainedRun) -> list[tuple[str, str, str]]:
    """Return ``(value, metric, data set)`` of the main scores, from results, else from the last evaluation."""
    found = [
        (format_metric(name, result["metrics"][name]), metric_name(name), dataset_label(result))
        for name in _HEADLINES
        for result in run.results
        if isinstance(result["metrics"].get(name), (int, float))
    ]
    if not found and run.evaluations:
        last = run.evaluations[-1]
        found = [
            (format_metric(metric, value), metric_name(metric), f"during training{_averaged(key)}")
            for key, value in last.items()
            if (metric := key.rpartition("/")[2]) in _HEADLINES and isinstance(value, (int, float))
        ]
    return found[:4]


def _averaged(key: str) -> str:
    """Return what tells the averaged weights' scores from the trained ones'."""
    return " (EMA)" if key.startswith(_EMA) else ""


def _facts(run: TrainedRun, data: Mixture | None) -> list[tuple[str, str]]:
    """Return facts that are not in the configuration: the data's size, the training time and speed, the checkpoint."""
    facts = []
    if data is not None:
        shards = sum(len(manifest.shards) for manifest in data.manifests)
        size = f"{data.num_images:,} images, {data.num_texts:,} captions, {shards:,} shards"
        facts.append(("training data", size))
    seconds = sum(line.get("seconds", 0.0) for line in run.training)  # each line holds the time since the one before
    if seconds:
        facts.append(("training time", str(timedelta(seconds=round(seconds)))))
    rates = [line["samples_per_second"] for line in run.training if line.get("samples_per_second")]
    if rates:
        facts.append(("speed", f"{np.median(rates):,.0f} pairs per second (median)"))
    if run.checkpoint is not None:
        facts.append(("checkpoint", run.checkpoint.name))
    return facts


def _flat(section: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Return ``(dotted key, value)`` of a section's keys that are set."""
    if not isinstance(section, dict):
        return [(prefix.rstrip("."), str(section))]
    rows: list[tuple[str, str]] = []
    for key, value in section.items():
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            value = dict(enumerate(value))  # a list of data sets: one line per key
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{key}.")
        elif value is not None:
            rows.append((f"{prefix}{key}", str(value)))
    return rows


def _curves(run: TrainedRun) -> Iterator[tuple[str, Markup, str]]:
    """Yield ``(title, figure, how to read it)`` of every value that the log holds at two steps or more."""
    from .figures import IMAGE, INK, TEXT, Series, draw_curves

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
    for prefix in ("", _EMA):
        retrieval = [
            one
            for direction, color in (("image_retrieval", TEXT), ("text_retrieval", IMAGE))
            for cut, dash in ((1, ":"), (5, "-"), (10, "--"))
            for key in [f"{prefix}retrieval/{direction}_recall@{cut}"]
            for one in series(run.evaluations, key, metric_name(key.rpartition("/")[2]), color, dash=dash, marker="o")
        ]
        name, slug = _averaged(prefix), prefix.replace("/", "-")
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


def _temperatures(
    run: TrainedRun, images: LearnedTemperatures | None, texts: LearnedTemperatures | None, data: Mixture | None
) -> dict[str, Any] | None:
    """Return the section on temperatures of single images and texts; ``None`` where the run learned none."""
    if images is None or texts is None:
        return None
    from .figures import IMAGE, TEXT, draw_histogram, histogram_edges
    from .pictures import both_ends, extreme_images, extreme_texts

    edges = histogram_edges(np.concatenate([images.tau, texts.tau]))
    bounds = [bound for bound in (images.tau_min, images.tau_max) if bound is not None]
    content: dict[str, Any] = {
        "modalities": [
            ("Images", images, draw_histogram("tau-images", images.tau, edges, "images", IMAGE, bounds)),
            ("Texts", texts, draw_histogram("tau-texts", texts.tau, edges, "texts", TEXT, bounds)),
        ],
        "quantile_names": ["min", "5 %", "25 %", "median", "75 %", "95 %", "max"],
        "history": _history(run),
        "extremes": [],
        "concepts": None,
    }
    if data is not None:
        large, small = both_ends(texts, _EXTREMES)
        content["extremes"].append(("Captions", extreme_texts(data, large), extreme_texts(data, small)))
        large, small = both_ends(images, _EXTREMES)
        content["extremes"].append(("Pictures", extreme_images(data, large), extreme_images(data, small)))
        content["concepts"] = _concepts(data, images, texts)
    return content


def _history(run: TrainedRun) -> dict[str, Any] | None:
    """Return the percentiles at the kept checkpoints; ``None`` where fewer than two are kept."""
    from .figures import IMAGE, TEXT, Series, draw_curves

    spreads = spread_by_checkpoint(run)
    if len(spreads) < 2:
        return None
    steps = np.array([each.step for each in spreads], dtype=np.float64)
    series = []
    for label, kind, color, dash in (("images", "image", IMAGE, "-"), ("texts", "text", TEXT, "--")):
        low, middle, high = np.array([getattr(each, kind) for each in spreads], dtype=np.float64).T
        series.append(Series(label, steps, middle, color, dash, "o", np.stack([low, high])))
    figure = draw_curves("tau-history", series, "median tau (no unit)", decades=True)
    return {"figure": figure, "rows": thin_out(spreads)}


def _concepts(data: Mixture, images: LearnedTemperatures, texts: LearnedTemperatures) -> dict[str, Any] | None:
    """Return the section on temperature by concept frequency; ``None`` where fewer than 3 concepts were seen."""
    from .figures import draw_frequencies

    rows = visited_concepts(data, images, texts)
    if len(rows) < 3:
        return None
    counts = np.array([each.count for each in rows], dtype=np.float64)
    image_tau, text_tau = (np.array([getattr(each, name) for each in rows]) for name in ("image_tau", "text_tau"))
    rows.sort(key=lambda each: (-each.count, each.concept))
    shown = min(5, len(rows) // 2)
    return {
        "figure": draw_frequencies("concepts", counts, image_tau, text_tau),
        "num_concepts": len(rows),
        "image_correlation": correlate(counts, image_tau),
        "text_correlation": correlate(counts, text_tau),
        "frequent": rows[:shown],
        "rare": rows[-shown:],
    }


def _retrievals(run: TrainedRun) -> Iterator[tuple[str, int, list[Any], str]]:
    """Yield ``(data set, examples saved, examples shown, why none)`` of every retrieval result."""
    from .pictures import retrieval_examples

    for result in run.results:
        if result.get("examples"):
            examples, why = retrieval_examples(run, result)
            yield dataset_label(result), len(result["examples"]), examples, why
