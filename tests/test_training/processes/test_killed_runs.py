"""A run that is killed at random and resumed on other ranks and workers gets the samples of an uninterrupted run."""

from tests.test_training.conftest import WITHOUT_DROPOUT
from tests.test_training.processes.killed_runs import run_killed, run_whole


def test_killed_runs_see_the_same_samples(write_config, tmp_path):
    # An epoch has 5 steps; a shuffle window of 7 images keeps the order from being sequential.
    steps = {"num_epochs": None, "num_steps": 40}
    data = {"shuffle_window": 7, "val": None}
    changes = {"train": steps, "model": WITHOUT_DROPOUT, "data": data, "checkpoint": {"every": 3}}
    whole = run_whole(write_config("whole", **changes), tmp_path)
    assert sorted(whole) == list(range(40))
    assert len({n for step in range(5) for n in whole[step][0]}) == 360
    lives = run_killed(write_config("killed", **changes), tmp_path, whole, kills=3, seed=1)
    assert len(lives) == 4 and lives[-1][1] == 39
    assert all(first % 3 == 0 for first, _ in lives if first >= 0)  # each life starts from a checkpoint
