"""Stop the run, or leave the step out, where features or gradients are not finite, and say where they came from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from accelerate.utils import gather_object
from torch import Tensor, nn

from bimodal_cl.distributed import rank
from bimodal_cl.errors import RunStopped
from bimodal_cl.losses.module.batch_checks import find_bad_rows
from bimodal_cl.run_log import RunLog
from bimodal_cl.training.encoded_batch import EncodedBatch

_SHOWN = 5


class NonFiniteSteps:
    """Counts the steps whose features or gradients were not finite; all ranks meet them in the same steps.

    Such a step changes neither the weights nor the optimizer's state. Where the features are not finite, it changes
    neither the loss's tables nor the running statistics of batch norms; where only the gradient is not, the features
    and the loss were sound, and so is what tables and statistics have taken from them.

    Args:
        skip: leave such steps out instead of stopping.
        most_in_a_row: stop after so many steps in a row that were left out, because the run has diverged.

    Attributes:
        total: such steps so far.
        name_image: ``image_id -> its shard and row`` or the like, for the message.
    """

    def __init__(self, skip: bool, most_in_a_row: int) -> None:
        self._skip, self._most_in_a_row = skip, most_in_a_row
        self.total, self._in_a_row = 0, 0
        self.name_image: Callable[[int], str] = str

    def end(self) -> None:
        """Note that a step was sound."""
        self._in_a_row = 0

    def meet_features(self, log: RunLog, step: int, encoded: EncodedBatch, image_ids: Tensor, text_ids: Tensor) -> None:
        """Leave a step out whose features are not finite; every rank calls this with its part of the batch.

        Args:
            log: gets a line.
            step: the step's number, from 1.
            encoded: the features.
            image_ids, text_ids: ``[batch]``.

        Raises:
            RunStopped: the run is to stop; the message names ranks and samples.
        """
        encoded.revoke()
        images, texts = find_bad_rows(encoded.image_features), find_bad_rows(encoded.text_features)
        self._meet(log, step, "features", image_ids[images], text_ids[texts])

    def meet_overflow(self, step: int) -> None:
        """Note a step that the gradient scaler of fp16 has left out: its way to find a scale, unless it never ends.

        Raises:
            RunStopped: too many in a row.
        """
        self._in_a_row += 1
        self._stop_if_diverged(f"step {step}: the gradient is not finite in fp16, at any scale so far")

    def meet_gradient(
        self, log: RunLog, step: int, parts: Iterable[nn.Module], image_ids: Tensor, text_ids: Tensor
    ) -> None:
        """Leave a step out whose gradient is not finite; every rank calls this with its part of the batch.

        The gradient is a mean over the global batch, so all its samples are listed.

        Args:
            log, step: as in :meth:`meet_features`.
            parts: the modules whose parameters are trained: model and loss.
            image_ids, text_ids: ``[batch]``.

        Raises:
            RunStopped: the run is to stop.
        """
        named = [pair for part in parts for pair in part.named_parameters()]
        bad = [name for name, parameter in named if _is_bad(parameter.grad)]
        self._meet(log, step, "gradient", image_ids, text_ids, parameters=bad)

    def _meet(
        self, log: RunLog, step: int, what: str, image_ids: Tensor, text_ids: Tensor, parameters: Iterable[str] = ()
    ) -> None:
        mine = {"rank": rank(), "image_ids": image_ids.tolist(), "text_ids": text_ids.tolist()}
        ranks = [each for each in gather_object([mine]) if each["image_ids"] or each["text_ids"]]
        names = list(parameters)
        log.write(
            {
                "event": "non_finite",
                "step": step,
                "what": what,
                "ranks": ranks,
                **({"parameters": names} if names else {}),
            }
        )
        line = f"step {step}: the {self._describe(what, ranks, names)}"
        self.total, self._in_a_row = self.total + 1, self._in_a_row + 1
        if not self._skip:
            raise RunStopped(
                f"{line}; metrics.jsonl lists them; lower optim.learning_rate, or set train.non_finite=skip"
            )
        self._stop_if_diverged(line)
        log.say(f"{line}; the step is left out ({self.total} so far)")

    def _stop_if_diverged(self, line: str) -> None:
        if self._in_a_row >= self._most_in_a_row:
            raise RunStopped(f"{line}; it is the last of {self._in_a_row} such steps in a row (train.max_non_finite)")

    def _describe(self, what: str, ranks: list[dict[str, Any]], names: list[str]) -> str:
        if what == "gradient":
            return f"gradient is not finite, of {_few(names)}, from the samples of the whole batch"
        found = []
        for each in ranks:
            images = _few([self.name_image(image_id) for image_id in each["image_ids"]])
            texts = _few([str(text_id) for text_id in each["text_ids"]])
            found.append(f"rank {each['rank']}: images {images or 'none'}, text ids {texts or 'none'}")
        return f"features are not finite on {'; '.join(found)}"


def _few(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(islice(names, _SHOWN)) + (f" and {more} more" if more > 0 else "")


def _is_bad(gradient: Tensor | None) -> bool:
    return gradient is not None and not bool(gradient.isfinite().all())
