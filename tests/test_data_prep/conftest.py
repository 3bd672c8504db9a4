"""Fixtures of the data preparation tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from data_prep.cli import main
from tests.test_data_prep.raw_material import Samples, read_folder, write_photos


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str
    to: Path = Path()

    @property
    def error(self) -> str:
        """The one line that a user's mistake prints, after what was noted on the way."""
        assert self.status == 2, (self.status, self.err)
        line = self.err.splitlines()[-1]
        assert line.startswith("error: ") and "Traceback" not in self.err
        return line.removeprefix("error: ")

    def samples(self, split: str = "") -> Samples:
        """What was written, which must have succeeded."""
        assert self.status == 0, self.err
        return read_folder(self.to / split)


@pytest.fixture
def prep(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run ``bimodal-prep`` with some arguments."""

    def run(*arguments: str | int | Path) -> Outcome:
        capsys.readouterr()
        words = [str(argument) for argument in arguments]
        status = main(words)
        captured = capsys.readouterr()
        to = Path(words[words.index("--to") + 1]) if "--to" in words[:-1] else Path()
        return Outcome(status, captured.out, captured.err, to)

    return run


@pytest.fixture
def write(prep: Callable[..., Outcome], tmp_path: Path) -> Callable[..., Outcome]:
    """Run ``bimodal-prep write SOURCE ... --to TMP_PATH/to``."""

    def run(*arguments: str | int | Path, to: str = "to") -> Outcome:
        return prep("write", *arguments, "--to", tmp_path / to)

    return run


@pytest.fixture
def write_shards(write: Callable[..., Outcome], tmp_path: Path) -> Callable[[int, int], Path]:
    """Write shards of images img0, img1, ... with captions "a 0" and "b 0", ..."""

    def run(num_images: int, shard_size: int) -> Path:
        raw = write_photos(tmp_path / "raw", range(num_images), "a {n}\nb {n}\n")
        done = write("folder", "--images", raw, "--shard-size", shard_size)
        assert done.status == 0
        return done.to

    return run
