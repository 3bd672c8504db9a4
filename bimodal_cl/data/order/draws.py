"""Draw random numbers as pure functions of integers, without a state to save, share between workers, or restore.

Every random choice in the data is ``draw(purpose, seed, epoch, ...)``: it is the same on every machine, in every worker
and on any number of ranks, whatever was drawn before. The numbers are mixed by splitmix64's finalizer (Steele, Lea and
Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, figure 17), so that no release of a library can
change the order.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)


class Purpose(IntEnum):
    """What a number is drawn for, so that two purposes never share numbers. Do not renumber: that changes the order."""

    SHARDS = 1
    ROTATION = 2
    WINDOW_BORDER = 3
    WINDOW = 4
    CAPTION = 5
    AUGMENTATION = 6
    SUBSTITUTE = 7
    LANES = 8
    FRACTION = 9
    THINNING = 10
    VIEW = 11


def _mix(state: np.ndarray) -> np.ndarray:
    state = state + _GOLDEN
    state = (state ^ (state >> _S30)) * _MIX_1
    state = (state ^ (state >> _S27)) * _MIX_2
    return state ^ (state >> _S31)


def draw_bits(purpose: Purpose, *keys: int | np.ndarray) -> np.ndarray:
    """Hash non-negative integers, ``[]`` or ``[n]`` each, to 64 bits: uint64 ``[n]``, or ``[1]`` if all are scalars."""
    state = np.full(1, int(purpose), dtype=np.uint64)
    for key in keys:
        state = _mix(state ^ np.asarray(key).astype(np.uint64))
    return state


def draw_below(bound: int | np.ndarray, purpose: Purpose, *keys: int | np.ndarray) -> np.ndarray:
    """Draw integers from ``[0, bound)``, int64. The bias of the remainder is below ``bound / 2**64``."""
    return (draw_bits(purpose, *keys) % np.asarray(bound).astype(np.uint64)).astype(np.int64)


def draw_caption(count: int | np.ndarray, seed: int, epoch: int, image_id: int | np.ndarray) -> np.ndarray:
    """Draw which of its ``count`` captions an image has in an epoch of training, int64."""
    return draw_below(count, Purpose.CAPTION, seed, epoch, image_id)


def draw_uniform(purpose: Purpose, *keys: int | np.ndarray) -> np.ndarray:
    """Draw float64 numbers from ``[0, 1)``, multiples of ``2**-53``."""
    return (draw_bits(purpose, *keys) >> _S11) * 2.0**-53


def draw_permutation(length: int, purpose: Purpose, *keys: int) -> np.ndarray:
    """Draw a permutation of ``range(length)``, int64 ``[length]``, by sorting the positions by their hashes."""
    return np.argsort(draw_bits(purpose, *keys, np.arange(length)), kind="stable")
