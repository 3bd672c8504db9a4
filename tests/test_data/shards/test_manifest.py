"""The manifest: ids from position, and one clear line for everything that does not fit."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bimodal_cl.data import Manifest, Shard
from bimodal_cl.errors import UserError


def test_sums_and_offsets(write_shards: Callable[..., Path]) -> None:
    manifest = Manifest.load(write_shards([3, 1, 4]))
    assert (manifest.num_images, manifest.num_texts, manifest.captions) == (8, 1 + 2 + 3 + 1 + 2 + 3 + 1 + 2, "lines")
    assert manifest.image_offsets.tolist() == [0, 3, 4, 8]
    assert manifest.text_offsets.tolist() == [0, 6, 7, 15]
    assert manifest.image_offsets.dtype == np.int64


def test_saved_and_loaded_are_equal(write_shards: Callable[..., Path]) -> None:
    folder = write_shards([2, 3])
    manifest = Manifest.load(folder)
    named = Manifest(folder, "whole", tuple(Shard(s.name, s.num_images, 2, s.bytes, "ab") for s in manifest.shards))
    before = set(folder.iterdir())
    assert named.save() == folder / "manifest.json"
    assert Manifest.load(folder) == named
    assert set(folder.iterdir()) == before  # no temporary file stays


def test_shards_may_be_anywhere(write_shards: Callable[..., Path], tmp_path: Path) -> None:
    """The manifest's folder is local; what it lists may be a path below it, a path elsewhere, or a URL."""
    outside = write_shards([2], name="outside") / "000.tar"
    folder = write_shards([3])
    inside = Manifest.load(folder).shards[0]
    names = [str(outside), "s3://bucket/../x.tar", "pipe:cat a.tar"]
    shards = (inside, Shard(names[0], 2, 3, outside.stat().st_size), Shard(names[1], 1, 1, 5), Shard(names[2], 1, 1, 5))
    Manifest(folder, "lines", shards, {"duplicate_key": 2}).save()
    manifest = Manifest.load(folder)  # the sizes of the last two are not looked at
    assert manifest == Manifest(folder, "lines", shards, {"duplicate_key": 2})
    assert [manifest.location(n) for n in range(4)] == [str(folder / "000.tar"), *names]
    outside.write_bytes(b"short")
    with pytest.raises(UserError, match=r"outside/000\.tar holds 5 bytes"):
        Manifest.load(folder)


def test_faults_are_kept_and_only_where_there_are_any(write_shards: Callable[..., Path]) -> None:
    folder = write_shards([3])
    manifest = Manifest.load(folder)
    assert (dict(manifest.faults), manifest.damaged) == ({}, "refuse")
    manifest.save()
    assert "faults" not in json.loads((folder / "manifest.json").read_text())
    for faults, damaged in (({"no_image": 1}, "refuse"), ({"garbage": 1, "no_image": 3}, "keep")):
        Manifest(folder, "lines", manifest.shards, faults).save()
        assert json.loads((folder / "manifest.json").read_text())["faults"] == faults
        assert (Manifest.load(folder).faults, Manifest.load(folder).damaged) == (faults, damaged)
        assert hash(Manifest.load(folder)) == hash(manifest)


def test_a_failed_save_leaves_the_old_manifest(write_shards: Callable[..., Path], monkeypatch: Any) -> None:
    folder = write_shards([2])
    before = (folder / "manifest.json").read_bytes()

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        Manifest(folder, "lines", ()).save()
    assert (folder / "manifest.json").read_bytes() == before
    assert sorted(entry.name for entry in folder.iterdir()) == ["000.tar", "manifest.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2 is not 1"),
        ({"version": None}, "version None is not 1"),
        ({"num_imgaes": 3}, "unknown key 'num_imgaes'; did you mean 'num_images'?"),
        ({"captions": "line"}, "captions 'line'; did you mean 'lines'?"),
        ({"num_images": 4}, "num_images is 4 but its shards add up to 3"),
        ({"num_texts": 7}, "num_texts is 7 but its shards add up to 6"),
        ({"shards": {}}, "shards must be a list, got dict"),
        ({"faults": []}, "faults must be an object, got list"),
        ({"faults": {"truncatd": 1}}, "unknown kind 'faults.truncatd'; did you mean 'truncated'?"),
        ({"faults": {"truncated": 0}}, "faults.truncated must be a whole number >= 1, got 0"),
        ({"shards": [3]}, "shards[0] must be an object, got int"),
        ({"shards": [{"name": "000.tar"}]}, "key 'shards[0].num_images' is missing"),
        (
            {"shards": [{"name": "../000.tar", "num_images": 3, "num_texts": 6, "bytes": 1}]},
            "shards[0].name must be a file name inside the folder, got '../000.tar'",
        ),
        (
            {"shards": [{"name": "000.tar", "num_images": -3, "num_texts": 6, "bytes": 1}]},
            "shards[0].num_images must be a whole number >= 0, got -3",
        ),
    ],
)
def test_what_does_not_fit_is_named(write_shards: Callable[..., Path], change: dict[str, Any], message: str) -> None:
    folder = write_shards([3])
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=re.escape(message)) as error:
        Manifest.load(folder)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_missing_and_changed_files_are_named(write_shards: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_shards([3, 2])
    shard = folder / "001.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-512])
    with pytest.raises(
        UserError, match=rf"shard 001\.tar holds {len(whole) - 512} bytes but .* {len(whole)}: it is trunc"
    ):
        Manifest.load(folder)
    shard.unlink()
    with pytest.raises(UserError, match=r"shard 001\.tar is in the manifest but cannot be found"):
        Manifest.load(folder)
    (folder / "manifest.json").write_text('{"version": 1,')
    with pytest.raises(UserError, match=r"manifest\.json: cannot be read"):
        Manifest.load(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"no manifest\.json; write one with `bimodal-prep index "):
        Manifest.load(folder)
    with pytest.raises(UserError, match=r"nowhere: no such folder"):
        Manifest.load(tmp_path / "nowhere")


def test_the_manifest_and_the_index_need_no_torch() -> None:
    code = (
        "import sys; from bimodal_cl.data import Manifest, index_shard; import bimodal_cl.data.order.plan; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'webdataset', 'torchvision')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
