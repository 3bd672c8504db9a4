"""Decide what of the towers is trained: lock what the run locks, and refuse a run that trains nothing."""

from __future__ import annotations

import warnings

from bimodal_cl.errors import SettingRefused
from bimodal_cl.models import DualEncoder


def lock_towers(model: DualEncoder, unlocked: dict[str, int | None], fresh: bool) -> None:
    """Lock the towers, and warn where a tower is locked that has learned nothing yet.

    Args:
        model: the dual encoder, in training mode.
        unlocked: by modality, how many of the last groups stay trained; None: the tower is not locked.
        fresh: whether the towers' weights are their own (pretrained or random), not those of a whole model.

    Raises:
        UserError: so many groups that nothing would be locked, or nothing is left to train.
    """
    model.lock(image_unlocked=unlocked["image"], text_unlocked=unlocked["text"])
    architecture = model.architecture
    pretrained = {
        "image": bool(architecture.vision.get("timm_model_name") and architecture.vision.get("timm_model_pretrained")),
        "text": bool(architecture.text.get("hf_model_name") and architecture.text.get("hf_model_pretrained", True)),
    }
    for modality, groups in unlocked.items():
        if fresh and groups is not None and not pretrained[modality]:
            warnings.warn(
                f"optim.{modality}.lock: the {modality} tower starts from random weights, and what is locked of it "
                "keeps them; start from pretrained ones (model.pretrained), or leave the lock out",
                stacklevel=2,
            )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise SettingRefused(
            "optim.image.lock and optim.text.lock leave nothing to train: leave one of them out, or train the last "
            "groups with optim.text.unlocked_groups=1"
        )
