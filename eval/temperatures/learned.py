"""Read the temperatures that a run learned, one for each image and each text, from its newest checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bimodal_cl.errors import UserError
from bimodal_cl.losses.module.keywords import read_settings
from bimodal_cl.losses.module.registry import LOSS_SETTINGS

from ..trained_run import TrainedRun

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
Kind = Literal["image", "text"]


@dataclass(frozen=True)
class LearnedTemperatures:
    """The temperatures of one modality's visited ids.

    Attributes:
        ids: int64 ``[visited]``, ascending.
        tau: float64 ``[visited]``, > 0.
        num_ids: size of the table, never visited ids included.
        tau_min, tau_max: the loss's bounds, if it has any.
        log_u: float64 ``[visited]``, the estimate of the loss that a temperature follows; None where the loss has none.
    """

    ids: np.ndarray
    tau: np.ndarray
    num_ids: int
    tau_min: float | None = None
    tau_max: float | None = None
    log_u: np.ndarray | None = None

    @property
    def num_never_visited(self) -> int:
        """Number of ids without a temperature of their own yet."""
        return self.num_ids - len(self.ids)

    @property
    def num_at_min(self) -> int:
        """Number of ids at the lower bound."""
        return 0 if self.tau_min is None else int((self.tau <= self.tau_min * (1 + 1e-4)).sum())

    @property
    def num_at_max(self) -> int:
        """Number of ids at the upper bound."""
        return 0 if self.tau_max is None else int((self.tau >= self.tau_max * (1 - 1e-4)).sum())

    def quantiles(self) -> dict[float, float]:
        """Return the values at ``QUANTILES``; empty when no id was visited."""
        if not len(self.tau):
            return {}
        return dict(zip(QUANTILES, np.quantile(self.tau, QUANTILES).tolist(), strict=True))

    def largest(self, count: int) -> list[tuple[int, float]]:
        """Return the ``count`` largest as ``(id, tau)``, largest first; equal ones by id."""
        order = np.lexsort((self.ids, -self.tau))[:count]
        return list(zip(self.ids[order].tolist(), self.tau[order].tolist(), strict=True))

    def smallest(self, count: int) -> list[tuple[int, float]]:
        """Return the ``count`` smallest as ``(id, tau)``, smallest first; equal ones by id."""
        order = np.lexsort((self.ids, self.tau))[:count]
        return list(zip(self.ids[order].tolist(), self.tau[order].tolist(), strict=True))

    def by_id(self) -> np.ndarray:
        """Return all temperatures by id, ``[num_ids]``, NaN where never visited."""
        values = np.full(self.num_ids, np.nan)
        values[self.ids] = self.tau
        return values


def learned_temperatures(run: TrainedRun, kind: Kind) -> LearnedTemperatures | None:
    """Return a modality's temperatures from the newest checkpoint; ``None`` if the loss has none for each id.

    The loss says how they follow from its tables: see
    :meth:`~bimodal_cl.losses.rules.base.LossSettings.own_tau`.

    Keys of ``config.yaml`` that this version does not know are left out.

    Raises:
        UserError: this version has no such loss, or a value that it refuses.
    """
    prefix = f"{kind}_anchors."
    columns = {
        name.removeprefix(prefix): column.astype(np.float64)
        for name, column in run.tables.items()
        if name.startswith(prefix)
    }
    if not columns:
        return None
    known = LOSS_SETTINGS[run.loss["name"]].model_fields if run.loss["name"] in LOSS_SETTINGS else run.loss
    try:
        settings = read_settings(**{key: value for key, value in run.loss.items() if key in known})
    except ValueError as error:
        raise UserError(f"{run.folder.config}: loss: {error}") from None
    tau = settings.own_tau(kind, columns)
    if tau is None or tau.ndim != 1:
        return None
    visited = np.isfinite(tau)
    if "log_u" in columns:
        visited &= ~np.isneginf(columns["log_u"])
    return LearnedTemperatures(
        ids=np.flatnonzero(visited),
        tau=tau[visited],
        num_ids=len(tau),
        tau_min=run.loss.get("tau_min"),
        tau_max=run.loss.get("tau_max"),
        log_u=columns["log_u"][visited] if "log_u" in columns else None,
    )


def require_temperatures(run: TrainedRun) -> tuple[LearnedTemperatures, LearnedTemperatures]:
    """Return ``(images', texts')`` temperatures.

    Raises:
        UserError: there is no checkpoint, or the loss learns none for each image and text.
    """
    if run.checkpoint is None:
        raise UserError(f"{run.path}: no checkpoint yet, so no temperatures")
    images, texts = learned_temperatures(run, "image"), learned_temperatures(run, "text")
    if images is None or texts is None:
        last = run.training[-1] if run.training else {}
        now = f" (tau {last['tau_image']:.4g} at step {last['step']})" if "tau_image" in last else ""
        raise UserError(
            f"{run.path}: loss '{run.loss['name']}' keeps one temperature for all pairs{now}, "
            "not one for each image and text"
        )
    return images, texts
