"""The numbers of a run: its length, its batch, and how often it logs, evaluates and saves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RunSettings:
    """The numbers of a run: its length, its batch, and how often it logs, evaluates and saves.

    Args:
        num_steps: optimizer steps of the whole training.
        steps_per_epoch: optimizer steps of an epoch.
        global_batch_size: pairs of a step over all ranks and micro-batches.
        accumulate_features: micro-batches that each rank encodes one after another, under one loss.
        seed: of dropout, together with step and rank.
        log_every: steps between lines of the log.
        evaluate_every: steps between evaluations.
        checkpoint_every: steps between checkpoints.
        keep_last: how many of the newest checkpoints are kept.
        best: the score that marks the best checkpoint, or None.
        max_grad_norm: bound of the gradient's norm, or None.
        ema_decay: decay of the averaged weights, or None: there are none.
        ema_warmup: whether that decay is smaller at first.
        ema_evaluate: whether the averaged weights are scored as well.
    """

    num_steps: int
    steps_per_epoch: int
    global_batch_size: int
    accumulate_features: int
    seed: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    keep_last: int
    best: str | None
    max_grad_norm: float | None
    ema_decay: float | None = None
    ema_warmup: bool = True
    ema_evaluate: bool = False

    def is_logged(self, step: int) -> bool:
        """Return whether the log has a line after so many optimizer steps: every ``log_every``, and the last."""
        return step % self.log_every == 0 or step == self.num_steps
