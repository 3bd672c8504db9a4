"""Logistic regression, against scikit-learn's own solution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from bimodal_cl.scoring.probes import logistic
from bimodal_cl.scoring.probes.logistic import LogisticProblem
from tests.test_scoring.probes.clusters import draw_clusters


def sklearn_fit(features, targets, l2):
    model = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=20_000)
    return (model if targets.ndim == 1 else OneVsRestClassifier(model)).fit(features.double().numpy(), targets.numpy())


@pytest.mark.parametrize("l2", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("counts", [[40, 30, 50, 20], [6, 4, 5]])  # more and fewer images than dimensions
def test_equals_scikit_learn(counts, l2):
    features, targets = draw_clusters(counts)
    theirs = sklearn_fit(features, targets, l2)
    ours = LogisticProblem(features, targets, len(counts)).fit(l2)
    assert ours.converged
    np.testing.assert_allclose(ours.weight.numpy(), theirs.coef_, atol=1e-4)
    np.testing.assert_allclose(ours.bias.numpy(), theirs.intercept_, atol=1e-4)
    others, _ = draw_clusters(counts, seed=1)
    logits = ours.logits(others)
    np.testing.assert_allclose(logits.softmax(dim=1).numpy(), theirs.predict_proba(others.double().numpy()), atol=1e-4)
    assert logits.argmax(dim=1).tolist() == theirs.predict(others.double().numpy()).tolist()


def test_two_classes_equal_scikit_learns_binary_form_at_half_the_strength():
    features, targets = draw_clusters([30, 20])
    theirs = sklearn_fit(features, targets, 0.5)
    ours = LogisticProblem(features, targets, 2).fit(1.0)
    np.testing.assert_allclose((ours.weight[1] - ours.weight[0]).numpy(), theirs.coef_[0], atol=1e-4)


def test_several_classes_an_image_equal_one_versus_rest():
    features, targets = draw_clusters([30, 20, 25])
    sets = torch.nn.functional.one_hot(targets, 3) | (torch.rand(75, 3, generator=torch.manual_seed(0)) < 0.3).long()
    theirs = sklearn_fit(features, sets, 0.5)
    ours = LogisticProblem(features, sets, 3).fit(0.5)
    np.testing.assert_allclose(
        ours.weight.numpy(), np.concatenate([each.coef_ for each in theirs.estimators_]), atol=1e-4
    )


def test_the_start_the_order_of_images_and_blocks_do_not_matter(monkeypatch):
    features, targets = draw_clusters([40, 30, 50])
    problem = LogisticProblem(features, targets, 3)
    first = problem.fit(0.5)
    again = problem.fit(0.5)
    assert torch.equal(first.weight, again.weight) and torch.equal(first.bias, again.bias)
    near = problem.fit(0.5, start=problem.fit(0.05))
    torch.testing.assert_close(near.weight, first.weight, atol=1e-4, rtol=0)
    monkeypatch.setattr(logistic, "_BLOCK_ELEMENTS", 100)
    order = torch.randperm(120, generator=torch.manual_seed(0))
    turned = LogisticProblem(features[order], targets[order], 3).fit(0.5)
    torch.testing.assert_close(turned.weight, first.weight, atol=1e-4, rtol=0)


def test_a_class_without_images_and_no_regularization_are_refused():
    features, targets = draw_clusters([4, 4])
    with pytest.raises(ValueError, match=r"each of 3 classes and no other; classes without one: \[2\]"):
        LogisticProblem(features, targets, 3)
    with pytest.raises(ValueError, match="l2=0 must be above 0"):
        LogisticProblem(features, targets, 2).fit(0)
