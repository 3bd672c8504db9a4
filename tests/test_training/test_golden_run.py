"""Compare twenty steps of a small run with recorded losses, so that a change that moves them is deliberate."""

import pytest

from tests.test_training.run_files import read_losses

GOLDEN = {
    "isogclr": [0.2093, 0.07247, 0.09302, 0.03965, 0.03756],
    "macl": [5.36617, 4.3821, 4.34106, 4.34789, 4.31394],
}


@pytest.mark.parametrize("name", GOLDEN)
def test_twenty_steps_are_as_recorded(run_training, name):
    loss = {"isogclr": {"name": "isogclr", "tau_init": 0.05, "rho": 1.0}, "macl": {"name": "macl"}}[name]
    steps = {"num_epochs": None, "num_steps": 20}
    run = run_training(loss=loss, train=steps, data={"val": None})
    assert read_losses(run)[::4] == pytest.approx(GOLDEN[name], rel=2e-3)
