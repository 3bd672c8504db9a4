"""Classify labelled images by the nearest class prompt, without training on them.

The prompts are --templates, else the data set's own, else a few captions' wordings. The data are a folder of class
folders, with or without a split's folder above them, or CLIP_benchmark's wds_ layout.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bimodal_cl.command_line import path_text

from .datasets import load_classnames, load_templates, prompt_names, require_classes, require_folder, require_split
from .encode import ScoredModel, add_model_arguments, autocast_type, open_model, resolve_device, result_folder
from .results import build_result, format_table, make_folder, percent, write_result

if TYPE_CHECKING:
    import numpy as np

_MAX_CONFUSIONS = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``bimodal-eval zero-shot`` takes."""
    add_model_arguments(parser)
    parser.add_argument("--data", metavar="DIR", type=Path, required=True, help="labelled images")
    parser.add_argument("--split", default="test", help="which split of them")
    parser.add_argument(
        "--templates",
        metavar="FILE",
        type=path_text,
        help=f"prompts, one a line with {{c}} for the class; or one of {', '.join(prompt_names())} (default: the data "
        "set's own, else five wordings of captions)",
    )
    parser.add_argument("--classnames", metavar="FILE", type=Path, default=None, help="names for the classes, in order")


def run(arguments: argparse.Namespace) -> None:
    """Score every model, write a result for each, print a table."""
    require_folder(arguments.data)
    require_split(arguments.data, arguments.split)
    templates = load_templates(arguments.templates) if arguments.templates else None

    from bimodal_cl.data import open_labelled
    from bimodal_cl.validation import DEFAULT_TEMPLATES

    labelled = open_labelled(arguments.data, split=arguments.split)
    require_classes(labelled.classnames, arguments.data)
    source = arguments.templates
    if templates is None:
        source = "data set" if labelled.templates else "default"
        templates = list(labelled.templates or DEFAULT_TEMPLATES)
    classnames = list(labelled.classnames)
    if arguments.classnames:
        classnames = load_classnames(arguments.classnames, labelled.classnames)
    device = resolve_device(arguments.device)
    rows, written, skipped = [], [], 0
    for given in arguments.models:
        model = open_model(given, device)
        folder = result_folder(model, given, arguments.to, arguments.models)
        make_folder(folder)
        result = score_model(model, labelled, classnames, templates, arguments)
        result["provenance"]["prompts"]["source"] = source
        written.append(write_result(folder, result))
        metrics, skipped = result["metrics"], result["provenance"]["counts"]["num_skipped"]
        names = ("acc1", "acc5", "mean_per_class_recall")
        rows.append([given, *(percent(metrics.get(name)) for name in names)])
    chance = 1 / len(classnames)
    rows.append(["chance", percent(chance), percent(5 * chance if len(classnames) >= 5 else None), percent(chance)])
    num_images = len(labelled) - skipped
    print(f"{num_images:,} images of {len(classnames):,} classes, {len(templates)} prompts a class ({source})")
    if skipped:
        print(f"{skipped:,} images could not be read and are left out; the results name them")
    print(format_table(["", "top-1", "top-5", "mean per class"], rows))
    print(*written, sep="\n")


def score_model(
    model: ScoredModel, labelled: Any, classnames: list[str], templates: list[str], arguments: argparse.Namespace
) -> dict[str, Any]:
    """A model's result on labelled images, ready to be written.

    Args:
        model: what is scored.
        labelled: the images, a ``bimodal_cl.data.LabelledImages``.
        classnames: one a class, in the order of the labels.
        templates: prompts with ``{c}``.
        arguments: ``batch_size``, ``workers``, ``precision``, ``name``, ``data``, ``split``, ``classnames``.
    """
    from bimodal_cl.metrics import class_ranks
    from bimodal_cl.validation import build_classifier, encode_labelled, score_classification

    autocast = autocast_type(arguments.precision)
    classifier = build_classifier(model.encoder, classnames, templates, autocast=autocast)
    encoded = encode_labelled(
        model.encoder, labelled, arguments.batch_size, arguments.workers, autocast, show_progress=True
    )
    logits = encoded.image_features @ classifier.T
    targets = encoded.targets.numpy()
    return build_result(
        task="zeroshot_classification",
        dataset=arguments.name or labelled.name,
        model=model,
        metrics=score_classification(logits, encoded.targets),
        data=str(arguments.data),
        counts={"num_images": len(targets), "num_classes": len(classnames), "num_skipped": len(encoded.skipped)},
        provenance={
            "split": arguments.split,
            "precision": arguments.precision,
            "prompts": {
                "templates": templates,
                "classnames": str(arguments.classnames) if arguments.classnames else "data set",
            },
            "skipped": encoded.skipped,
        },
        per_class=recall_by_class(class_ranks(logits, targets), targets, classnames),
        confusions=count_confusions(logits.argmax(dim=1).cpu().numpy(), targets, classnames),
    )


def recall_by_class(ranks: np.ndarray, targets: np.ndarray, classnames: list[str]) -> list[dict[str, Any]]:
    """For every class that has images: its name, their number, and the share put first.

    Args:
        ranks: int64 ``[images]``, the place of each image's class, from 1.
        targets: int64 ``[images]``.
        classnames: one a class.
    """
    counts, hits = Counter(targets.tolist()), Counter(targets[ranks == 1].tolist())
    return [
        {"class": classnames[index], "count": count, "recall": hits[index] / count}
        for index, count in sorted(counts.items())
    ]


def count_confusions(predictions: np.ndarray, targets: np.ndarray, classnames: list[str]) -> list[dict[str, Any]]:
    """The pairs of classes taken for one another, the most frequent first.

    Args:
        predictions: int64 ``[images]``, the class with the largest logit.
        targets: int64 ``[images]``.
        classnames: one a class.
    """
    wrong = predictions != targets
    pairs = Counter(zip(targets[wrong].tolist(), predictions[wrong].tolist(), strict=True))
    ordered = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
    return [
        {"class": classnames[target], "predicted": classnames[prediction], "count": count}
        for (target, prediction), count in ordered[:_MAX_CONFUSIONS]
    ]
