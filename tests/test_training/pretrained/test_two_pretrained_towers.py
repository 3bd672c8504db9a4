"""The recipe of two pretrained towers: built from packages alone, locked, partly locked, and trained."""

from pathlib import Path

import pytest
import torch

from bimodal_cl.config.yaml_files import load_config
from bimodal_cl.losses import build_loss
from bimodal_cl.models import build_model
from bimodal_cl.training.trained_parts import lock_towers
from tests.sentence_model import lite0_file, sentence_folder

RECIPES = Path(__file__).parents[3] / "configs" / "train"
CAPTIONS = ["a dog on a beach", "two people at a table", "a red car", "the city at night"]
NOT_FRESH = {"image": False, "text": False}


@pytest.fixture(scope="module")
def recipe():
    lite0_file(), sentence_folder()  # skips where a package is missing
    return load_config([RECIPES / "flickr8k_lite0_minilm.yaml"], {("model", "image_size"): 64})


@pytest.mark.parametrize(
    ("unlocked", "groups"),
    [
        (0, {"image": {"visual.head"}, "text": {"proj"}}),
        (
            2,
            {
                "image": {"visual.head", "bn2", "conv_head", "blocks.6.", "blocks.5.3."},
                "text": {"proj", "layer.4", "layer.5"},
            },
        ),
        (None, None),
    ],
)
def test_what_is_not_locked_learns_and_all_else_stays_that_of_the_files(recipe, unlocked, groups):
    torch.manual_seed(0)
    model = build_model(**recipe.model.model_dump(mode="json"))
    lock_towers(model, {"image": unlocked, "text": unlocked}, NOT_FRESH, freeze_statistics=True)
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1.0)
    pixels = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    loss = build_loss("clip", num_images=4, num_texts=4)
    ids = torch.arange(4)
    loss(model.encode_image(pixels), model.encode_text(CAPTIONS), ids, ids).loss.backward()
    optimizer.step()
    after = model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any("running" in name or "num_batches" in name for name in moved)
    for modality, tower in (("image", "visual"), ("text", "text")):
        own = {name for name in moved if name.startswith(f"{tower}.")}
        assert own
        if groups is not None:
            assert all(any(part in name for part in groups[modality]) for name in own), sorted(own)
            assert all(any(part in name for name in own) for part in groups[modality]), sorted(own)
        else:
            names = [name for name, _ in getattr(model, tower).named_parameters()]
            assert len(own) > 0.9 * len(names)


def test_the_tuned_recipe_goes_on_from_the_first():
    first, tuned = (load_config([RECIPES / f"flickr8k_lite0_minilm{end}.yaml"]) for end in ("_features", "_tuned"))
    assert tuned.model.pretrained == first.output
    assert tuned.optim.image.unlocked_groups == 9 and tuned.optim.text.unlocked_groups == 2
    assert tuned.optim.image.freeze_statistics and tuned.data.features is None
    assert first.optim.image.lock and first.optim.text.lock and not first.optim.image.unlocked_groups
