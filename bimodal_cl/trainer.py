"""Run the training loop: optimizer steps, log, evaluation and checkpoints."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from bimodal_cl.checkpoint import CheckpointNotWritten, load_checkpoint, save_checkpoint, temperature_to_save
from bimodal_cl.data.pipeline.stream import Batch, Stream
from bimodal_cl.distributed import explain_lost_peer
from bimodal_cl.errors import RunStopped, UserError
from bimodal_cl.losses import ContrastiveLoss, LossOutput
from bimodal_cl.losses.module.batch_checks import NonFiniteFeatures
from bimodal_cl.losses.tables.anchors import gather_state
from bimodal_cl.models import DualEncoder
from bimodal_cl.models.weights.file_names import EMA_FILE
from bimodal_cl.models.weights.state_dict import read_weights
from bimodal_cl.run_folder import RunFolder, read_state
from bimodal_cl.run_log import RunLog
from bimodal_cl.training.encoded_batch import EncodedBatch, seed_generators
from bimodal_cl.training.non_finite import NonFiniteSteps
from bimodal_cl.training.run_settings import RunSettings
from bimodal_cl.training.seen_data import SeenData
from bimodal_cl.training.sharding import DataParallel, clip_gradients
from bimodal_cl.training.speed.step_parts import BACKWARD, LOSS, OPTIMIZER, part
from bimodal_cl.training.speed.switches import without_compilation
from bimodal_cl.training.step_values import StepValues
from bimodal_cl.training.stop_request import EvaluationLeft, StopRequest
from bimodal_cl.training.trackers import Trackers
from bimodal_cl.training.trained_parts import EARLIER_RUNS
from bimodal_cl.training.weight_average import WeightAverage, save_with_average


class Trainer:
    """Trains a dual encoder with a contrastive loss, on one process or on many.

    Everything a step depends on is the model, the optimizer, the loss's state and the step's number: learning rate,
    sample order, augmentation and dropout are functions of it. So a resumed run continues bit for bit.

    Args:
        accelerator: device, precision and data parallelism.
        model: the dual encoder; wrapped here.
        loss: the contrastive loss.
        optimizer: over the parameters of both.
        open_stream: ``(epoch, start_step) -> Stream`` of this rank, from there to the end of the training.
        learning_rates_at: learning rates of a step, by the name of the parameter group.
        evaluate: scores of the model by name, computed on the main process.
        settings: the run's numbers.
        folder: the run's folder.
        trackers: other places that get the logged values.
        identity: what a checkpoint must share with this run to continue it.
        spread: ``(accelerator, model, optimizer) -> DataParallel``, how they are spread over the processes.
    """

    def __init__(
        self,
        *,
        accelerator: Accelerator,
        model: DualEncoder,
        loss: ContrastiveLoss,
        optimizer: torch.optim.Optimizer,
        open_stream: Callable[[int, int], Stream],
        learning_rates_at: Callable[[int], dict[str, float]],
        evaluate: Callable[[DualEncoder], dict[str, float]],
        settings: RunSettings,
        folder: RunFolder,
        trackers: Trackers,
        identity: dict[str, Any],
        spread: Callable[..., DataParallel] = DataParallel,
    ) -> None:
        self.accelerator, self.settings, self.folder, self.identity = accelerator, settings, folder, identity
        self.encoder, self.loss = model, loss.to(accelerator.device)
        self.open_stream, self.learning_rates_at, self.evaluate_model = open_stream, learning_rates_at, evaluate
        self.trackers = trackers
        self.steps_done = 0
        self.best_score: float | None = None
        self.seen = SeenData()  # before the current stream
        self.values: StepValues | None = None  # of the current stream
        self.non_finite = NonFiniteSteps(settings.non_finite_skipped, settings.max_non_finite)
        self.stop = StopRequest(accelerator.device, announce=accelerator.is_main_process)
        self._evaluation_due = False  # it was left for a signal
        self.average: WeightAverage | None = None  # made when the model is on its device
        self._saved_average: dict[str, Tensor] | None = None
        self._optimizer, self._spread = optimizer, spread
        self._metrics: dict[str, Tensor] = {}
        self.model: nn.Module = model
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.log = RunLog(folder.metrics, settings.num_steps, enabled=False)

    def run(self) -> None:
        """Train from the current step to the end, or until a signal asks to stop: :attr:`stop` names it.

        Raises:
            RunStopped: features or a gradient that are not finite, a checkpoint that cannot be written, a lost process.
            UserError: the data cannot be used.
        """
        self.log = RunLog(
            self.folder.metrics,
            self.settings.num_steps,
            self.steps_done,
            self.accelerator.is_main_process,
            self.trackers.log,
            lossy=self.settings.write_errors_ignored,
        )
        self.start()
        if self.steps_done >= self.settings.num_steps and not self._evaluation_due:
            self.log.say(f"nothing to do: {self.steps_done} of {self.settings.num_steps} steps are done")
            self.log.close()
            return
        epoch, start_step = divmod(self.steps_done, self.settings.steps_per_epoch)
        stream = self.open_stream(epoch, start_step)
        with self.stop:  # a signal that comes again leaves the trackers time to end
            try:
                self.trackers.start(self.steps_done)
                with closing(stream.__iter__()) as batches:
                    self.values = StepValues(self.settings, self.learning_rates_at, stream, self.steps_done, self.seen)
                    self.non_finite.name_image = stream.mixture.describe
                    if self._evaluation_due:
                        self._evaluate_and_save()
                    while self.steps_done < self.settings.num_steps and not self.stop.agreed:
                        out, grad_norm = self.step(next(batches))
                        self.log.advance()
                        if out is not None and self.settings.is_logged(self.steps_done):
                            self.log.train(self.values(self.steps_done, out, grad_norm))
                        self._evaluate_and_save()
                if self.steps_done < self.settings.num_steps or self._evaluation_due:
                    return
                state = self._state()
                shards = stream.mixture.shard_faults
                self.log.write({"event": "summary", **state, "shards": shards})
                for line in SeenData(**state["data"]).lines(shards):
                    self.log.say(line)
            except RuntimeError as error:
                reason = explain_lost_peer(error)
                if reason is None:
                    raise
                raise RunStopped(f"step {self.steps_done}: {reason}") from None
            finally:
                self.log.close()
                self.trackers.finish()

    @property
    def stopped_by(self) -> str | None:
        """The signal after which :meth:`run` has ended before the training's end, such as ``"SIGTERM"``, or None."""
        done = self.steps_done == self.settings.num_steps and not self._evaluation_due
        return None if done else self.stop.agreed

    def start(self) -> None:
        """Spread the model and the optimizer over the processes and begin the average; :meth:`run` does it first."""
        self.parallel = self._spread(self.accelerator, self.encoder, self._optimizer)
        self.model, self.optimizer = self.parallel.model, self.parallel.optimizer
        self.parameters = self.parallel.parameters
        if self.settings.ema_decay is not None:
            self.average = WeightAverage(self.encoder, self.settings.ema_decay, self.settings.ema_warmup)
            self._load_average()

    def step(self, batch: Batch) -> tuple[LossOutput | None, Tensor | None]:
        """Do one optimizer step on this process's part of the global batch; no output where it had to be left out."""
        device, step = self.accelerator.device, self.steps_done
        seed_generators(device, seed_of_step(self.settings.seed, step, self.accelerator.process_index))
        learning_rates = self.learning_rates_at(step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rates[group["name"]]
        self.loss.set_progress(step / self.settings.num_steps)

        micro_batches, skips = self.settings.accumulate_features, self.settings.non_finite_skipped
        encoded = EncodedBatch(self.accelerator, self.model, batch.images, batch.tokens, micro_batches, skips)
        image_ids, text_ids = batch.image_ids.to(device), batch.text_ids.to(device)
        self.steps_done += 1
        try:
            with part(LOSS):
                out = self.loss(encoded.image_features, encoded.text_features, image_ids, text_ids)
        except NonFiniteFeatures:
            self.non_finite.meet_features(self.log, self.steps_done, encoded, image_ids, text_ids)
            return None, None
        except ValueError as error:
            raise RunStopped(f"step {step}: {error}") from None
        self.stop.exchange()  # the loss has waited for the device, so this does not
        self.optimizer.zero_grad(set_to_none=True)
        with part(BACKWARD):
            self.accelerator.backward(out.loss)
            encoded.backward()
        with part(OPTIMIZER):
            limit = self.settings.max_grad_norm  # without a limit, clipping only measures
            grad_norm = clip_gradients(self.accelerator, self.parameters, math.inf if limit is None else limit)
            if not (finite := bool(grad_norm.isfinite())) and self.accelerator.scaler is None:
                self.non_finite.meet_gradient(self.log, self.steps_done, (self.encoder, self.loss), image_ids, text_ids)
                return None, None
            self.optimizer.step()  # the scaler of fp16 leaves it out where the gradient is not finite
        self._metrics = out.metrics
        if not finite:
            self.non_finite.meet_overflow(self.steps_done)
            return out, grad_norm
        self.non_finite.end()
        if self.average is not None:
            self.average.update(self.steps_done)
        return out, grad_norm

    def evaluate(self) -> dict[str, float]:
        """Score the model, and under ``ema/`` its averaged weights; every rank gets the scores, none if it failed.

        Raises:
            EvaluationLeft: a signal asks the run to stop; on every rank.
        """
        scores = self._score()
        if scores and self.average is not None and self.settings.ema_evaluate:
            with self.average.swapped():
                averaged = self._score()
            scores = {**scores, **{f"ema/{name}": value for name, value in averaged.items()}} if averaged else {}
        return scores

    def _score(self) -> dict[str, float]:
        """Score the model on the main process while the others wait."""
        scores: list[dict[str, float] | int] = [{}]
        with self.parallel.whole_encoder(to_run=True) as encoder, without_compilation(encoder):
            if self.accelerator.is_main_process:
                try:
                    with self.stop.leaving():
                        scores = [self.evaluate_model(encoder)]
                except EvaluationLeft:
                    scores = [self.stop.noted]
                except (UserError, RunStopped, OSError) as error:  # in the validation data: the training can go on
                    self.log.write({"event": "evaluate", "step": self.steps_done, "error": str(error)})
                    self.log.say(f"step {self.steps_done}: not evaluated: {error}")
        broadcast_object_list(scores)
        if isinstance(scores[0], int):
            self.stop.agree(scores[0])
            raise EvaluationLeft
        return scores[0]

    def resume(self, checkpoint: Path) -> None:
        """Continue from a checkpoint; call it before :meth:`run`.

        Raises:
            UserError: the checkpoint is damaged, or belongs to another model, data set, batch size or seed.
        """
        state = read_state(checkpoint)
        for key, value in self.identity.items():
            saved = {**EARLIER_RUNS, **state["identity"]}.get(key)
            if saved != value:
                raise UserError(f"checkpoint {checkpoint}: {key} was {saved!r}, this config has {value!r}")
        load_checkpoint(checkpoint, load_model=self.encoder.load_weights, loss=self.loss, optimizer=self._optimizer)
        if self.settings.ema_decay is not None and (checkpoint / EMA_FILE).is_file():
            self._saved_average = read_weights(self.encoder, checkpoint / EMA_FILE)
        if self.accelerator.scaler is not None and "grad_scaler" in state:  # of a run in fp16
            self.accelerator.scaler.load_state_dict(state["grad_scaler"])
        self.steps_done, self.best_score, self.seen = state["step"], state["best_score"], SeenData(**state["data"])
        self._evaluation_due = state.get("evaluation_due", False)
        self.non_finite.total = state.get("non_finite_steps", 0)

    def _load_average(self) -> None:
        """Continue the saved average; in a new run, or one that had none, it starts from the weights."""
        if self.average is not None and self._saved_average is not None:
            self.average.load(self._saved_average)
            self._saved_average = None
        elif self.steps_done:
            self.log.say(f"ema: the checkpoint of step {self.steps_done} has no average: one starts from its weights")

    def _evaluate_and_save(self) -> None:
        step, settings = self.steps_done, self.settings
        self.stop.settle()
        begin = time.monotonic()
        last = step == settings.num_steps
        is_best = False
        self._evaluation_due = step % settings.evaluate_every == 0 or last
        if self._evaluation_due:
            with suppress(EvaluationLeft):
                scores = self.evaluate()
                self._evaluation_due = False
                is_best = self._log_scores(scores)
        if step % settings.checkpoint_every == 0 or last or is_best or self.stop.agreed:
            self._save(is_best, must_succeed=last or self.stop.agreed is not None)
        assert self.values is not None
        self.values.leave_out(time.monotonic() - begin)

    def _log_scores(self, scores: dict[str, float]) -> bool:
        """Log an evaluation, and return whether its model is the best so far."""
        step, best = self.steps_done, self.settings.best
        if not scores:
            return False
        self.log.write({"event": "evaluate", "step": step, "epoch": step / self.settings.steps_per_epoch, **scores})
        self.log.say(f"step {step}: " + "  ".join(f"{name} {value:.4g}" for name, value in scores.items()))
        if best is None:
            return False
        score = _pick(scores, best)
        is_best = self.best_score is None or score > self.best_score
        self.best_score = score if is_best else self.best_score
        return is_best

    def _save(self, is_best: bool, must_succeed: bool) -> None:
        state = self._state()
        if self.accelerator.scaler is not None:
            state["grad_scaler"] = self.accelerator.scaler.state_dict()
        # By every rank: what is sharded is put together on the main one.
        loss_state, optimizer_state = gather_state(self.loss), self.parallel.gather_optimizer()
        averages = None if self.average is None else self.average.gather()
        with self.parallel.whole_encoder() as encoder:
            if self._metrics:  # of the last step that was taken
                encoder.set_temperature(**temperature_to_save(self.loss, self._metrics))
            if not self.accelerator.is_main_process:
                return
            try:
                save_checkpoint(
                    self.folder,
                    state,
                    save_model=partial(save_with_average, encoder, averages),
                    loss_state=loss_state,
                    optimizer_state=optimizer_state,
                    keep_last=self.settings.keep_last,
                    is_best=is_best,
                )
            except CheckpointNotWritten as error:
                if must_succeed or not self.settings.write_errors_ignored:
                    raise RunStopped(f"{error}; free some space and continue with --resume latest") from error
                self.log.say(f"{error}; the run goes on, and earlier checkpoints are whole")

    def _state(self) -> dict[str, Any]:
        assert self.values is not None
        return {
            **self.values.progress(self.steps_done),
            "num_processes": self.accelerator.num_processes,
            "best_score": self.best_score,
            **({"evaluation_due": True} if self._evaluation_due else {}),
            **({"non_finite_steps": self.non_finite.total} if self.non_finite.total else {}),
            "data": dataclasses.asdict(self.values.count_data()),
            "identity": self.identity,
        }


def seed_of_step(seed: int, step: int, rank: int) -> int:
    """Return the seed of dropout in one step on one rank, a pure function, so no random state needs saving."""
    return int(torch.tensor([seed, step, rank]).mul(torch.tensor([1_000_003, 8_191, 131])).sum()) % (1 << 62)


def _pick(scores: dict[str, float], name: str) -> float:
    if name not in scores:
        raise UserError(f"checkpoint.best: no score '{name}'; valid: {', '.join(sorted(scores))}")
    return scores[name]
