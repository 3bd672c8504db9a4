"""Tables of random features, written with numpy alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bimodal_cl.data import Manifest, open_stream
from bimodal_cl.data.features.manifest import FeatureManifest
from bimodal_cl.data.shards.mixture import Mixture
from bimodal_cl.data.shards.reader import RowReader

IMAGE_WIDTH, TEXT_WIDTH = 6, 4


def read_first_text_ids(manifest: Manifest) -> np.ndarray:
    reader = RowReader(manifest)
    firsts = [reader.first_text_ids(shard) for shard in range(len(manifest.shards))]
    reader.close()
    return np.concatenate([*firsts, [manifest.num_texts]]).astype(np.int64)


def moments_of(images: np.ndarray, texts: np.ndarray) -> dict[str, np.ndarray]:
    """Mean and variance of all rows, as numpy computes them in float64."""
    rows = {"image": images.reshape(-1, images.shape[-1]).astype(float), "text": texts.astype(float)}
    return {
        f"{name}_{moment}": getattr(each, function)(axis=0)
        for name, each in rows.items()
        for moment, function in (("mean", "mean"), ("variance", "var"))
    }


@pytest.fixture
def write_features(tmp_path: Path) -> Callable[..., FeatureManifest]:
    """Write features of shards into ``features/NAME``; images that an evaluation leaves out are not usable."""

    def write(shards: Path, views: int = 0, **changes: object) -> FeatureManifest:
        manifest = Manifest.load(shards)
        folder = tmp_path / "features" / shards.name
        folder.mkdir(parents=True)
        random = np.random.default_rng(len(shards.name) + manifest.num_images)
        images = random.normal(3, 2, (1 + views, manifest.num_images, IMAGE_WIDTH)).astype(np.float16)
        texts = random.normal(-1, 5, (manifest.num_texts, TEXT_WIDTH)).astype(np.float16)
        first_text_ids = read_first_text_ids(manifest)
        stream = open_stream(manifest, 8, 12, train=False, num_workers=0, max_bad_fraction=1.0)
        usable = [image_id for batch in stream for image_id in batch.image_ids.tolist()]
        counted = np.isin(np.arange(manifest.num_images), usable)
        moments = moments_of(images[:, counted], texts[np.repeat(counted, np.diff(first_text_ids))])
        np.save(folder / "images.npy", images)
        np.save(folder / "texts.npy", texts)
        np.save(folder / "first_text_ids.npy", first_text_ids)
        np.savez(folder / "moments.npz", **moments)
        written = FeatureManifest(
            folder=folder,
            shards=str(shards),
            digest=Mixture([manifest]).digest,
            num_images=manifest.num_images,
            num_texts=manifest.num_texts,
            image_width=IMAGE_WIDTH,
            text_width=TEXT_WIDTH,
            views=views,
            crop_scale=(0.5, 1.0),
            flip=True,
            seed=0,
            towers_sha256="0" * 64,
            unusable=tuple(stream.report().examples),
        )
        written = replace(written, **changes)
        written.save()
        return written

    return write
