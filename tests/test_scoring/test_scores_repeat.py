"""Scores of real towers are equal to the last digit for every batch size, order and number of workers and threads."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from bimodal_cl.metrics import rank_queries
from bimodal_cl.models import build_model, load_model
from bimodal_cl.scoring.retrieval import encode_pairs, evaluate_retrieval, score_retrieval
from bimodal_cl.scoring.zero_shot import encode_labelled, evaluate_zero_shot

NUM_IMAGES = 75  # more than two batches of a tower, the last one not full
WORDS = ("red", "green", "blue", "grey", "dark", "light")
TOWERS = {
    "transformer": {"image_size": 16, "layers": 2, "width": 48, "head_width": 16, "patch_size": 8},
    "resnet": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
    "depthwise": {"image_size": 32, "timm_model_name": "efficientnet_b0", "timm_pool": "avg"},
}


@pytest.fixture(scope="module", params=TOWERS)
def model(request):
    torch.manual_seed(3)
    text = {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    return build_model(embed_dim=16, vision=TOWERS[request.param], text=text).eval()


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def pictures(model, numbers):
    """Draw images with small differences, so that many similarities are close; some images are equal."""
    base = np.random.default_rng(0).integers(0, 256, (model.image_size, model.image_size, 3))
    return [
        Image.fromarray(
            np.clip(base + np.random.default_rng(number % 60).integers(-2, 3, base.shape), 0, 255).astype(np.uint8)
        )
        for number in numbers
    ]


def captions_of(number):
    """Return one to three captions; some images have equal captions."""
    words = [WORDS[number % 6], WORDS[number // 6 % 6], str(number % 50)]
    return [" ".join(words[: 1 + extra]) for extra in range(1 + number % 3)]


FIRST = np.cumsum([0] + [len(captions_of(number)) for number in range(NUM_IMAGES)])


def stream(model, numbers, batch_size):
    for start in range(0, len(numbers), batch_size):
        part = numbers[start : start + batch_size]
        yield SimpleNamespace(
            images=torch.stack([model.preprocess(each) for each in pictures(model, part)]),
            image_ids=torch.tensor(part),
            captions=[captions_of(number) for number in part],
            first_text_ids=torch.tensor([int(FIRST[number]) for number in part]),
        )


class Labelled:
    def __init__(self, model, order, classes):
        self.images = pictures(model, order)
        self.labels = [classes.index(number % 6) for number in order]
        self.classnames = [WORDS[number] for number in classes]
        self.templates = None

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], self.labels[index]


_scores = {}


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_retrieval(model, threads, batch_size):
    order = np.random.default_rng(batch_size).permutation(NUM_IMAGES).tolist()
    scores = evaluate_retrieval(model, stream(model, order, batch_size))
    assert _scores.setdefault(("retrieval", id(model)), scores) == scores


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (7, 2), (64, 0)])
def test_zero_shot(model, threads, batch_size, workers):
    rng = np.random.default_rng(batch_size)
    data = Labelled(model, rng.permutation(NUM_IMAGES).tolist(), rng.permutation(6).tolist())
    scores = evaluate_zero_shot(model, data, batch_size=batch_size, num_workers=workers)
    assert set(scores) == {"acc1", "acc5", "mean_per_class_recall"}
    assert _scores.setdefault(("zero-shot", id(model)), scores) == scores


def test_a_model_in_training_has_the_features_of_its_checkpoint(model, tmp_path):
    model.save(tmp_path)
    in_training = copy.deepcopy(model).to(memory_format=torch.channels_last)
    order = list(range(NUM_IMAGES))
    features = [encode_pairs(each, stream(each, order, 64)) for each in (in_training, load_model(tmp_path))]
    assert torch.equal(features[0].image_features, features[1].image_features)
    assert torch.equal(features[0].text_features, features[1].text_features)


def test_equal_inputs_have_equal_features(model):
    order = np.random.default_rng(0).permutation(NUM_IMAGES).tolist()
    pairs = encode_pairs(model, stream(model, order, 7))
    row = {number: place for place, number in enumerate(order)}
    assert torch.equal(pairs.image_features[row[0]], pairs.image_features[row[60]])
    same = [place for place, caption in enumerate(pairs.captions) if caption == "red"]
    assert len(same) > 2 and all(torch.equal(pairs.text_features[at], pairs.text_features[same[0]]) for at in same)


def test_features_are_those_of_the_towers(model):
    """Padding batches and encoding equal inputs once changes only the last bits."""
    data = Labelled(model, list(range(NUM_IMAGES)), list(range(6)))
    encoded = encode_labelled(model, data, batch_size=5)
    with torch.no_grad():
        alone = torch.cat([model.encode_image(model.preprocess(image)[None]) for image in data.images])
    torch.testing.assert_close(encoded.image_features, alone, atol=1e-5, rtol=0)
    pairs = encode_pairs(model, stream(model, list(range(NUM_IMAGES)), 64))
    ranked = rank_queries(pairs.image_features, pairs.text_features, pairs.image_of_text)
    assert score_retrieval(ranked) == evaluate_retrieval(model, stream(model, list(range(NUM_IMAGES)), 64))
    with torch.no_grad():
        texts = torch.cat([model.encode_text([caption]) for caption in pairs.captions])
    torch.testing.assert_close(pairs.text_features, texts, atol=1e-5, rtol=0)
