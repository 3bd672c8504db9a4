"""Optimizers with named parameter groups, and their learning rates as functions of the step."""

from bimodal_cl.optim.groups import DECAYED, MATRICES, NOT_DECAYED, TEMPERATURE, Part, split_parts
from bimodal_cl.optim.optimizers import build_optimizer
from bimodal_cl.optim.schedule import compute_learning_rate, compute_learning_rates, rates_by_part, read_peaks

__all__ = [
    "DECAYED",
    "MATRICES",
    "NOT_DECAYED",
    "TEMPERATURE",
    "Part",
    "build_optimizer",
    "compute_learning_rate",
    "compute_learning_rates",
    "rates_by_part",
    "read_peaks",
    "split_parts",
]
