"""The program ``bimodal-eval``: score models, show what a run learned, and export models."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from functools import partial

from bimodal_cl.cli.exit_status import with_exit_status
from bimodal_cl.cli.sub_commands import Command, CommandGroup

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
    "report": ("report.command", "write a run's report.html"),
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
    return COMMANDS.run("bimodal-eval", argv)


if __name__ == "__main__":
    sys.exit(main())
