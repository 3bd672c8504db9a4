"""A run that is killed and stopped at random moments ends as if nothing had happened, bit for bit."""

from tests.test_training.faults.killed_at_random import STOP, interrupt_at_random


def test_interrupted_runs_end_alike(write_config, tmp_path):
    steps = {"num_epochs": None, "num_steps": 40, "evaluate_every": 11}
    config = write_config("run", train=steps, checkpoint={"every": 2}, data={"shuffle_window": 7})
    counts = interrupt_at_random(config, tmp_path, 40, 4, 2, 1)
    assert sum(counts.values()) == 6 and counts[STOP] == 2
