"""Gradient checkpointing, compilation, TF32 and the state of fp16's loss scale."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
import yaml
from accelerate import Accelerator
from torch import nn

from bimodal_cl.config.checks.speed import SPEED_REFUSALS, SPEED_WARNINGS
from bimodal_cl.config.checks.world import World
from bimodal_cl.config.schema import Config
from bimodal_cl.errors import UserError
from bimodal_cl.models import build_model
from bimodal_cl.models.towers.gradient_checkpointing import checkpoint_gradients
from bimodal_cl.run_folder import read_state
from bimodal_cl.training.encoded_batch import EncodedBatch
from bimodal_cl.training.speed.switches import apply_switches, is_compiled, use_tf32, without_compilation
from tests.test_training.accumulation import small_towers
from tests.test_training.run_files import assert_equal_runs, assert_equal_tensors, read_log, read_losses

VISION = {"patch_size": 8, "width": 32, "layers": 3, "head_width": 16, "patch_dropout": 0.25}
TEXT = {"context_length": 16, "width": 16, "heads": 1, "layers": 2}
TIMM = {"timm_model_name": "vit_tiny_patch16_224", "timm_drop_path": 0.3}


def build(vision: dict, **switches: Any) -> nn.Module:
    torch.manual_seed(0)
    model = build_model(image_size=32, embed_dim=16, vision=vision, text=TEXT).train()
    apply_switches(model, "cpu", **switches)
    return model


def gradients(model: nn.Module) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(256, (8, 3, 32, 32), generator=generator, dtype=torch.uint8)
    tokens = torch.randint(1, 1000, (8, 16), generator=generator)
    torch.manual_seed(2)
    images, texts = model(pixels, tokens)
    (images @ texts.T).logsumexp(dim=1).sum().backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def saved_bytes(model: nn.Module) -> int:
    """Return the bytes that the graph of a forward pass holds, each storage once."""
    held: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    for parameter in model.parameters():
        parameter.requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(torch.zeros(64, 3, 32, 32, dtype=torch.uint8), torch.ones(64, 16, dtype=torch.long))
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    assert out[0].requires_grad
    return sum(size for pointer, size in held.items() if pointer not in weights)


@pytest.mark.parametrize("vision", [VISION, TIMM], ids=["open_clip", "timm"])
def test_checkpointing_leaves_gradients_and_dropout_and_saves_memory(vision):
    plain, checkpointed = build(vision), build(vision, grad_checkpointing=True)
    for one, other in zip(gradients(plain), gradients(checkpointed), strict=True):
        assert torch.equal(one, other)
    assert saved_bytes(checkpointed) < 0.5 * saved_bytes(plain)


def test_checkpointing_of_a_hugging_face_tower():
    from transformers import BertConfig, BertModel

    from bimodal_cl.models.towers.huggingface_text import HuggingFaceTextTower

    def build_text() -> nn.Module:
        torch.manual_seed(0)
        small = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
        bert = BertModel(BertConfig(vocab_size=50, hidden_dropout_prob=0.3, **small), add_pooling_layer=False)
        return HuggingFaceTextTower(bert, 16, 8, 10, pad_id=0, eos_id=None, pooler="mean_pooler", projection="linear")

    found = []
    for checkpointed in (False, True):
        tower = build_text().train()
        if checkpointed:
            checkpoint_gradients(tower, "text")
        torch.manual_seed(3)
        tower(torch.randint(1, 50, (4, 10), generator=torch.Generator().manual_seed(4))).square().sum().backward()
        found.append([parameter.grad for parameter in tower.parameters()])
        runs = any(getattr(module, "gradient_checkpointing", False) for module in tower.modules())
        assert runs == checkpointed
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_a_tower_that_cannot_checkpoint_is_refused():
    with pytest.raises(UserError, match=r"the image tower does not support it.*ResNets cannot do it; timm's can"):
        build({"layers": [1, 1, 1, 1], "width": 8}, grad_checkpointing=True)
    with pytest.raises(UserError, match="the text tower does not support it"):
        checkpoint_gradients(nn.Linear(2, 2), "text")


def test_patch_dropout_replaces_that_of_the_model():
    tokens: list[int] = []
    for share, kept in ((0.5, 8), (0.0, 16), (None, 12)):
        model = build(VISION, patch_dropout=share)
        model.visual.transformer.register_forward_pre_hook(lambda _, inputs: tokens.append(inputs[0].shape[1]))
        gradients(model)
        assert tokens[-1] == kept + 1, share  # with the class token
    with pytest.raises(UserError, match="only open_clip's vision transformers"):
        build(TIMM, patch_dropout=0.5)


def test_the_switch_of_a_run_changes_no_bit(run_training):
    plain = run_training("plain")
    assert_equal_runs(plain, run_training("checkpointed", train={"grad_checkpointing": True}))


def test_tf32_is_on_for_the_towers_and_off_for_the_loss():
    """The process's switch where each part multiplies: forward in order, then backward."""
    model = build(VISION)
    seen: list[tuple[str, str]] = []

    class Watch(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, value: torch.Tensor, name: str) -> torch.Tensor:
            ctx.name = name
            seen.append((name, torch.get_float32_matmul_precision()))
            return value.view_as(value)

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> Any:
            seen.append((f"{ctx.name} backward", torch.get_float32_matmul_precision()))
            return gradient, None

    for name in ("visual", "text"):
        getattr(model, name).register_forward_hook(lambda module, given, out, name=name: Watch.apply(out, name))
    use_tf32(model)
    images, tokens = torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.ones(2, 16, dtype=torch.long)
    try:
        for _ in range(2):
            with torch.no_grad():  # as the first pass of a micro-batch
                model(images, tokens)
            image_features, text_features = model(images, tokens)
            Watch.apply(image_features @ text_features.T, "loss").sum().backward()
        model.encode_text(tokens)
    finally:
        torch.set_float32_matmul_precision("highest")
    towers = [("visual", "high"), ("text", "high")]
    step = [*towers, *towers, ("loss", "highest"), ("loss backward", "highest")]
    step += [("text backward", "high"), ("visual backward", "high")]
    assert seen == [*step, *step, ("text", "highest")]


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")


@needs_compiler
@pytest.mark.timeout(900)
def test_compiled_micro_batches_draw_the_same_dropout_twice(monkeypatch):
    """In float64, against the graphs of all micro-batches at once, compiled as well."""

    def build_compiled(bf16: bool = False, **options: bool) -> nn.Module:
        towers = original(bf16, **options)
        towers.visual.compile()
        towers.text.compile()
        return towers

    original = small_towers.build_towers
    plain = small_towers.take_steps("clip", 0, 1)["steps"]
    monkeypatch.setattr(small_towers, "build_towers", build_compiled)
    cached = small_towers.take_steps("clip", 0, 1)["steps"]
    graphs = small_towers.take_steps_with_graphs("clip", 0, 1)["steps"]
    torch.testing.assert_close(cached, graphs, rtol=1e-9, atol=1e-11)
    without = small_towers.take_steps("clip", 0, 1, dropout=0.0)["steps"]
    monkeypatch.setattr(small_towers, "build_towers", original)
    torch.testing.assert_close(without, small_towers.take_steps("clip", 0, 1, dropout=0.0)["steps"])
    assert plain["losses"][0] != cached["losses"][0]  # compiled towers draw otherwise


@needs_compiler
def test_compilation_is_in_place_and_set_aside_for_evaluation():
    model = build(VISION, compile=True)
    assert is_compiled(model) and model.state_dict().keys() == build(VISION).state_dict().keys()
    before = torch._dynamo.utils.counters["frames"]["total"]
    with without_compilation(model):
        found = gradients(model)
    assert torch._dynamo.utils.counters["frames"]["total"] == before
    assert all(torch.equal(one, other) for one, other in zip(found, gradients(build(VISION)), strict=True))


def check(train: dict, device: str = "cpu", fsdp: bool = False) -> list[str]:
    config = Config.model_validate(
        yaml.safe_load("{output: o, data: {train: t}, model: {name: ViT-B-32}, loss: {name: clip}}")
        | {"train": {"num_steps": 9, **train}}
    )
    world = World(device, 2, 2, 2, 9, 0, 0, fsdp)
    return [line for each in (*SPEED_REFUSALS, *SPEED_WARNINGS) if (line := each(config, world)) is not None]


def test_switches_that_cannot_work_are_refused_or_warned_about(monkeypatch):
    assert check({}) == check({"tf32": True}, "cuda") == []
    assert "no effect: TF32 is a format of NVIDIA GPUs" in check({"tf32": True})[0]
    assert "not supported with FSDP" in check({"compile": True}, fsdp=True)[0]
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    (line,) = check({"compile": True})
    assert "'no-such-compiler -O2' is not found: install one" in line and "\n" not in line
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "needs the package triton" in check({"compile": True}, "cuda")[0]


@pytest.fixture
def scaled(monkeypatch):
    """Put a gradient scaler into the accelerator, as fp16 does on a GPU."""

    def put(init_scale: float) -> None:
        original = Accelerator.__init__

        def with_scaler(self, *args, **kwargs):
            original(self, *args, **kwargs)
            self.scaler = torch.amp.GradScaler("cpu", init_scale=init_scale, growth_interval=3)

        def unscale(self):
            for optimizer in self._optimizers:
                self.scaler.unscale_(optimizer.optimizer)

        monkeypatch.setattr(Accelerator, "__init__", with_scaler)
        monkeypatch.setattr(Accelerator, "unscale_gradients", unscale)

    return put


def test_a_scale_that_always_overflows_stops_the_run(training_error, scaled, monkeypatch, tmp_path):
    scaled(2.0**16)
    real = EncodedBatch.backward

    def backward(self):
        real(self)
        self._model.visual.proj.grad.fill_(torch.inf)

    monkeypatch.setattr(EncodedBatch, "backward", backward)
    line = training_error(status=1, train={"max_non_finite": 3}, checkpoint={"every": 1, "keep_last": 9})
    assert "step 3: the gradient is not finite in fp16" in line
    assert "the last of 3 such steps in a row (train.max_non_finite)" in line
    first, second = (tmp_path / "run" / "checkpoints" / f"step_0000000{step}" for step in (1, 2))
    assert_equal_tensors(first / "model.safetensors", second / "model.safetensors")
    norms = [line["grad_norm"] for line in read_log(tmp_path / "run", "train")]
    assert norms == [None, None]  # JSON has no infinity


def test_the_loss_scale_is_saved_and_resumed(run_training, scaled):
    """A scale that overflows is halved and its step skipped."""
    scaled(2.0**126)
    whole = run_training("whole", checkpoint={"every": 6, "keep_last": 9})
    states = {step: read_state(whole / "checkpoints" / f"step_{step:08d}") for step in (6, 10)}
    scales = {step: state["grad_scaler"] for step, state in states.items()}
    assert scales[6]["scale"] < 2.0**126  # it was too large at first
    moments = torch.load(whole / "checkpoints" / "step_00000006" / "optimizer.pt", weights_only=True)["state"]
    assert 0 < moments[0]["step"] < 6  # a skipped step is none of the optimizer's
    run_training("whole", "--resume", str(whole / "checkpoints" / "step_00000006"))
    again = read_state(whole / "checkpoints" / "step_00000010")
    assert again["grad_scaler"] == scales[10]
    assert len(read_losses(whole)) == 10
