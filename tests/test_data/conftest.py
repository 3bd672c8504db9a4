"""Fixtures of the data tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.test_data.shard_server import ShardServer, serve
from tests.test_data.tiny_shards import Member, caption_count, encode_image, write_manifest, write_tar


@pytest.fixture
def write_shards(tmp_path: Path) -> Callable[..., Path]:
    """Write shards of the given sizes. Image n shows colour n and has captions "n-0", "n-1", ...

    ``replace`` maps image ids to what stands in for the image's bytes (bytes), or to "" for no text.
    """

    def write(sizes: Sequence[int], replace: dict[int, bytes | str] | None = None, name: str = "shards") -> Path:
        folder = tmp_path / name
        image_id, counts = 0, []
        for shard, size in enumerate(sizes):
            members: list[Member] = []
            texts = 0
            for _ in range(size):
                data = encode_image(image_id)
                text = "\n".join(f"{image_id}-{n}" for n in range(caption_count(image_id)))
                other = (replace or {}).get(image_id)
                if isinstance(other, bytes):
                    data = other
                elif other is not None:
                    text = other
                members.append((f"k{image_id:04d}.png", data))
                members.append((f"k{image_id:04d}.txt", text.encode()))
                texts += caption_count(image_id) if text.strip() else 0
                image_id += 1
            write_tar(folder / f"{shard:03d}.tar", members)
            counts.append((f"{shard:03d}.tar", size, texts))
        write_manifest(folder, counts)
        return folder

    return write


@pytest.fixture
def server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ShardServer]:
    """Serve the test's ``folder``."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serve(folder) as running:
        yield running
