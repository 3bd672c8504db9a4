"""Encoding and scoring in batches keep pairs together, skip unreadable images and restore the model's modes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from bimodal_cl.errors import UserError
from bimodal_cl.scoring.classifier import build_classifier
from bimodal_cl.scoring.encode_once import TEXTS_AT_ONCE, distinct_images, distinct_texts, evaluation_mode
from bimodal_cl.scoring.retrieval import encode_pairs, evaluate_retrieval
from bimodal_cl.scoring.zero_shot import encode_labelled, evaluate_zero_shot
from tests.refusals import refused

WORDS = ("red", "green", "blue")


class ColourEncoder(nn.Module):
    """Encode an image's mean colour and a text's colour words, so that the right answers are known."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.noise = nn.Dropout(0.5)
        self.frozen = nn.Dropout(0.5).eval()
        self.text_batches = []

    def encode_image(self, pixels):
        pixels = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
        return nn.functional.normalize(self.noise(pixels.mean(dim=(2, 3)) * self.scale), dim=-1)

    def encode_text(self, texts):
        self.text_batches.append(len(texts))
        counts = torch.tensor([[float(text.replace(".", "").split().count(word)) for word in WORDS] for text in texts])
        return nn.functional.normalize(self.noise(counts + 0.01), dim=-1)

    def preprocess(self, image):
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def batch(image_ids, colours, captions, first_text_ids):
    images = torch.tensor(colours, dtype=torch.uint8)[:, :, None, None].expand(-1, 3, 4, 4)
    return SimpleNamespace(
        images=images,
        image_ids=torch.tensor(image_ids),
        captions=captions,
        first_text_ids=torch.tensor(first_text_ids),
    )


RED, GREEN, BLUE = (250, 0, 0), (0, 250, 0), (0, 0, 250)
STREAM = [
    batch([0, 2], [RED, GREEN], [["red", "more red"], ["green"]], [0, 5]),
    batch([3, 0], [BLUE, RED], [["blue", "blue blue", "so blue"], ["red", "more red"]], [6, 0]),
]


class Squares:
    """Six squares of three colours, of which the fourth cannot be read."""

    def __init__(self, classnames=WORDS):
        self.classnames = list(classnames)
        self.templates = None

    def __len__(self):
        return 6

    def __getitem__(self, index):
        if index == 3:
            raise UserError("square 3: cannot be used: truncated")
        return Image.new("RGB", (4, 4), (RED, GREEN, BLUE)[index % 3]), index % 3


def test_pairs_belong_together_and_repeats_are_left_out():
    model = ColourEncoder()
    pairs = encode_pairs(model, STREAM)
    assert pairs.image_ids.tolist() == [0, 2, 3]
    assert pairs.image_of_text.tolist() == [0, 0, 1, 2, 2, 2]
    assert pairs.text_ids.tolist() == [0, 1, 5, 6, 7, 8]
    assert pairs.captions == ["red", "more red", "green", "blue", "blue blue", "so blue"]
    assert pairs.image_features.argmax(dim=1).tolist() == [0, 1, 2]
    assert pairs.text_features.argmax(dim=1).tolist() == [0, 0, 1, 2, 2, 2]
    assert model.text_batches == [TEXTS_AT_ONCE]  # every batch has one shape, and equal captions are encoded once


def test_retrieval_of_a_perfect_model():
    scores = evaluate_retrieval(ColourEncoder(), STREAM)
    assert scores.pop("rsum") == 6.0
    assert {name for name, value in scores.items() if value == 1.0} == set(scores)
    assert {"image_retrieval_recall@5", "text_retrieval_recall@10", "text_retrieval_median_rank"} <= set(scores)


def test_zero_shot_of_a_perfect_model():
    assert evaluate_zero_shot(ColourEncoder(), Squares()) == {"acc1": 1.0, "mean_per_class_recall": 1.0}
    # Two names swapped: of one red, two green and two blue squares that can be read, only the blue ones are right.
    swapped = Squares(["green", "red", "blue"])
    scores = evaluate_zero_shot(ColourEncoder(), swapped, templates=["a {c} square"])
    assert scores == {"acc1": 2 / 5, "mean_per_class_recall": pytest.approx(1 / 3)}


def test_what_cannot_be_read_is_named():
    encoded = encode_labelled(ColourEncoder(), Squares(), batch_size=2)
    assert encoded.targets.tolist() == [0, 1, 2, 1, 2]
    assert encoded.skipped == ["image 3: square 3: cannot be used: truncated"]


def test_every_module_keeps_its_mode_and_no_gradient_is_kept():
    model = ColourEncoder()
    model.train()
    model.frozen.eval()
    features = encode_pairs(model, STREAM).image_features
    assert (model.training, model.noise.training, model.frozen.training) == (True, True, False)
    assert not features.requires_grad
    with pytest.raises(RuntimeError, match="broken"), evaluation_mode(model):
        assert not model.noise.training
        raise RuntimeError("broken")
    assert (model.training, model.noise.training, model.frozen.training) == (True, True, False)


def test_autocast_reaches_the_products():
    model = nn.Linear(4, 4)
    with evaluation_mode(model, torch.bfloat16):
        assert model(torch.ones(1, 4)).dtype == torch.bfloat16
    with evaluation_mode(model):
        assert model(torch.ones(1, 4)).dtype == torch.float32


def test_a_class_is_the_renormalised_mean_of_its_prompts():
    model = ColourEncoder().eval()
    templates = ["{c}", "{c} and red", "blue {c} {c}"]
    rows = []
    for name in WORDS:
        prompts = [model.encode_text([template.replace("{c}", name)])[0] for template in templates]
        mean = sum(prompts) / 3
        rows.append(mean / mean.norm())
    classifier = build_classifier(model, WORDS, templates)
    torch.testing.assert_close(classifier.features[classifier.candidate_of_class], torch.stack(rows))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: build_classifier(model, WORDS, ["no place"]), r"template 'no place' has no \{c\}"),
        (lambda model: build_classifier(model, [], ["{c}"]), "0 class names and 1 templates"),
        (lambda model: encode_pairs(model, []), "no image to encode"),
        (lambda model: encode_pairs(model, [batch([0], [RED], [[]], [0])]), "none of the 1 images has a caption"),
    ],
)
def test_refuses_what_cannot_be_scored(call, message):
    with refused(message):
        call(ColourEncoder())


@pytest.mark.parametrize(("device", "images", "texts"), [("cpu", 32, 64), ("meta", 128, 256)])
def test_an_accelerator_sees_larger_batches_of_one_shape(device, images, texts):
    """Torch's device "meta" stands in for a GPU."""
    seen = []

    class Tower:
        def encode_image(self, pixels):
            assert pixels.device.type == device
            seen.append(len(pixels))
            return torch.zeros(len(pixels), 3)

        def encode_text(self, texts):
            seen.append(len(texts))
            return torch.zeros(len(texts), 3)

    for distinct, item, expected in ((distinct_images, torch.zeros(3, 2, 2), images), (distinct_texts, "a", texts)):
        inputs = distinct(Tower(), torch.device(device), torch.device("cpu"))
        for number in range(expected + 1):
            inputs.add(number, item)
        assert inputs.features().shape == (expected + 1, 3)
        assert seen == [expected, expected]
        seen.clear()


def test_the_only_rank_gathers_its_features_without_a_copy():
    model = ColourEncoder().eval()
    for repeats in (1, 2):
        with evaluation_mode(model) as device:
            texts = distinct_texts(model, device)
            for text in ("red", "green", "blue") * repeats:
                texts.add(text, text)
            gathered, own = texts.gather_shares(), texts.features()
        assert torch.equal(gathered, own) and len(own) == 3 * repeats
        assert (gathered.data_ptr() == own.data_ptr()) == (repeats == 1)
