"""Calibration against its definition, written out, and against labels drawn from known probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bimodal_cl.metrics.calibration import (
    LARGEST_TAU,
    SMALLEST_TAU,
    calibration_gaps,
    confidences,
    expected_calibration_error,
    fit_tau,
    reliability_bins,
)


def softmax(sims, tau):
    shares = np.exp(np.asarray(sims, dtype=np.float64) / tau)
    return shares / shares.sum(axis=1, keepdims=True)


def negative_log_likelihood(sims, targets, tau):
    return -np.log(softmax(sims, tau)[np.arange(len(targets)), targets]).mean()


def error_by_definition(confidence, hits, num_bins=15):
    """Sum over bins (m - 1)/M < confidence <= m/M."""
    total = 0.0
    for m in range(1, num_bins + 1):
        here = (confidence > (m - 1) / num_bins) & (confidence <= m / num_bins)
        if here.any():
            total += here.sum() / len(confidence) * abs(hits[here].mean() - confidence[here].mean())
    return total


def draw(num_images, num_classes, tau, seed=0):
    """Draw similarities, and classes by their softmax at a temperature."""
    rng = np.random.default_rng(seed)
    sims = rng.uniform(-1, 1, (num_images, num_classes))
    targets = np.array([rng.choice(num_classes, p=row) for row in softmax(sims, tau)])
    return sims, targets


def test_the_error_equals_its_definition():
    rng = np.random.default_rng(1)
    for num_images in (1, 7, 500):
        confidence, hits = rng.uniform(1e-6, 1, num_images), rng.random(num_images) < 0.6
        bins = reliability_bins(confidence, hits)
        expected = error_by_definition(confidence, hits)
        assert expected_calibration_error(bins) == pytest.approx(expected, rel=1e-12)
        assert calibration_gaps(confidence, hits).mean() == pytest.approx(expected, rel=1e-12)
        assert sum(each.count for each in bins) == num_images


def test_bins_worked_out_by_hand():
    confidence = np.array([0.2, 0.4, 0.5, 0.99, 1.0])
    hits = np.array([True, False, True, True, True])
    low, second, middle, high = reliability_bins(confidence, hits, num_bins=5)
    assert (low.low, low.high, low.count, low.confidence, low.accuracy) == (0.0, 0.2, 1, 0.2, 1.0)
    assert (second.low, second.high, second.count, second.accuracy) == (0.2, 0.4, 1, 0.0)
    assert (middle.low, middle.high, middle.count) == (0.4, 0.6, 1)
    assert high.count == 2 and high.confidence == pytest.approx(0.995) and high.accuracy == 1.0


def test_confidence_is_the_largest_probability():
    sims = np.random.default_rng(2).uniform(-1, 1, (50, 9)).astype(np.float32)
    for tau in (0.01, 0.07, 5.0):
        assert confidences(sims, tau) == pytest.approx(softmax(sims, tau).max(axis=1), rel=1e-6)
    assert confidences(np.zeros((2, 4), dtype=np.float32), 0.01) == pytest.approx([0.25, 0.25])


def test_the_fitted_temperature_has_the_smallest_loss():
    sims, targets = draw(400, 5, tau=0.3)
    fitted = fit_tau(sims, targets)
    grid = np.exp(np.linspace(math.log(0.05), math.log(5), 2000))
    losses = [negative_log_likelihood(sims, targets, tau) for tau in grid]
    assert fitted == pytest.approx(grid[np.argmin(losses)], rel=5e-3)
    assert negative_log_likelihood(sims, targets, fitted) <= min(losses)


def test_the_temperature_that_drew_the_labels_is_found_and_calibrates():
    for tau in (0.05, 0.5):
        sims, targets = draw(20_000, 6, tau, seed=3)
        assert fit_tau(sims, targets) == pytest.approx(tau, rel=0.03)
        hits = sims.argmax(axis=1) == targets
        assert expected_calibration_error(reliability_bins(confidences(sims, tau), hits)) < 0.015
        assert expected_calibration_error(reliability_bins(confidences(sims, tau / 4), hits)) > 0.03


def test_temperatures_without_a_minimum_are_bounds():
    sims = np.eye(3)
    assert fit_tau(sims, np.array([0, 1, 2])) == SMALLEST_TAU
    assert fit_tau(sims, np.array([1, 2, 0])) == LARGEST_TAU
    assert fit_tau(np.zeros((3, 3)), np.array([0, 1, 2])) == LARGEST_TAU


def test_neither_the_order_of_images_nor_blocks_change_a_digit(monkeypatch):
    sims, targets = draw(300, 7, tau=0.2, seed=4)
    order = np.random.default_rng(5).permutation(300)
    fitted = fit_tau(sims, targets)
    assert fit_tau(sims[order], targets[order]) == fitted
    before = confidences(sims, fitted)
    monkeypatch.setattr("bimodal_cl.metrics.calibration._BLOCK_ELEMENTS", 7 * 11)
    assert fit_tau(sims, targets) == fitted
    assert (confidences(sims[order], fitted) == before[order]).all()
    hits = sims.argmax(axis=1) == targets
    moved = reliability_bins(before[order], hits[order])
    assert moved == reliability_bins(before, hits)
