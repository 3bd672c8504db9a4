"""Apply the switches of ``train`` that make a step faster or smaller, such as compilation.

None of them changes the names of the weights, so a checkpoint may be continued with other switches.

- **Compilation** (``torch.compile``) is done in place, of each tower: pixels are normalised and features are made unit
  vectors outside of it. Compiled and plain towers draw other dropout from the same random state, and so do the compiled
  graphs with and without gradients; :class:`~bimodal_cl.training.encoded_batch.EncodedBatch` uses one of them only.
  Evaluation runs the plain towers, because its batches have other sizes and each size would be compiled.
- **Gradient checkpointing** keeps the input of each block and computes the block again in the backward pass, with the
  random state of before, so dropout and gradients stay the same.
- **Patch dropout** (Li et al., "Scaling Language-Image Pre-training via Masking", CVPR 2023, FLIP) has no weights and
  does nothing in evaluation, so the share may change from run to run.
- **TF32** rounds the factors of float32 matrix products to 10 bits of mantissa on an NVIDIA GPU, in the towers alone:
  see :func:`use_tf32`. torch's default has it for convolutions only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from open_clip.transformer import PatchDropout, VisionTransformer
from torch import nn

from bimodal_cl.errors import UserError
from bimodal_cl.models import DualEncoder
from bimodal_cl.models.towers.gradient_checkpointing import checkpoint_gradients


def apply_switches(
    model: DualEncoder,
    device: str,
    *,
    compile: bool = False,
    grad_checkpointing: bool = False,
    patch_dropout: float | None = None,
    tf32: bool = False,
) -> None:
    """Apply the switches to a model, in place.

    Args:
        model: the dual encoder, before it is prepared for data parallelism.
        device: ``"cpu"``, ``"cuda"``, ...
        compile: compile both towers, at the first step.
        grad_checkpointing: of both towers.
        patch_dropout: share of patches that the image tower leaves out in training, instead of its own; None: its own.
        tf32: allow it for the towers' matrix products, on CUDA.

    Raises:
        UserError: a tower that cannot checkpoint its gradients, or an image tower that has no patch dropout.
    """
    if patch_dropout is not None:
        _set_patch_dropout(model.visual, patch_dropout)
    if grad_checkpointing:
        for modality, tower in (("image", model.visual), ("text", model.text)):
            if any(parameter.requires_grad for parameter in tower.parameters()):  # a locked tower keeps nothing anyway
                checkpoint_gradients(tower, modality)
    if compile:
        model.visual.compile()
        model.text.compile()
    if tf32 and device == "cuda":
        use_tf32(model)


def use_tf32(model: nn.Module) -> None:
    """Round the factors of the towers' float32 matrix products to TF32 in training, forward and backward.

    PyTorch has one switch for the whole process. It is turned on when a batch enters the towers and when gradients come
    back to them, and off when features leave them and at the end of the backward pass. So the loss computes in full
    float32: its logits are similarities over a temperature of about 0.01, which multiplies a rounding error of
    ``2 ** -11`` by 100. The evaluation calls the towers one by one and computes in full float32, too.

    Args:
        model: ``(pixels, tokens) -> (image_features, text_features)``, before it is prepared for data parallelism.
    """
    before = torch.get_float32_matmul_precision()

    def turn_on(*_: object) -> None:
        torch.set_float32_matmul_precision("high")

    def turn_off(*_: object) -> None:
        torch.set_float32_matmul_precision(before)

    def turn_on_until_the_end(*_: object) -> None:
        turn_on()
        torch.autograd.Variable._execution_engine.queue_callback(turn_off)

    model.register_forward_pre_hook(turn_on)
    model.register_forward_hook(turn_off, always_call=True)
    model.register_full_backward_pre_hook(turn_on_until_the_end)


def _set_patch_dropout(visual: nn.Module, share: float) -> None:
    if not isinstance(visual, VisionTransformer):
        raise UserError(
            f"train.patch_dropout={share}: only open_clip's vision transformers leave patches out, and the image "
            f"tower is a {type(visual).__name__}; leave it out"
        )
    visual.patch_dropout = PatchDropout(share) if share else nn.Identity()


def is_compiled(model: nn.Module) -> bool:
    """Return whether a part of the model was compiled in place."""
    return any(module._compiled_call_impl is not None for module in model.modules())


@contextmanager
def without_compilation(model: nn.Module) -> Iterator[None]:
    """Run the plain towers; the compiled ones are kept for later."""
    if not is_compiled(model):
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
