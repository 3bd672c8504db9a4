"""iSogCLR: every image anchor and every text anchor keeps and learns its own temperature."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from jaxtyping import Float
from pydantic import Field, model_validator

from bimodal_cl.losses.rules.base import Anchors, AnchorStep, Direction, Tensor, refuse_unused
from bimodal_cl.losses.rules.moving_average import Gamma, GammaSchedule, GammaWarmup, estimate_loss
from bimodal_cl.losses.rules.radius import KLRadius, Rho, RhoFraction
from bimodal_cl.losses.rules.tau_descent import Adam, Momentum, StepSize
from bimodal_cl.settings import BelowOne, NotNegative, Positive, Weight

MAX_TAU_GRADIENT = 5.0


class ISogCLR(KLRadius):
    """iSogCLR (Qiu et al., ICML 2023, algorithm 1) over image-text pairs: every anchor learns its own temperature.

    Loss of anchor i: ``tau_i * log u_i + tau_i * rho``; weight of its margin's gradient: ``tau_i * g_i / u_i``. The
    temperature solves a distributionally robust problem with KL radius ``rho`` over the anchor's negatives:

        G_i      = log_u_i + rho - (g_i/u_i) * e_i                   derivative of the loss in tau_i
        tau_grad <- (1-beta) * tau_grad + beta * clip(G_i, -5, 5)
        tau_i    <- clip(tau_i - eta * tau_grad, tau_min, tau_max)

    with the updated ``log_u`` (:mod:`bimodal_cl.losses.rules.moving_average`). A step's loss uses the temperature from
    before its update. A frequent meaning has many near negatives, hence a large temperature; a rare meaning has a
    small one. The step size and its schedules are those of :class:`~bimodal_cl.losses.rules.tau_descent.StepSize`.

    With ``tau_optimizer="adam"`` and ``gamma_schedule="cosine"`` this is FastCLIP-v2 (arXiv 2407.01445), with ``eta``
    0.0133: the clipped gradient goes through :class:`~bimodal_cl.losses.rules.tau_descent.Adam` instead. (The authors'
    code leaves the factor ``tau_i`` out of the margin's weight there; here it is the derivative of the loss above.)

    Raises:
        ValueError: a value out of range, bounds that do not enclose ``tau_init``, or a value without effect.
    """

    name: Literal["isogclr"]
    tau_init: Positive = Field(0.01, description="initial temperature of every image and text")
    tau_min: Positive = Field(0.005, description="lower bound of the temperatures")
    tau_max: Positive = Field(1.0, description="upper bound of the temperatures")
    gamma: Gamma = 0.8
    gamma_schedule: GammaSchedule = "constant"
    gamma_warmup: GammaWarmup = 0.0
    rho: Rho = 6.0
    rho_fraction: RhoFraction = None
    beta: Weight = Field(0.9, description="weight of the new temperature gradient")
    eta: Positive = Field(0.03, description="step size of the temperatures")
    eta_schedule: Literal["constant", "cosine", "exp"] = Field(
        "constant", description="how eta falls over the training"
    )
    eta_min: NotNegative = Field(1e-4, description="cosine, exp: the limit that eta falls to")
    eta_decay: Weight = Field(0.00124, description="exp: share of eta - eta_min that is left at the end")
    eta_warmup: BelowOne = Field(0.0, description="share of the training in which eta rises from 0, linearly")
    tau_optimizer: Literal["momentum", "adam"] = Field(
        "momentum", description="update rule of the temperatures (FastCLIP-v2: adam)"
    )
    adam_beta1: BelowOne = Field(0.9, description="adam: weight of the old mean gradient")
    adam_beta2: BelowOne = Field(0.999, description="adam: weight of the old mean square")
    adam_eps: Positive = Field(1e-8, description="adam: added to the denominator")

    @model_validator(mode="after")
    def _check(self) -> ISogCLR:
        if self.tau_min > self.tau_max:
            raise ValueError(f"tau_min={self.tau_min} must not exceed tau_max={self.tau_max}")
        if not self.tau_min <= self.tau_init <= self.tau_max:
            raise ValueError(
                f"tau_init={self.tau_init} must be between tau_min={self.tau_min} and tau_max={self.tau_max}"
            )
        if self.tau_optimizer == "adam":
            refuse_unused(self, "tau_optimizer='adam' (whose weights are adam_beta1, adam_beta2)", "beta")
        else:
            refuse_unused(self, "tau_optimizer='momentum'", "adam_beta1", "adam_beta2", "adam_eps")
        if self.eta_schedule == "constant":
            refuse_unused(self, "eta_schedule='constant'", "eta_min", "eta_decay")
        elif self.eta_min > self.eta:
            raise ValueError(f"eta_min={self.eta_min} must not exceed eta={self.eta}")
        if self.eta_schedule == "cosine":
            refuse_unused(self, "eta_schedule='cosine'", "eta_decay")
        return self

    @property
    def step_size(self) -> StepSize:
        """The step size of the temperatures."""
        return StepSize(self.eta, self.eta_schedule, self.eta_min, self.eta_decay, self.eta_warmup)

    @property
    def descent(self) -> Momentum | Adam:
        """The rule that turns a gradient into the direction of a step."""
        if self.tau_optimizer == "adam":
            return Adam(self.adam_beta1, self.adam_beta2, self.adam_eps)
        return Momentum(self.beta)

    def concerns(self) -> Iterator[str]:
        """Say which settings have no effect."""
        yield from super().concerns()
        if self.tau_min == self.tau_max:
            yield (
                f"tau_min=tau_max={self.tau_min}: no temperature can move, so eta, rho and beta have no effect on "
                "them; widen the bounds, or use sogclr"
            )
        yield from self.step_size.concerns()

    def scheduled(self) -> tuple[str, ...]:
        """Return those of ``gamma`` and ``eta`` that have a schedule or a warm-up."""
        return super().scheduled() + self.step_size.scheduled

    def table_columns(self) -> dict[str, float]:
        """Return ``log_u``, ``tau`` and the state of the temperatures' update rule."""
        return {**super().table_columns(), "tau": self.tau_init, **self.descent.columns}

    def temperature(self, anchors: Anchors) -> Float[Tensor, "anchors 1"]:
        """Return the anchors' own temperatures, from before this step's update."""
        return anchors.occurrences.gather("tau")

    def anchor_losses(self, direction: Direction) -> AnchorStep:
        """Return ``tau_i * (log u_i + rho)`` and the new ``log_u``, ``tau`` and averages of its gradient."""
        occurrences, old = direction.occurrences, direction.columns
        log_u = self.update_log_u(direction)
        log_u_of_anchor = occurrences.to_local(log_u, missing=0.0)
        losses, ratio = estimate_loss(direction, log_u_of_anchor)
        rho = self.radius_of(direction.margins.num_negatives)
        gradient = occurrences.mean(log_u_of_anchor + rho - ratio * direction.margins.tau_slope)
        step, averages = self.descent(gradient.clamp(-MAX_TAU_GRADIENT, MAX_TAU_GRADIENT), old)
        tau = (old["tau"] - self.step_size.at(direction.progress) * step).clamp(self.tau_min, self.tau_max)
        columns = {"log_u": log_u, "tau": tau, **averages}
        return AnchorStep(losses + direction.tau * rho, columns, {"log_u": log_u_of_anchor})
