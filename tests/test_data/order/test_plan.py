"""The order of samples: who sees what, when, and how well it is mixed."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimodal_cl.data.order.draws import Purpose, draw_below, draw_permutation, draw_uniform
from bimodal_cl.data.order.plan import EpochPlan, SequentialPlan, count_lanes
from bimodal_cl.errors import UserError

SIZES = st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(lambda sizes: sum(sizes) > 0)


def epoch_of(plan: EpochPlan) -> np.ndarray:
    return np.concatenate([plan.image_ids(step) for step in range(plan.steps)])


@settings(max_examples=80, deadline=None)
@given(
    sizes=SIZES, seed=st.integers(0, 3), epoch=st.integers(0, 3), batch=st.integers(1, 96), window=st.integers(1, 50)
)
def test_every_image_at_most_once_and_the_tail_counted(
    sizes: list[int], seed: int, epoch: int, batch: int, window: int
) -> None:
    total = sum(sizes)
    if total < batch:
        with pytest.raises(UserError, match=f"{total} images do not fill one global batch of {batch}"):
            EpochPlan(sizes, seed, epoch, batch, window)
        return
    plan = EpochPlan(sizes, seed, epoch, batch, window)
    ids = epoch_of(plan)
    assert len(ids) == plan.steps * batch == total - plan.dropped
    assert 0 <= plan.dropped < batch
    assert len(np.unique(ids)) == len(ids)
    assert ids.min() >= 0 and ids.max() < total


@settings(max_examples=60, deadline=None)
@given(sizes=SIZES, share=st.integers(1, 9), window=st.integers(1, 50), data=st.data())
def test_ranks_cut_the_same_global_batch(sizes: list[int], share: int, window: int, data: st.DataObject) -> None:
    batch = 4 * share
    if sum(sizes) < batch:
        return
    step = data.draw(st.integers(0, sum(sizes) // batch - 1))
    whole = EpochPlan(sizes, 5, 1, batch, window).image_ids(step)
    for world_size in (1, 2, 4):
        local = batch // world_size
        # A fresh plan a rank, asked for this step first: nothing depends on what was asked before.
        parts = [
            EpochPlan(sizes, 5, 1, batch, window).image_ids(step, rank * local, (rank + 1) * local)
            for rank in range(world_size)
        ]
        assert [len(part) for part in parts] == [local] * world_size
        np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("sizes", [[500], [1] * 500, [100, 0, 399, 1]])
@pytest.mark.parametrize("window", [1, 16, 10_000])
def test_epochs_and_seeds_differ_and_repeat(sizes: list[int], window: int) -> None:
    first = epoch_of(EpochPlan(sizes, 0, 0, 24, window))
    np.testing.assert_array_equal(first, epoch_of(EpochPlan(sizes, 0, 0, 24, window)))
    for seed, epoch in ((0, 1), (1, 0), (1, 1)):
        other = epoch_of(EpochPlan(sizes, seed, epoch, 24, window))
        assert (first != other).mean() > 0.8


@pytest.mark.parametrize("window", [16, 10_000])
def test_one_shard_does_not_always_drop_the_same_images(window: int) -> None:
    dropped = []
    for epoch in range(40):
        plan = EpochPlan([107], 0, epoch, 50, window)
        assert plan.dropped == 7
        dropped.append(set(range(107)) - set(epoch_of(plan).tolist()))
    assert len(set.union(*dropped)) > 80
    assert not set.intersection(*dropped)


def correlate(first: np.ndarray, second: np.ndarray) -> float:
    return abs(float(np.corrcoef(first, second)[0, 1]))


@pytest.mark.parametrize(
    ("sizes", "batch", "window", "most"),
    [
        ([2000] * 50, 256, 1024, 0.1),  # lanes and windows
        ([100_000], 256, 1024, 0.2),  # the same from a single shard
        ([6000], 128, 8192, 0.05),  # one window: a full permutation
    ],
)
def test_neighbours_are_far_apart(sizes: list[int], batch: int, window: int, most: float) -> None:
    ids = epoch_of(EpochPlan(sizes, 0, 0, batch, window)).astype(np.float64)
    assert correlate(ids[:-1], ids[1:]) < most
    assert correlate(np.arange(len(ids)), ids) < most
    # The mean id of a batch, if it were drawn at random, would deviate by width / sqrt(12 batch).
    means = ids.reshape(-1, batch).mean(axis=1)
    assert means.std() < 1.6 * sum(sizes) / np.sqrt(12 * batch)
    again = epoch_of(EpochPlan(sizes, 0, 1, batch, window))
    shared = [len(np.intersect1d(a, b)) for a, b in zip(ids.reshape(-1, batch), again.reshape(-1, batch), strict=False)]
    assert np.mean(shared) < 3 * batch * batch / sum(sizes)  # batches do not come back in the next epoch


def test_eight_ranks_read_an_eighth_each() -> None:
    plan = EpochPlan([100] * 640, 0, 0, 512, 64)
    for rank in (0, 5):
        parts = [plan.image_ids(step, rank * 64, (rank + 1) * 64) for step in range(plan.steps)]
        assert len(np.unique(np.concatenate(parts) // 100)) <= 80 + 8  # shards, and one more where a lane ends


def test_the_shuffle_stays_inside_its_windows() -> None:
    plan = EpochPlan([4096], 0, 0, 1, shuffle_window=64)
    positions = (epoch_of(plan) - epoch_of(EpochPlan([4096], 0, 0, 1, shuffle_window=1))[0]) % 4096
    assert np.abs(positions - np.arange(4096)).max() < 64
    assert (positions != np.arange(4096)).mean() > 0.9


def test_the_middle_of_a_huge_epoch_is_reached_at_once() -> None:
    start = time.perf_counter()
    plan = EpochPlan([10_000] * 40_000, 0, 3, 4096)
    ids = plan.image_ids(plan.steps // 2)
    assert time.perf_counter() - start < 2.0  # 400 million samples; milliseconds on a quiet machine
    assert len(np.unique(ids)) == 4096


def test_lanes_are_a_function_of_the_global_batch() -> None:
    assert [count_lanes(n) for n in (1, 6, 12, 48, 64, 96, 1000, 4096)] == [1, 2, 4, 16, 64, 32, 8, 64]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([10, -1], 0, 0, 2), "shard_sizes must be at least 0, got -1"),
        (([10], -1, 0, 2), "seed must be at least 0, got -1"),
        (([10], 0, -2, 2), "epoch must be at least 0, got -2"),
        (([10], 0, 0, 0), "global_batch_size must be at least 1, got 0"),
        (([10], 0, 0, 2, 0), "shuffle_window must be at least 1, got 0"),
        (([10], 0, 0, 11), "10 images do not fill one global batch of 11"),
        (([], 0, 0, 1), "0 images do not fill one global batch of 1"),
    ],
)
def test_values_out_of_range_are_named(arguments: tuple, message: str) -> None:
    with pytest.raises(UserError, match=message):
        EpochPlan(*arguments)


def build_epoch_in_full(sizes: list[int], seed: int, epoch: int, batch: int, window: int) -> list[list[int]]:
    """The five rules of the plan's docstring, written out over lists of all rows."""
    total = sum(sizes)
    steps = total // batch
    if total <= window:
        order = draw_permutation(total, Purpose.WINDOW, seed, epoch).tolist()
        return [order[step * batch : (step + 1) * batch] for step in range(steps)]
    ids = iter(range(total))
    shards = [[next(ids) for _ in range(size)] for size in sizes]
    rows = [row for n in draw_permutation(len(sizes), Purpose.SHARDS, seed, epoch).tolist() for row in shards[n]]
    turn = int(draw_below(total, Purpose.ROTATION, seed, epoch)[0])
    rows = (rows[turn:] + rows[:turn])[: steps * batch]
    num_lanes = max(n for n in (1, 2, 4, 8, 16, 32, 64) if batch % n == 0)
    length = len(rows) // num_lanes
    numbers = draw_permutation(num_lanes, Purpose.LANES, seed, epoch).tolist()
    lanes = []
    for lane in range(num_lanes):
        segment = rows[numbers[lane] * length : (numbers[lane] + 1) * length]
        border = int(draw_below(window, Purpose.WINDOW_BORDER, seed, epoch, lane)[0])
        shuffled: list[int] = []
        for number, end in enumerate(range(window - border, length + window, window)):
            part = segment[max(end - window, 0) : end]
            shuffled += [part[n] for n in draw_permutation(len(part), Purpose.WINDOW, seed, epoch, lane, number)]
        lanes.append(iter(shuffled))
    groups = [lanes[n : n + 8] for n in range(0, num_lanes, 8)]
    turns = range(batch // num_lanes)
    return [[next(lane) for group in groups for _ in turns for lane in group] for _ in range(steps)]


@settings(max_examples=60, deadline=None)
@given(sizes=SIZES, epoch=st.integers(0, 3), batch=st.integers(1, 130), window=st.integers(1, 60))
def test_the_plan_is_its_five_rules(sizes: list[int], epoch: int, batch: int, window: int) -> None:
    if sum(sizes) >= batch:
        plan = EpochPlan(sizes, 7, epoch, batch, window)
        expected = build_epoch_in_full(sizes, 7, epoch, batch, window)
        assert [plan.image_ids(step).tolist() for step in range(plan.steps)] == expected


def test_rows_and_steps_out_of_range_are_named() -> None:
    plan = EpochPlan([10], 0, 0, 4)
    with pytest.raises(UserError, match=r"step 2 is outside \[0, 2\)"):
        plan.image_ids(2)
    with pytest.raises(UserError, match=r"rows \[2, 5\) are outside the global batch of 4"):
        plan.image_ids(0, 2, 5)


@settings(max_examples=60, deadline=None)
@given(total=st.integers(0, 50), batch=st.integers(1, 9), world_size=st.integers(1, 5))
def test_evaluation_sees_every_image_once_in_order(total: int, batch: int, world_size: int) -> None:
    plans = [SequentialPlan(total, batch, rank, world_size) for rank in range(world_size)]
    ids = [plan.image_ids(step) for plan in plans for step in range(plan.steps)]
    assert np.concatenate([*ids, np.empty(0, np.int64)]).tolist() == list(range(total))
    assert all(0 < len(part) <= batch for part in ids)
    assert max(plan.steps for plan in plans) - min(plan.steps for plan in plans) <= 1


def test_draws_are_uniform_and_separate() -> None:
    numbers = np.arange(20_000)
    uniform = draw_uniform(Purpose.AUGMENTATION, 0, 0, numbers)
    assert uniform.min() >= 0 and uniform.max() < 1
    counts, _ = np.histogram(uniform, bins=20, range=(0, 1))
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # chi-squared, 19 degrees of freedom, p = 0.001
    assert abs(np.corrcoef(uniform[:-1], uniform[1:])[0, 1]) < 0.03
    other = draw_uniform(Purpose.AUGMENTATION, 0, 1, numbers)
    assert abs(np.corrcoef(uniform, other)[0, 1]) < 0.03
    assert abs(np.corrcoef(uniform, draw_uniform(Purpose.CAPTION, 0, 0, numbers))[0, 1]) < 0.03
    assert sorted(draw_permutation(1000, Purpose.WINDOW, 0).tolist()) == list(range(1000))
    assert set(draw_below(np.full(20_000, 5), Purpose.CAPTION, 1, numbers).tolist()) == set(range(5))


def mix_in_plain_integers(state: int) -> int:
    """splitmix64 as published, in unbounded integers."""
    mask = 2**64 - 1
    state = (state + 0x9E3779B97F4A7C15) & mask
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    return state ^ (state >> 31)


def test_the_order_is_the_same_on_every_machine_and_release() -> None:
    assert mix_in_plain_integers(0) == 0xE220A8397B1DCDAF  # the generator's first number from seed 0
    expected = []
    for image_id in range(6):
        state = int(Purpose.CAPTION)
        for key in (1, image_id):
            state = mix_in_plain_integers(state ^ key)
        expected.append(state % 1000)
    assert draw_below(1000, Purpose.CAPTION, 1, np.arange(6)).tolist() == expected
    # Pinned: a run goes on under another version of this package only if this stays.
    assert EpochPlan([7, 5, 9], 3, 2, 8, 4).image_ids(1).tolist() == [0, 7, 13, 2, 20, 16, 18, 5]
