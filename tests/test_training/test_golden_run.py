"""Twenty steps of a small run, written down once: a change of any part that moves them must be meant."""

import json

import pytest

from bimodal_cl import train

GOLDEN = {
    "isogclr": [0.2093, 0.07247, 0.09302, 0.03965, 0.03756],
    "macl": [5.36617, 4.3821, 4.34106, 4.34789, 4.31394],
}


@pytest.mark.parametrize("name", GOLDEN)
def test_twenty_steps_are_as_written_down(write_config, tmp_path, name):
    loss = {"isogclr": {"name": "isogclr", "tau_init": 0.05, "rho": 1.0}, "macl": {"name": "macl"}}[name]
    steps = {"num_epochs": None, "num_steps": 20}
    assert train.main(["--config", str(write_config(loss=loss, train=steps, data={"val": None}))]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["event"] == "train"]
    assert losses[::4] == pytest.approx(GOLDEN[name], rel=2e-3)
