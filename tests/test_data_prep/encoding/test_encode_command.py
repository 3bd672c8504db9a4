"""``bimodal-prep encode``: what it writes, that it writes it once, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import data_prep.encoding.encode as encode_module
from bimodal_cl.config.yaml_files import load_config
from bimodal_cl.data import Manifest, Stream, open_stream
from bimodal_cl.data.features.manifest import FeatureManifest
from bimodal_cl.data.features.tables import FeatureTable
from bimodal_cl.models import load_model
from bimodal_cl.models.features.towers import LockedTowers
from data_prep.cli import main
from tests.locked_towers import captions_of, write_locked_config, write_noise
from tests.test_data_prep.conftest import Outcome

Encode = Callable[..., Outcome]
TABLES = {"features.json", "images.npy", "texts.npy", "first_text_ids.npy", "moments.npz"}


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two splits: 16 and 5 images."""
    write_noise(tmp_path / "data" / "train", [9, 7])
    write_noise(tmp_path / "data" / "val", [5], first=100)
    return tmp_path / "data"


@pytest.fixture
def encode(prep: Callable[..., Outcome], shards: Path, tmp_path: Path) -> Encode:
    """Encode by the config of that name into ``tmp_path / "features"``."""

    def run(*data: Path, name: str = "run", flags: tuple = (), **changes: dict) -> Outcome:
        config = write_locked_config(tmp_path / f"{name}.yaml", shards / "train", changes)
        where = ("--to", tmp_path / "features", "--num-workers", 0, "--batch-size", 4, "--device", "cpu")
        return prep("encode", *(data or (shards,)), "--model", config, *where, *flags)

    return run


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@torch.inference_mode()
def assert_views(table: FeatureTable, view: int, towers: LockedTowers, stream: Stream) -> None:
    """Assert that a view of every image holds the features of the stream's pixels, up to float16."""
    seen = []
    for batch in stream:
        expected = towers.encode_image(batch.images).numpy()
        np.testing.assert_allclose(table.images[view, batch.image_ids.numpy()], expected, rtol=1e-3, atol=1e-3)
        seen += batch.image_ids.tolist()
    assert sorted(seen) == list(range(table.manifest.num_images))


@torch.inference_mode()
def test_every_crop_and_caption_is_encoded(encode: Encode, shards: Path, tmp_path: Path) -> None:
    """View ``v`` is the crop of epoch ``v - 1`` of a training on images with the same seed."""
    done = encode(flags=("--views", 2))
    assert done.status == 0, done.err
    folder = tmp_path / "features"
    towers = LockedTowers(load_model(folder / "towers"), "towers")
    width = towers.image_width
    assert done.out.splitlines() == [
        f"{folder}/train: 16 images x 3 of {width} numbers, 31 captions of 32",
        f"{folder}/val: 5 images x 3 of {width} numbers, 11 captions of 32",
    ]
    assert sorted(path.name for path in folder.iterdir()) == ["towers", "train", "val"]
    config = load_config([tmp_path / "run.yaml"])
    transform = towers.encoder.transform
    options: dict = {"num_workers": 0, "seed": config.seed}
    crops = {"scale": config.data.crop_scale, "flip": config.data.flip, "interpolation": transform.interpolation}
    for split, first in (("train", 0), ("val", 100)):
        manifest = Manifest.load(shards / split)
        table = FeatureTable(FeatureManifest.load(folder / split))
        assert {path.name for path in (folder / split).iterdir()} == TABLES | {"SHA256SUMS"}
        assert table.manifest.unusable == () and table.manifest.crop_scale == (0.5, 1.0)
        texts = [text for number in range(manifest.num_images) for text in captions_of(first + number)]
        expected = [towers.encode_text(towers.encoder.tokenize([text])).numpy() for text in texts]
        np.testing.assert_allclose(table.texts, np.concatenate(expected), rtol=1e-3, atol=1e-3)
        assert_views(table, 0, towers, open_stream(manifest, 4, 32, train=False, eval_transform=transform, **options))
        for view in (1, 2):
            training = open_stream(manifest, 1, 32, epoch=view - 1, shuffle_window=4, **options, **crops)
            assert_views(table, view, towers, training)
        assert np.abs(table.images[1].astype(float) - table.images[2]).max() > 0.05
        rows = table.images[:].reshape(-1, width).astype(float)
        np.testing.assert_allclose(table.moments()["image_mean"], rows.mean(0), rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(table.moments()["image_variance"], rows.var(0), rtol=1e-6, atol=1e-9)


def test_checksums_are_those_of_sha256sum(encode: Encode, tmp_path: Path) -> None:
    assert encode().status == 0
    for name in ("train", "val"):
        folder = tmp_path / "features" / name
        lines = [line.split() for line in (folder / "SHA256SUMS").read_text().splitlines()]
        assert {name.lstrip("*") for _, name in lines} == TABLES
        for digest, file in lines:
            assert hashlib.sha256((folder / file.lstrip("*")).read_bytes()).hexdigest() == digest


def test_nothing_is_encoded_twice(encode: Encode, shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "features"
    assert encode(shards / "val").out.startswith(f"{folder}/val: 5 images x 1 of ")
    before = bytes_of(folder)
    again = encode(name="heads", model={"embed_dim": 24, "vision": {"timm_proj": "residual"}})  # of other heads
    assert again.status == 0, again.err
    train, val = again.out.splitlines()
    assert train.startswith(f"{folder}/train: 16 images") and val == f"{folder}/val: encoded before"
    after = bytes_of(folder)
    assert {name: after[name] for name in before} == before
    shutil.move(shards, tmp_path / "elsewhere")
    moved = encode(tmp_path / "elsewhere" / "val", tmp_path / "elsewhere" / "train")
    assert moved.out.splitlines() == [f"{folder}/{name}: encoded before" for name in ("val", "train")]


def test_features_that_were_encoded_otherwise_are_replaced_on_demand(
    encode: Encode, shards: Path, tmp_path: Path
) -> None:
    folder, val = tmp_path / "features", shards / "val"
    assert encode(val).status == 0
    before = bytes_of(folder)
    for flags, changes, message in (
        (("--views", 1), {}, f"{folder}/val: was encoded with views 0, not 1; give --overwrite"),
        ((), {"seed": 4}, f"{folder}: was encoded by other towers than those of"),  # random ones
        ((), {"model": {"text": {"hf_pooler_type": "max_pooler"}}}, "model.text.hf_pooler_type=mean_pooler"),
        ((), {"model": {"image_mean": [0.5, 0.5, 0.5]}}, "model.image_mean=null"),
    ):
        assert message in encode(val, flags=flags, **changes).error
        assert bytes_of(folder) == before
    assert encode(val, flags=("--views", 1, "--overwrite")).status == 0
    assert FeatureManifest.load(folder / "val").views == 1
    message = f"{folder}/val: was encoded with crop_scale [0.5, 1.0], not [0.25, 1.0]; give --overwrite"
    changes = {"data": {"crop_scale": [0.25, 1.0]}}
    assert encode(val, flags=("--views", 1), **changes).error == message
    assert encode(val, flags=("--views", 1, "--overwrite"), **changes).status == 0
    changes["model"] = {"text": {"hf_pooler_type": "max_pooler"}}
    assert encode(val, flags=("--views", 1, "--overwrite"), **changes).out.startswith(f"{folder}/val: 5 images x 2")
    assert (folder / "val" / "texts.npy").read_bytes() != before["val/texts.npy"]
    towers = json.loads((folder / "towers" / "towers.json").read_text())
    assert towers["model"]["text"]["hf_pooler_type"] == "max_pooler"
    write_noise(val, [5], first=200)
    renamed = json.loads((val / "manifest.json").read_text())
    (val / "00000.tar").rename(val / "other.tar")
    renamed["shards"][0]["name"] = "other.tar"
    (val / "manifest.json").write_text(json.dumps(renamed))
    assert f"{folder}/val: was encoded with digest" in encode(val, flags=("--views", 1), **changes).error


def test_images_that_cannot_be_used_are_listed(encode: Encode, shards: Path, tmp_path: Path) -> None:
    broken = write_noise(tmp_path / "broken", [6, 30], broken=[4, *range(10, 35)])
    done = encode(broken, flags=("--views", 1))
    assert done.status == 0 and done.out.endswith(", 26 images not usable\n")
    table = FeatureTable(FeatureManifest.load(tmp_path / "features" / "broken"))
    unusable = table.manifest.unusable
    assert [fault.image_id for fault in unusable] == [4, *range(10, 35)]
    assert (unusable[0].kind, unusable[0].shard, unusable[0].key) == ("undecodable", "00000.tar", "0004")
    assert {fault.shard for fault in unusable[1:]} == {"00001.tar"}
    usable = np.setdiff1d(np.arange(36), [fault.image_id for fault in unusable])
    assert not table.images[:, [4, 10]].any() and table.images[:, usable].any(-1).all()
    np.testing.assert_allclose(
        table.moments()["image_mean"], table.images[:, usable].astype(float).mean((0, 1)), rtol=1e-6, atol=1e-9
    )


def test_a_killed_command_loses_the_data_set_that_it_was_at(
    encode: Encode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = bytes_of(tmp_path / "features") if encode().status == 0 else {}
    shutil.rmtree(tmp_path / "features")
    with monkeypatch.context() as patched:
        real = encode_module.encode_set

        def killed(manifest: Manifest, towers: LockedTowers, job: FeatureManifest, folder: Path, *rest: int):
            done = real(manifest, towers, job, folder, *rest)
            if folder.name == "val":
                raise KeyboardInterrupt
            return done

        patched.setattr(encode_module, "encode_set", killed)
        encode()
    assert sorted(path.name for path in (tmp_path / "features").iterdir()) == ["towers", "train"]
    left = tmp_path / "features" / ".partial" / "val"  # by one that could not tidy up
    left.mkdir(parents=True)
    (left / "images.npy").write_bytes(b"half")
    again = encode()
    assert again.status == 0 and again.out.startswith(f"{tmp_path}/features/train: encoded before\n")
    assert bytes_of(tmp_path / "features") == whole


def test_folders_that_hold_something_else_are_kept(encode: Encode, shards: Path, tmp_path: Path) -> None:
    (tmp_path / "features" / "val").mkdir(parents=True)
    (tmp_path / "features" / "val" / "notes.txt").write_text("mine")
    error = encode(shards / "val", flags=("--overwrite",)).error
    assert error == f"{tmp_path}/features/val: exists and holds no features: choose another folder"
    assert (tmp_path / "features" / "val" / "notes.txt").read_text() == "mine"
    other = shutil.copytree(shards / "val", tmp_path / "towers")
    assert "would be named 'towers', which the folder of the towers has" in encode(other).error
    twice = shutil.copytree(shards / "val", tmp_path / "other" / "val")
    assert f"would be named 'val', as {shards}/val" in encode(shards / "val", twice).error
    assert "other/nothing: no such folder of shards" in encode(tmp_path / "other" / "nothing").error


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"vision": {"timm_proj": ""}}, "only a timm image tower with a head of its own can be encoded"),
        ({"text": {"hf_proj_type": None}}, "only a Hugging Face text tower with a head of its own can be encoded"),
        ({"vision": {"timm_proj": "mpl"}}, "timm_proj"),
        (
            {"vision": {"timm_model_name": None, "timm_pool": None, "timm_proj": None, "timm_drop": None, "layers": 1}},
            "only a timm image tower with a head of its own can be encoded: give model.vision.timm_model_name",
        ),
    ],
)
def test_towers_without_a_head_apart_are_refused(model: dict, message: str, encode: Encode, tmp_path: Path) -> None:
    assert message in encode(model=model).error
    assert not (tmp_path / "features").exists()


def test_a_model_with_trained_heads_is_refused(encode: Encode, tmp_path: Path) -> None:
    model = {"image_size": None, "embed_dim": None, "vision": None, "text": None, "pretrained": "runs/x"}
    config = tmp_path / "run.yaml"
    write_locked_config(config, tmp_path)
    values = yaml.safe_load(config.read_text()) | {"model": model}
    config.write_text(yaml.safe_dump(values))
    assert main(["encode", str(tmp_path / "data"), "--model", str(config), "--to", str(tmp_path / "features")]) == 2


def test_features_beyond_float16_are_refused(encode: Encode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = LockedTowers.encode_image
    monkeypatch.setattr(LockedTowers, "encode_image", lambda self, pixels: real(self, pixels) + 70_000)
    error = encode().error
    assert "image 0 (00000.tar, row 0): its feature is not finite in float16, whose largest number is 65,504" in error
    assert [path.name for path in (tmp_path / "features").iterdir()] == ["towers"]
