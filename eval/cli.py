"""The program ``bimodal-eval``: score models, show what a run learned, and export models."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from functools import partial

from bimodal_cl.cli.exit_status import EXIT_SUCCESS, with_exit_status
from bimodal_cl.cli.processes import count_processes, joined_processes, one_voice
from bimodal_cl.cli.sub_commands import Command, CommandGroup
from bimodal_cl.errors import UserError

# name: (module with add_arguments and run, one line of help); a module is imported when its command is called
_MODULES = {
    "zero-shot": ("zero_shot.command", "classify labelled images by the nearest class prompt"),
    "linear-probe": (
        "linear_probe.command",
        "train a linear classifier on frozen features, on all images or a few shots",
    ),
    "knn": ("linear_probe.knn", "classify labelled images by their nearest training images"),
    "retrieval": ("retrieval.command", "find images by caption and captions by image, R@1, R@5, R@10 and median rank"),
    "composition": ("composition.command", "choose between captions that differ in their order or in one word"),
    "temperatures": ("temperatures.command", "show the temperatures a run learned for its images and texts"),
    "export": ("export.command", "write a model for open_clip, transformers and ONNX, with a model card"),
    "report": ("report.command", "write a page about a run, or a comparison of several"),
    "study": ("study.command", "tune and compare methods with several seeds, and go on where it was interrupted"),
}
COMMANDS = CommandGroup(
    "Score models, show what a run learned, and export models.",
    {
        name: Command(summary, partial(importlib.import_module, f".{module}", __package__))
        for name, (module, summary) in _MODULES.items()
    },
)


@with_exit_status
def main(argv: Sequence[str]) -> int:
    """Run ``bimodal-eval`` and return its exit status: 0 success, 2 a mistake of the user, 1 any other failure."""
    # OpenMP reads it when torch is imported. A thread that waits for another one would else spin, on a core that the
    # other thread, or a process that decodes images, needs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with one_voice():
        found = COMMANDS.parse("bimodal-eval", argv)
        if found is None:
            return EXIT_SUCCESS
        command, arguments = found
        check_launcher(arguments)
    with joined_processes():
        return command.run(arguments) or EXIT_SUCCESS


def check_launcher(arguments: argparse.Namespace) -> None:
    """Refuse a launcher that a command cannot use or would not follow, and warn where it starts fewer processes.

    Args:
        arguments: of the command.

    Raises:
        UserError: several processes for a command that does not score models, or another precision.
    """
    if count_processes() > 1 and not hasattr(arguments, "models"):
        raise UserError("this command works in one process: call it without a launcher")
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "").lower()
    if not asked:  # every `accelerate launch` sets it, to "no" by default
        return
    precision = getattr(arguments, "precision", asked)
    if asked not in ("no", precision):
        raise UserError(
            f"accelerate launch: mixed_precision={asked} differs from --precision {precision}, which counts; leave "
            "mixed_precision out"
        )
    if count_processes() == 1:
        _warn_of_one_process()


def _warn_of_one_process() -> None:
    from bimodal_cl.config.checks.launch import read_launcher_flags

    number = read_launcher_flags().get("num_processes", "1")
    if number.isdigit() and int(number) > 1:
        warnings.warn(
            f"accelerate launch: num_processes={number}, but with --cpu it starts one, which does all the work; "
            "--multi_gpu in place of --cpu starts several, also without a GPU",
            stacklevel=2,
        )


if __name__ == "__main__":
    sys.exit(main())
