"""What may be secret in a shard's location (a password, a signed query) is in no message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bimodal_cl.data import Manifest
from bimodal_cl.data.shards.reader import RowReader
from bimodal_cl.data.shards.row_table import index_row_table
from bimodal_cl.data.storage.locations import redact
from bimodal_cl.data.storage.storage import Storage
from bimodal_cl.errors import UserError
from data_prep.indexing.patterns import expand_locations
from tests.test_data.remote_shards import write_remote_manifest
from tests.test_data.shard_server import serve


@pytest.mark.parametrize(
    ("location", "name"),
    [
        ("https://me:word@host.org/x.tar?signature=secret#part", "https://host.org/x.tar?..."),
        ("https://host.org/x.tar#part", "https://host.org/x.tar"),
        ("hf://datasets/a/b@main/x.tar", "hf://datasets/a/b@main/x.tar"),
        ("zip://x.tar::https://me:word@host.org/x.zip?signature=secret", "zip://x.tar::https://host.org/x.zip?..."),
        ("simplecache::s3://bucket/x.tar", "simplecache::s3://bucket/x.tar"),
        ("http://[::1]:80/x.tar", "http://[::1]:80/x.tar"),
        ("http://me:word@[::1/x.tar?signature=secret", "http://[::1/x.tar?..."),  # malformed
        ("/data/a?b#c.tar", "/data/a?b#c.tar"),
        ("pipe:curl https://host.org/x?y", "pipe:curl https://host.org/x?y"),
    ],
)
def test_the_name_of_a_location_tells_no_secret(location: str, name: str) -> None:
    assert redact(location) == name


@pytest.mark.parametrize("bad", ["http://[::1/x.tar?signature=secret", "s3://me:secret@[::1/x.tar"])
def test_a_malformed_location_is_the_users_mistake(tmp_path: Path, bad: str) -> None:
    for cache_bytes in (0, 10**6):
        with pytest.raises(UserError, match=r"//\[::1/x\.tar") as caught:
            Storage(tmp_path, cache_bytes).open(bad, 100)
        assert "secret" not in str(caught.value)


def test_patterns_are_named_without_secrets() -> None:
    for bad in ("https://me:secret@host/*.tar?signature=secret", "https://me:secret@host/{0..9999999}.tar"):
        with pytest.raises(UserError, match=r"https://host/") as caught:
            expand_locations([bad])
        assert "secret" not in str(caught.value)


def test_no_message_of_a_row_tells_a_secret(
    write_shards: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = write_shards([3, 4], {0: b"no image"})
    with serve(folder) as server:
        manifest = write_remote_manifest(folder, tmp_path / "remote", server.url, tables=False)
        content = (manifest.folder / "manifest.json").read_text()
        signed = content.replace("http://", "http://me:secret@").replace(".tar", ".tar?signature=secret")
        (manifest.folder / "manifest.json").write_text(signed)
        manifest = Manifest.load(manifest.folder)
        assert manifest.shards[0].name.endswith("/000.tar?signature=secret")

        reader = RowReader(manifest, Storage(tmp_path / "c"))
        assert reader.describe(0) == (f"{server.url}/000.tar?...", "k0000")
        reader.close()
        ranged = RowReader(manifest, Storage(tmp_path / "c0", cache_bytes=0))
        with pytest.raises(
            UserError, match=r"shard http://127.*/000\.tar\?\.\.\.: does not fit into the cache"
        ) as caught:
            ranged.read(0)
        assert "secret" not in str(caught.value)
        with pytest.raises(UserError, match=r"shard http://127.*/000\.tar\?\.\.\.: holds 4 images .* says 3") as caught:
            index_row_table(manifest, 0, folder / "001.tar")
        assert "secret" not in str(caught.value)
        assert f"`{manifest.index_command}` indexes it" in str(caught.value)
        (tmp_path / "broken.tar").write_bytes(bytes(range(256)) * 8)
        with pytest.raises(UserError, match=r"shard http://127.*/000\.tar\?\.\.\.: ") as caught:
            index_row_table(manifest, 0, tmp_path / "broken.tar")
        assert "secret" not in str(caught.value)
