"""Fit a linear classifier to features: L2-regularized logistic regression, by L-BFGS in float64.

With the features ``x_i``, the objective is that of scikit-learn's ``LogisticRegression`` for ``C = 1 / l2``:

    sum_i loss(W x_i + b, y_i) + l2 / 2 * ||W||^2

The loss is the cross-entropy of a softmax over the classes, or, for images with several classes, the sum of the binary
cross-entropies of all classes ("one versus rest"). The bias is not regularized. The solver is SciPy's L-BFGS-B, which
is scikit-learn's too, while torch computes the objective on the features' device. It stops at a gradient of
``TOLERANCE`` per image. Scikit-learn's own tolerance, 1e-4, is made for features of unit variance: on unit-norm
features with little regularization it stops long before the optimum.

For two classes, the softmax has a weight vector for each class, so it equals scikit-learn's binary form at ``l2 / 2``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

MAX_ITERATIONS = 1000
TOLERANCE = 1e-7
_BLOCK_ELEMENTS = 2**24  # of logits in memory


@dataclass(frozen=True)
class LinearClassifier:
    """A fitted classifier.

    Attributes:
        weight: float64 ``[classes, dim]``.
        bias: float64 ``[classes]``.
        l2: the strength of the regularization.
        iterations: of the solver.
        converged: whether it reached the tolerance within ``MAX_ITERATIONS``.
    """

    weight: Tensor
    bias: Tensor
    l2: float
    iterations: int
    converged: bool

    def logits(self, features: Tensor) -> Tensor:
        """Return float64 ``[images, classes]`` on the CPU for features ``[images, dim]`` on any device."""
        return (as_double(features) @ self.weight.T + self.bias).cpu()


class LogisticProblem:
    """Features with their targets, to be fitted with any strength of the regularization.

    Centred and decorrelated features have the same solution, which takes the solver fewer steps, since the objective is
    curved about equally in all directions. Directions in which the features do not vary have weight 0.

    Args:
        features: ``[images, dim]``, any norm.
        targets: int64 ``[images]``, classes below ``num_classes``, each with an image; or ``[images, classes]``, 1 for
            every class that an image shows, else 0, and each class shown by an image.
        num_classes: number of classes.

    Raises:
        ValueError: a class has no image: its bias would have no optimum.
    """

    def __init__(self, features: Tensor, targets: Tensor, num_classes: int) -> None:
        values = as_double(features)
        self._targets = targets.to(values.device)
        _require_images(self._targets, num_classes)
        self._num_classes = num_classes
        self._mean = values.mean(dim=0)
        centred = values - self._mean
        if len(centred) < centred.shape[1]:
            _, spreads, rows = torch.linalg.svd(centred, full_matrices=False)
            self._variances, self._directions = spreads.square() / len(centred), rows.T
        else:
            self._variances, self._directions = torch.linalg.eigh(centred.T @ centred / len(centred))
        self._turned = centred @ self._directions

    def fit(self, l2: float, start: LinearClassifier | None = None) -> LinearClassifier:
        """Fit a classifier.

        Args:
            l2: strength of the regularization, above 0.
            start: where the solver starts; None: at 0. It matters only where the solver does not converge.

        Raises:
            ValueError: ``l2`` is not above 0.
        """
        from scipy.optimize import minimize

        if not l2 > 0:
            raise ValueError(f"l2={l2} must be above 0")
        penalty = l2 / len(self._turned)
        scales = (self._variances.clamp(min=0) / 4 + penalty).rsqrt()
        inputs = self._turned * scales  # the solver sees the rows of W directions / scales
        shape = (self._num_classes, len(scales))
        split = self._num_classes * len(scales)
        block = max(1, _BLOCK_ELEMENTS // self._num_classes)

        def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
            values = torch.from_numpy(point).to(inputs.device)
            rows, bias = values[:split].view(shape), values[split:]
            loss = penalty / 2 * (rows * scales).square().sum()
            gradient = penalty * rows * scales.square()
            bias_gradient = torch.zeros_like(bias)
            for place in range(0, len(inputs), block):
                some, targets = inputs[place : place + block], self._targets[place : place + block]
                some_loss, slopes = _loss_and_slopes(some @ rows.T + bias, targets)
                slopes /= len(inputs)
                loss += some_loss / len(inputs)
                gradient += slopes.T @ some
                bias_gradient += slopes.sum(dim=0)
            return loss.item(), torch.cat([gradient.flatten(), bias_gradient]).cpu().numpy()

        first = np.zeros(split + self._num_classes)
        if start is not None:
            rows = start.weight @ self._directions / scales
            first = torch.cat([rows.flatten(), start.bias + start.weight @ self._mean]).cpu().numpy()
        options = {"maxiter": MAX_ITERATIONS, "maxfun": 10 * MAX_ITERATIONS, "gtol": TOLERANCE, "ftol": 0.0}
        found = minimize(objective, first, jac=True, method="L-BFGS-B", options=options)
        point = torch.from_numpy(found.x).to(inputs.device)
        weight = point[:split].view(shape) * scales @ self._directions.T
        return LinearClassifier(weight, point[split:] - weight @ self._mean, l2, int(found.nit), bool(found.success))


def mean_loss(logits: Tensor, targets: Tensor) -> float:
    """Return the loss per image without the penalty; targets as in :class:`LogisticProblem`."""
    return _loss_and_slopes(logits, targets.to(logits.device))[0].item() / len(logits)


def as_double(features: Tensor) -> Tensor:
    """Return features as float64, on the CPU where their device has no float64."""
    return (features.cpu() if features.device.type == "mps" else features).double()


def _loss_and_slopes(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of the losses of some images, and its derivatives by the logits."""
    if targets.ndim == 1:
        log_shares = logits.log_softmax(dim=1)
        loss = -log_shares.gather(1, targets[:, None]).sum()
        return loss, log_shares.exp_().scatter_add_(1, targets[:, None], -torch.ones_like(logits[:, :1]))
    shown = targets.to(logits.dtype)
    return binary_cross_entropy_with_logits(logits, shown, reduction="sum"), logits.sigmoid() - shown


def _require_images(targets: Tensor, num_classes: int) -> None:
    counts = torch.bincount(targets, minlength=num_classes) if targets.ndim == 1 else targets.sum(dim=0)
    if len(counts) != num_classes or (counts == 0).any():
        empty = (counts[:num_classes] == 0).nonzero().flatten().tolist()
        raise ValueError(f"targets must show each of {num_classes} classes and no other; classes without one: {empty}")
