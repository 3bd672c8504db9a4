"""Features or a gradient that are not finite stop the run, or the step is left out; no state takes anything of it."""

import json

import pytest
import torch
from safetensors.torch import load_file

from bimodal_cl.models.dual_encoder import DualEncoder
from bimodal_cl.training.encoded_batch import EncodedBatch
from tests.test_training.run_files import assert_equal_tensors, read_log

SKIP = {"non_finite": "skip"}


@pytest.fixture
def spoil(monkeypatch):
    """Make the features of one image, or the gradient, NaN in some steps, counted from 1."""

    def arrange(what: str, *steps: int) -> None:
        count = 0
        encode, backward = DualEncoder.encode_image, EncodedBatch.backward

        def encode_image(self, pixels):
            nonlocal count
            features = encode(self, pixels)
            if not self.training:
                return features
            count += 1
            if what == "features" and count in steps:
                features = features.index_fill(0, torch.tensor([4]), torch.nan)
            return features

        def spoiled_backward(self):
            backward(self)
            if what == "gradient" and count in steps:
                next(parameter for parameter in self._model.parameters() if parameter.grad is not None).grad.fill_(
                    torch.inf
                )

        monkeypatch.setattr(DualEncoder, "encode_image", encode_image)
        monkeypatch.setattr(EncodedBatch, "backward", spoiled_backward)

    return arrange


def test_a_stop_names_step_rank_and_samples(training_error, spoil, tmp_path):
    spoil("features", 3)
    line = training_error(status=1, checkpoint={"every": 1})
    (event,) = read_log(tmp_path / "run", "non_finite")
    (image,) = event["ranks"][0]["image_ids"]
    shard, row = divmod(image, 100)  # images of a shard
    named = f"step 3: the features are not finite on rank 0: images {image} ({shard:05d}.tar, row {row}), text ids none"
    assert named in line and "train.non_finite=skip" in line
    assert event["step"] == 3 and event["ranks"] == [{"rank": 0, "image_ids": [image], "text_ids": []}]
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("step_*"))
    assert kept == ["step_00000001", "step_00000002"]


def test_a_stop_for_a_gradient_names_parameters(training_error, spoil, tmp_path):
    spoil("gradient", 2)
    line = training_error(status=1)
    assert "step 2: the gradient is not finite, of visual." in line
    (event,) = read_log(tmp_path / "run", "non_finite")
    assert len(event["ranks"][0]["image_ids"]) == 72 and event["parameters"][0].startswith("visual.")


@pytest.mark.parametrize("what", ["features", "gradient"])
def test_a_step_that_is_left_out_changes_no_weight(run_training, spoil, capfd, what):
    options = {"train": {"num_epochs": None, "num_steps": 3, **SKIP}, "checkpoint": {"every": 1, "keep_last": 3}}
    spoil(what, 2)
    run = run_training(**options)
    assert f"step 2: the {what}" in capfd.readouterr().err
    first, second, third = (run / f"checkpoints/step_{step:08d}" for step in (1, 2, 3))
    assert_equal_tensors(first / "model.safetensors", second / "model.safetensors")
    moments = [torch.load(folder / "optimizer.pt", weights_only=True)["state"] for folder in (first, second)]
    assert all(torch.equal(moments[0][0][name], moments[1][0][name]) for name in moments[0][0])
    if what == "features":
        assert_equal_tensors(first / "loss.safetensors", second / "loss.safetensors")
    assert all(torch.isfinite(value).all() for value in moments[1][0].values())
    with pytest.raises(AssertionError):
        assert_equal_tensors(second / "model.safetensors", third / "model.safetensors")
    assert [line["step"] for line in read_log(run, "train")] == [1, 3]
    assert json.loads((third / "state.json").read_text())["non_finite_steps"] == 1
    assert read_log(run, "summary")[0]["non_finite_steps"] == 1


def test_such_features_leave_the_batch_norms_as_they_are(run_training, spoil):
    vision = {"timm_model_name": "resnet10t", "timm_pool": "avg", "timm_proj": "linear"}
    train = {"num_epochs": None, "num_steps": 2, "global_batch_size": 32, **SKIP}
    spoil("features", 2)
    run = run_training(
        model={"vision": vision}, data={"val": None}, train=train, checkpoint={"every": 1, "keep_last": 2}
    )
    first, second = (run / f"checkpoints/step_0000000{step}/model.safetensors" for step in (1, 2))
    assert any(name.endswith("running_var") for name in load_file(first))
    assert_equal_tensors(first, second)


def test_a_run_that_has_diverged_does_not_go_on_for_ever(training_error, tmp_path):
    optim = {"learning_rate": 1e30, "warmup_steps": 0, "max_grad_norm": None}
    line = training_error(status=1, optim=optim, train={"num_epochs": 2, "max_non_finite": 3, **SKIP})
    assert "it is the last of 3 such steps in a row (train.max_non_finite)" in line
    assert len(read_log(tmp_path / "run", "non_finite")) == 3


def test_a_limit_without_effect_is_warned_of(run_training, capfd):
    run_training(train={"max_non_finite": 3})
    assert "train.max_non_finite=3 has no effect with train.non_finite=stop" in capfd.readouterr().err
