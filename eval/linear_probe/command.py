"""Train a linear classifier on frozen image features and score it; with --shots, on a few images of each class.

Logistic regression by L-BFGS, whose regularization is chosen on validation images, as CLIP's authors do: the images of
--val-split, else a part of each class that is held out of the training images. The final classifier learns from both.
Images with several classes (labels in .npy) are scored by mean average precision. The data are as for zero-shot, with a
training split.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bimodal_cl.cli.arguments import natural_number, positive_integer
from bimodal_cl.cli.parser import Parser
from bimodal_cl.errors import UserError

from ..encode import ScoredModel, add_model_arguments
from ..results import Scored
from ..score_models import Score, Summary, score_models
from ..zero_shot.class_scores import score_label_sets
from .few_shot import require_shots, score_few_shots, summarize_shots
from .scores import PREFIX, build_probe_result, score_classes, summarize
from .splits import Encoded, Split, add_split_arguments, encode_split, hash_splits, open_splits

if TYPE_CHECKING:
    from bimodal_cl.scoring.uncertainty import Resampled


def add_arguments(parser: Parser) -> None:
    """Add the arguments of ``bimodal-eval linear-probe``."""
    add_model_arguments(parser)
    add_split_arguments(parser)
    parser.add_argument(
        "--val-split",
        default=None,
        help="the split to choose the regularization on (default: val, valid or validation where the data have one, "
        "else a part of the training split)",
    )
    parser.add_argument(
        "--val-proportion",
        type=float,
        default=0.2,
        help="without a validation split, the share of each class's training images that is held out for it",
    )
    parser.add_argument(
        "--shots",
        metavar="N",
        nargs="+",
        type=positive_integer,
        default=[],
        help="learn from N training images of each class, such as 1 4 16, in place of all",
    )
    parser.add_argument(
        "--draws", type=positive_integer, default=5, help="how often the images of --shots are drawn; scores are means"
    )
    parser.add_argument("--seed", type=natural_number, default=0, help="of the held out images and of the draws")


def run(arguments: argparse.Namespace) -> None:
    """Score every model, write a result for each, and print a table.

    Raises:
        UserError: a split is missing or has other classes, or a class has too few images for ``--shots``.
    """
    if not 0 < arguments.val_proportion < 1:
        raise UserError(f"--val-proportion {arguments.val_proportion}: must be between 0 and 1")
    splits = open_splits(arguments, validation=True)
    if arguments.shots:
        targets = splits["train"].targets()
        if "val" not in splits and not splits["train"].several:
            targets = targets[_hold_out(targets, arguments)[0]]
        require_shots(splits["train"], targets, arguments)
    score = _score_shots if arguments.shots else _score_all

    def encode(model: ScoredModel) -> Score:
        encoded = _encode(model, splits, arguments)
        return lambda: score(model, splits, encoded, arguments)

    def show(scored: list[Scored]) -> Summary:
        how = _describe(splits, arguments)
        return summarize_shots(scored, how) if arguments.shots else summarize(scored, PREFIX, how)

    score_models(arguments, encode, show, lambda: hash_splits(*splits.values()))


def _encode(model: ScoredModel, splits: Mapping[str, Split], arguments: argparse.Namespace) -> dict[str, Encoded]:
    """Encode every split, and hold out validation images where no split has them."""
    encoded = {part: encode_split(model, split, arguments) for part, split in splits.items()}
    if "val" not in encoded:
        whole = encoded["train"]
        kept, held = _hold_out(whole.part.targets.numpy(), arguments)
        encoded["train"] = Encoded(whole.part.take(kept), whole.skipped)
        encoded["val"] = Encoded(whole.part.take(held), [])
    return encoded


def _hold_out(targets: Any, arguments: argparse.Namespace) -> tuple[Any, Any]:
    from bimodal_cl.scoring.probes.draws import hold_out

    return hold_out(targets, arguments.val_proportion, arguments.seed)


def _score_all(
    model: ScoredModel, splits: Mapping[str, Split], encoded: Mapping[str, Encoded], arguments: argparse.Namespace
) -> tuple[dict[str, Any], Resampled]:
    from bimodal_cl.scoring.probes.linear_probe import score_sets, train_probe
    from bimodal_cl.scoring.probes.sweep import NUM_FITS

    test, classnames = encoded["test"].part, splits["train"].labelled.classnames
    with _counted(NUM_FITS + 1, "fits", "train linear probes") as on_fit:
        probe = train_probe(encoded["train"].part, encoded["val"].part, on_fit=on_fit)
    if splits["train"].several:
        scores = score_label_sets(score_sets(probe, test), test.targets, classnames)
    else:
        scores = score_classes(probe.classifier.logits(test.features), probe.classes, test, classnames)
    scores = scores.prefixed(PREFIX)
    settings = {
        **_protocol(splits, arguments),
        "refit_on_train_and_val": True,
        "l2": probe.classifier.l2,
        "iterations": probe.classifier.iterations,
        "converged": probe.classifier.converged,
        "sweep": [{"l2": each.l2, "score": each.score, "loss": each.loss} for each in probe.sweep.tried],
    }
    result = build_probe_result("linear_probe", model, scores, splits, encoded, arguments, settings)
    return result, scores.resampled


def _score_shots(
    model: ScoredModel, splits: Mapping[str, Split], encoded: Mapping[str, Encoded], arguments: argparse.Namespace
) -> tuple[dict[str, Any], Resampled]:
    require_shots(splits["train"], encoded["train"].part.targets.numpy(), arguments)
    with _counted(len(set(arguments.shots)) * arguments.draws, "draws", "train linear probes") as on_draw:
        scores, table = score_few_shots(encoded, arguments, on_draw)
    settings = {**_protocol(splits, arguments), "refit_on_train_and_val": False, "draws": arguments.draws}
    result = build_probe_result("few_shot", model, scores, splits, encoded, arguments, settings, few_shot=table)
    return result, scores.resampled


def _protocol(splits: Mapping[str, Split], arguments: argparse.Namespace) -> dict[str, Any]:
    from bimodal_cl.scoring.probes.logistic import MAX_ITERATIONS, TOLERANCE

    held_out = f"{arguments.val_proportion} of each class of {splits['train'].name}"
    return {
        "solver": "L-BFGS",
        "max_iterations": MAX_ITERATIONS,
        "tolerance": TOLERANCE,
        "validation": splits["val"].name if "val" in splits else held_out,
        "seed": arguments.seed,
    }


def _describe(splits: Mapping[str, Split], arguments: argparse.Namespace) -> str:
    validation = splits["val"].name if "val" in splits else f"{100 * arguments.val_proportion:g} % of it"
    return f"learned from {splits['train'].name}, regularization chosen on {validation}"


@contextmanager
def _counted(total: int, unit: str, description: str) -> Iterator[Callable[[], object]]:
    """Show the progress of calls of the function that this yields."""
    from bimodal_cl.cli.progress import progress

    steps = progress(iter(range(total)), total, unit, description)
    next(steps)
    yield lambda: next(steps, None)
    for _ in steps:  # the search may need fewer fits
        pass
