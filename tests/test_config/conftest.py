"""A minimal config file, and the line that ``bimodal-train`` answers a mistake with."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from bimodal_cl import train
from tests.refusals import read_mistake

MINIMAL = {
    "output": "run",
    "data": {"train": "shards"},
    "model": {"name": "RN50"},
    "loss": {"name": "isogclr"},
    "train": {"num_epochs": 1},
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write the minimal config with some sections replaced, and return its path."""

    def write_(**changes: object) -> str:
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump({**MINIMAL, **changes}))
        return str(path)

    return write_


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run ``bimodal-train`` with a user's mistake and return its one line."""
    return lambda *argv: read_mistake(capsys, train.main, *argv)
