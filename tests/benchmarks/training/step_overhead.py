"""Measure what a step of the trainer costs beyond its model and loss, on the CPU.

The bare step is the least that trains: features, loss, backward pass, optimizer step, of the same model, loss and
optimizer on the same batch. The trainer's step is :meth:`Trainer.step`, and a log line's values count with
``1 / log_every`` of their time. They take turns step by step, so that a disturbance hits both; the overhead is the
median of the differences of neighbours. Reading data is not part of either.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import Accelerator

from bimodal_cl.losses import build_loss
from bimodal_cl.models import build_model
from bimodal_cl.optim import DECAYED, NOT_DECAYED, build_optimizer
from bimodal_cl.run_folder import RunFolder
from bimodal_cl.trainer import Trainer
from bimodal_cl.training.run_settings import RunSettings
from bimodal_cl.training.seen_data import SeenData
from bimodal_cl.training.step_values import StepValues
from tests.benchmarks.measure.machine import num_threads
from tests.benchmarks.measure.table import format_table
from tests.benchmarks.measure.timing import describe_range, describe_time, time_in_turn
from tests.benchmarks.training.against_open_clip import MODELS

NUM_SAMPLES = 100_000  # rows of a loss's tables
LEARNING_RATE = 1e-4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["small"], help="sizes of the model")
    parser.add_argument("--losses", nargs="+", default=["clip", "isogclr"], help="of the step")
    parser.add_argument("--batch-size", type=int, default=128, help="pairs of a step")
    parser.add_argument("--log-every", type=int, default=10, help="steps between log lines")
    parser.add_argument("--rounds", type=int, default=30, help="steps of each kind")


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    if arguments.quick:
        arguments.models, arguments.batch_size, arguments.rounds = ["tiny"], 4, 3
    torch.set_num_threads(num_threads(arguments.threads))
    print(f"\nsteps of {arguments.batch_size} pairs; medians of {arguments.rounds}")
    rows = []
    for model in arguments.models:
        for loss in arguments.losses:
            bare, ours, line = measure(model, loss, arguments)
            median = statistics.median(bare)
            beyond = statistics.median(b - a for a, b in zip(bare, ours, strict=True))
            logged = statistics.median(line) / arguments.log_every
            overhead = (beyond + logged) / median
            name = f"{model}, {loss}"
            rows.append([name, *describe_range(bare), *describe_range(ours), describe_time(logged), f"{overhead:.1%}"])
    print(format_table(["model, loss", "bare", "range", "trainer", "range", "log a step", "overhead"], rows))


def start_trainer(model: Any, loss: Any, optimizer: torch.optim.Optimizer, batch_size: int) -> Trainer:
    """Return a trainer on the CPU that has started, and that neither logs, nor evaluates, nor saves."""
    settings = RunSettings(
        num_steps=10**6,
        steps_per_epoch=1000,
        global_batch_size=batch_size,
        accumulate_features=1,
        seed=0,
        log_every=10**6,
        evaluate_every=10**6,
        checkpoint_every=10**6,
        keep_last=1,
        best=None,
        max_grad_norm=None,
    )
    nothing: Any = None
    trainer = Trainer(
        accelerator=Accelerator(cpu=True),
        model=model,
        loss=loss,
        optimizer=optimizer,
        open_stream=nothing,
        learning_rates_at=lambda step: dict.fromkeys((DECAYED, NOT_DECAYED), LEARNING_RATE),
        evaluate=nothing,
        settings=settings,
        folder=RunFolder(Path("not-written")),
        trackers=nothing,
        identity={},
    )
    trainer.start()
    return trainer


def measure(size: str, loss_name: str, arguments: argparse.Namespace) -> tuple[list[float], ...]:
    """Return the seconds of bare steps, of the trainer's, and of a log line's values."""
    torch.manual_seed(0)
    batch_size, spelled = arguments.batch_size, MODELS[size]
    model = build_model(**spelled).to(memory_format=torch.channels_last).train()
    hyper = {} if loss_name == "clip" else {"rho": 6.0}
    loss = build_loss(loss_name, num_images=NUM_SAMPLES, num_texts=NUM_SAMPLES, **hyper)
    optimizer = build_optimizer(model, loss.parameters(), learning_rate=LEARNING_RATE, weight_decay=0.1)
    trainer = start_trainer(model, loss, optimizer, batch_size)
    side, tokens = spelled["image_size"], spelled["text"]["context_length"]
    batch: Any = SimpleNamespace(
        images=torch.randint(256, (batch_size, 3, side, side), dtype=torch.uint8),
        tokens=torch.randint(1, 49_000, (batch_size, tokens)),
        image_ids=torch.arange(batch_size),
        text_ids=torch.arange(batch_size),
    )
    stream: Any = SimpleNamespace(seconds={"wait": 0.0}, mixture=SimpleNamespace(names=["one"]))
    values = StepValues(trainer.settings, trainer.learning_rates_at, stream, 0, SeenData())
    latest: list[Any] = []

    def bare() -> None:
        images = batch.images.to(memory_format=torch.channels_last)
        out = loss(*model(images, batch.tokens), batch.image_ids, batch.text_ids)
        optimizer.zero_grad(set_to_none=True)
        out.loss.backward()
        optimizer.step()

    def ours() -> None:
        latest[:] = trainer.step(batch)

    def line() -> None:
        values(trainer.steps_done, *latest)

    for _ in range(2):
        bare()
        ours()
    times = time_in_turn({"bare": bare, "ours": ours, "line": line}, arguments.rounds)
    return times["bare"], times["ours"], times["line"]
