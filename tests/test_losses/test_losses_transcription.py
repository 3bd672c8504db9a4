"""The losses against the float64 transcription: values, gradients, metrics and tables, step after step."""

from __future__ import annotations

import numpy as np
import pytest

from tests.test_losses.agreement import CASES, assert_agreement
from tests.test_losses.pair_batches import PairBatch, draw_batches, unit

pytestmark = pytest.mark.filterwarnings("ignore:.*rho")


@pytest.mark.parametrize("kind", ["random", "aligning"])
@pytest.mark.parametrize("case", CASES)
def test_thirty_steps_agree(case: str, kind: str) -> None:
    name, hyper = CASES[case]
    batches = list(draw_batches(kind, 30, seed=len(case)))
    assert len({len(batch.image_ids) for batch in batches}) > 5
    assert any(len(set(batch.image_ids)) < len(batch.image_ids) for batch in batches)
    assert any(len(set(batch.text_ids)) < len(batch.text_ids) for batch in batches)
    assert_agreement(name, hyper, batches)


@pytest.mark.parametrize(
    "case", ["clip", "siglip", "cyclip", "macl", "macl-anchor", "sogclr", "isogclr-settling", "isogclr-adam", "rgcl_g"]
)
def test_agree_when_repeats_count_as_negatives(case: str) -> None:
    assert_agreement(*CASES[case], draw_batches("aligning", 10, seed=3), mask_repeats=False)


@pytest.mark.parametrize("tile_size", [None, 3, 7])
@pytest.mark.parametrize("case", CASES)
def test_tiles_agree(case: str, tile_size: int) -> None:
    assert_agreement(*CASES[case], draw_batches("aligning", 30, seed=11), tile_size=tile_size)


def batch_with_a_lonely_anchor(rng: np.random.Generator) -> PairBatch:
    """Pair 0 shares its image with pair 1 and its text with pair 2, so it alone has no negatives."""
    features = unit(rng.normal(size=(2, 3, 4)))
    return PairBatch(features[0], features[1], image_ids=[4, 4, 7], text_ids=[8, 9, 8])


@pytest.mark.parametrize("case", CASES)
def test_anchor_without_negatives_contributes_nothing(case: str) -> None:
    """It stays in the mean's denominator, and only its other occurrences move its tables."""
    rng = np.random.default_rng(5)
    assert_agreement(*CASES[case], [batch_with_a_lonely_anchor(rng) for _ in range(4)])


@pytest.mark.parametrize("case", CASES)
def test_same_pair_many_times(case: str) -> None:
    """Five occurrences of one pair with different features (augmentations) and two other pairs."""
    rng = np.random.default_rng(6)
    batches = []
    for _ in range(4):
        features = unit(rng.normal(size=(2, 7, 4)))
        batches.append(PairBatch(features[0], features[1], [1, 1, 1, 1, 1, 2, 3], [2, 2, 2, 2, 2, 4, 6]))
    assert_agreement(*CASES[case], batches)


@pytest.mark.parametrize("case", CASES)
def test_learned_pairs_agree(case: str) -> None:
    """``s_ii = 1`` and negatives at -1: ``P_i`` rounds to 1 in float32, and the odds are ``exp(-200)`` at tau 0.01."""
    direction = unit(np.ones((1, 4)))
    features = np.concatenate([direction, -direction])
    name, hyper = CASES[case]
    sharp = {
        "macl": {"tau_base": 0.01, "text_tau_base": 0.01, "alpha": 0.0, "text_alpha": 0.0},
        "sogclr": {"tau": 0.01},
        "isogclr": {"tau_init": 0.01, "tau_min": 0.005},
    }.get(name, {"tau_init": 0.01, "tau_min": 0.01})
    assert_agreement(name, {**hyper, **sharp}, [PairBatch(features, features, [0, 1], [2, 4])] * 3)
