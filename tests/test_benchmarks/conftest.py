"""Run benchmarks in this process, which has already imported what they need, and read their tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
import torch

from tests.benchmarks.__main__ import main


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., str]]:
    """Run a benchmark that must succeed, and return what it prints."""
    threads = torch.get_num_threads()

    def run(*arguments: str) -> str:
        status = main(arguments)
        captured = capsys.readouterr()
        assert status == 0, captured.err
        return captured.out

    yield run
    torch.set_num_threads(threads)


def rows_of(output: str, title: str) -> dict[str, list[str]]:
    """Return the cells of the table below a title by the name of their row; cells are two spaces apart."""
    lines = output[output.index(title) :].splitlines()[2:]
    rows = [re.split(r" {2,}", line) for line in lines[: lines.index("") if "" in lines else None]]
    return {name: cells for name, *cells in rows if cells}
