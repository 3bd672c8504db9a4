"""Run by ``accelerate launch``: encode together, and compare with what a process alone encodes; or fail on one rank."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace

import numpy as np
import torch

from bimodal_cl.cli.processes import joined_processes
from bimodal_cl.distributed import gather_objects, rank, share_of_rank, world_size
from bimodal_cl.errors import UserError
from bimodal_cl.models import build_model
from bimodal_cl.scoring.classifier import build_classifier
from bimodal_cl.scoring.retrieval import encode_pairs
from bimodal_cl.scoring.zero_shot import encode_labelled
from tests.refusals import refused
from tests.test_eval_commands.conftest import draw

NUM_IMAGES = (1, 2, 3, 31, 33, 97)
NUM_PROMPTS = ((2, 1), (3, 7), (29, 5), (67, 4))  # classes, templates; the last ones need several batches
COLOURS = ("red", "green", "blue")


class Labelled:
    """Images of which every fifth is equal to the first, and the third and the last cannot be read."""

    templates = None

    def __init__(self, count, several_classes):
        self.classnames = list(COLOURS)
        rng = np.random.default_rng(count)
        self.labels = list(rng.integers(0, 2, (count, 3))) if several_classes else rng.integers(0, 3, count).tolist()

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        if index == 2 or (index and index == len(self) - 1):
            raise UserError(f"picture {index} is broken")
        return picture(index), self.labels[index]


def picture(index):
    return draw(COLOURS[index % 3], index) if index % 5 else draw("red", 0)


def batches(model, first, last):
    """Return a stream of images with none to two captions; all ids differ, some images and captions are equal."""
    for start in range(first, last, 4):
        numbers = list(range(start, min(start + 4, last)))
        yield SimpleNamespace(
            images=torch.stack([model.preprocess(picture(number)) for number in numbers]),
            image_ids=torch.tensor(numbers),
            captions=[[f"a {COLOURS[number % 3]} one", f"number {number}"][: (number + 1) % 3] for number in numbers],
            first_text_ids=torch.tensor([2 * number for number in numbers]),
        )


def assert_equal(together, alone):
    for name, value in vars(alone).items():
        other = getattr(together, name)
        assert torch.equal(other, value) if isinstance(value, torch.Tensor) else other == value, (name, other, value)


def compare():
    torch.manual_seed(7)
    vision = {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    model = build_model(embed_dim=16, vision=vision, text=text).eval()
    for count in NUM_IMAGES:
        for several_classes in (False, True):
            data = Labelled(count, several_classes)
            assert_equal(encode_labelled(model, data, batch_size=3, shared=True), encode_labelled(model, data))
        first, last = share_of_rank(count)
        together = encode_pairs(model, batches(model, first, last), shared=True)
        assert_equal(together, encode_pairs(model, batches(model, 0, count)))
    for num_classes, num_templates in NUM_PROMPTS:
        names = [f"thing {number % 61}" for number in range(num_classes)]  # some are equal
        templates = [f"{number} times {{c}}" for number in range(num_templates)]
        assert_equal(build_classifier(model, names, templates, shared=True), build_classifier(model, names, templates))
    with refused("none of 0 images could be read"):
        encode_labelled(model, Labelled(0, False), shared=True)
    with refused("there is no image to encode"):
        encode_pairs(model, [], shared=True)


def main(task, failing_rank="0"):
    with joined_processes():
        assert world_size() == 2
        if task == "compare":
            compare()
            print(f"rank {rank()} has compared")
            return
        if rank() == int(failing_rank):
            time.sleep(1)
            raise {"mistake": UserError(f"a mistake on rank {failing_rank}"), "interrupt": KeyboardInterrupt()}[task]
        gather_objects(None)  # waits for the other one


if __name__ == "__main__":
    from bimodal_cl.cli.exit_status import with_exit_status

    sys.exit(with_exit_status(lambda argv: main(*argv))())
