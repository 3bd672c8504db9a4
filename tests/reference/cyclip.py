"""CyCLIP (Goel et al., NeurIPS 2022): squared differences between similarities that should be equal."""

from __future__ import annotations

import numpy as np


def compute_cyclic_terms(
    images: np.ndarray, texts: np.ndarray, lambda_in_modal: float, lambda_cross_modal: float
) -> tuple[float, np.ndarray, np.ndarray]:
    """``1/B sum_jk`` of ``(x_j x_k - y_j y_k)^2`` and of ``(x_j y_k - x_k y_j)^2``, weighted, over all pairs of pairs.

    Returns:
        The weighted sum and its gradients in the image and in the text features.
    """
    num_pairs = len(images)
    loss, image_grad, text_grad = 0.0, np.zeros_like(images), np.zeros_like(texts)
    for j in range(num_pairs):
        for k in range(num_pairs):
            in_modal = float(np.dot(images[j], images[k]) - np.dot(texts[j], texts[k]))
            cross_modal = float(np.dot(images[j], texts[k]) - np.dot(images[k], texts[j]))
            loss += (lambda_in_modal * in_modal**2 + lambda_cross_modal * cross_modal**2) / num_pairs
            in_slope = 2.0 * lambda_in_modal * in_modal / num_pairs
            cross_slope = 2.0 * lambda_cross_modal * cross_modal / num_pairs
            image_grad[j] += in_slope * images[k] + cross_slope * texts[k]
            image_grad[k] += in_slope * images[j] - cross_slope * texts[j]
            text_grad[j] += -in_slope * texts[k] - cross_slope * images[k]
            text_grad[k] += -in_slope * texts[j] + cross_slope * images[j]
    return loss, image_grad, text_grad
