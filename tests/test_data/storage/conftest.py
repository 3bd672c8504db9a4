"""Fixtures of the storage tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fsspec
import pytest

from tests.test_data.storage.sources.memory_shards import SIZE


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's memory with ten shards of a thousand bytes, shard n full of n."""
    files = fsspec.filesystem("memory")
    for number in range(10):
        files.pipe_file(f"/shards/{number}.tar", bytes([number]) * SIZE)
    yield files
    files.rm("/shards", recursive=True)
