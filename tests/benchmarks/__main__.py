"""List and run the benchmarks: ``python -m tests.benchmarks [NAME [options]]``.

Without a name, the list is printed and then every benchmark runs with its defaults. To add one: a module of this
folder with ``add_arguments(parser)`` and ``run(arguments)``, and its line in ``BENCHMARKS``.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

from bimodal_cl.cli.exit_status import with_exit_status
from bimodal_cl.cli.parser import Parser
from tests.benchmarks.measure.machine import describe_load, describe_machine

BENCHMARKS = {
    "losses": "forward and backward of every loss: time and peak memory, against other projects",
    "state": "what the per-anchor tables cost: ten million anchors, a batch of 4096",
    "shards": "a million samples in a hundred shards: index against tar tf, and time to the middle of an epoch",
    "decoders": "from a JPEG's bytes to a resized crop, by library",
    "loader": "samples a second of our loader and of open_clip's, and where our time goes",
    "training": "the whole training command and open_clip's: pairs a second, and where the time of a step goes",
    "step": "what the trainer adds to the time of model, loss and optimizer",
    "features": "training heads on encoded features: pairs a second, of the stream alone and of whole steps",
    "retrieval_memory": "retrieval among 25,000 images and 125,000 captions: peak memory, and equality with the matrix",
    "clip_benchmark": "scores of three data sets and their time, by our evaluator and by CLIP_benchmark",
}
_FOLDERS = {
    "training": "training.against_open_clip",
    "step": "training.step_overhead",
    "features": "training.features",
    "retrieval_memory": "retrieval.memory",
    "clip_benchmark": "clip_benchmark.command",
}  # of the benchmarks that are not modules of this folder


@with_exit_status
def main(argv: Sequence[str]) -> None:
    """Parse the command line and run what it names."""
    parser = Parser(prog="tests.benchmarks", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="benchmark", metavar="NAME")
    parsers = {}
    for name, summary in BENCHMARKS.items():
        parsers[name] = commands.add_parser(name, help=summary, description=summary)
        parsers[name].add_argument("--threads", type=int, help="CPU threads (default: every CPU of this process)")
        parsers[name].add_argument("--quick", action="store_true", help="tiny sizes, to see whether it runs")
        _module(name).add_arguments(parsers[name])
    arguments = parser.parse_args(argv)
    if arguments.benchmark is not None:
        _run(arguments.benchmark, arguments)
        return
    for name, summary in BENCHMARKS.items():
        print(f"{name:16} {summary}")
    for name in BENCHMARKS:
        print()
        _run(name, parsers[name].parse_args([]))


def _run(name: str, arguments: argparse.Namespace) -> None:
    print(describe_machine(arguments.threads), flush=True)
    _module(name).run(arguments)
    print(f"load at the end: {describe_load()}", flush=True)


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"tests.benchmarks.{_FOLDERS.get(name, name)}")


if __name__ == "__main__":
    sys.exit(main())
