"""Decide what of the towers is trained and at which learning rates: locks, parts, layers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from accelerate import PartialState
from torch import nn

from bimodal_cl.cli.progress import note
from bimodal_cl.errors import SettingRefused
from bimodal_cl.models import DualEncoder
from bimodal_cl.optim import Part, split_parts

# What a run did that was begun before these could be chosen; see describe_trained.
EARLIER_RUNS = {
    "optim.name": "adamw",
    "optim.image": "trained",
    "optim.text": "trained",
    "optim.heads_learning_rate": "that of the weights",
}


def lock_towers(
    model: DualEncoder,
    unlocked: Mapping[str, int | None],
    fresh: Mapping[str, bool],
    freeze_statistics: bool = False,
) -> None:
    """Lock the towers, say how much is trained, and warn where a tower is locked that has learned nothing yet.

    Args:
        model: the dual encoder, in training mode.
        unlocked: by modality, how many of the last groups stay trained; None: the tower is not locked.
        fresh: by modality, whether the tower was built by its architecture alone (with a library's pretrained weights,
            or random ones), and not from weights of a whole model or of a file.
        freeze_statistics: whether the image tower's batch norms keep their statistics.

    Raises:
        UserError: so many groups that nothing would be locked, nothing is left to train, or no batch norm to freeze.
    """
    model.lock(image_unlocked=unlocked["image"], text_unlocked=unlocked["text"], freeze_statistics=freeze_statistics)
    architecture = model.architecture
    pretrained = {
        "image": bool(architecture.vision.get("timm_model_name") and architecture.vision.get("timm_model_pretrained")),
        "text": bool(architecture.text.get("hf_model_name") and architecture.text.get("hf_model_pretrained", True)),
    }
    for modality, groups in unlocked.items():
        if fresh[modality] and groups is not None and not pretrained[modality]:
            warnings.warn(
                f"optim.{modality}.lock: the {modality} tower starts from random weights, and what is locked of it "
                "keeps them; start from pretrained ones (model.pretrained), or leave the lock out",
                stacklevel=2,
            )
    if freeze_statistics and fresh["image"] and not pretrained["image"]:
        warnings.warn(
            "optim.image.freeze_statistics: the image tower starts from random weights, whose batch norms have no "
            "statistics yet and never get any; start from pretrained ones, or leave it out",
            stacklevel=2,
        )
    counts = {
        modality: [sum(one.numel() for one in tower.parameters() if one.requires_grad or every) for every in (0, 1)]
        for modality, tower in (("image", model.visual), ("text", model.text))
    }
    if not any(trained for trained, _ in counts.values()):
        raise SettingRefused(
            "optim.image.lock and optim.text.lock leave nothing to train: leave one of them out, or train the last "
            "groups with optim.text.unlocked_groups=1"
        )
    if any(groups is not None for groups in unlocked.values()) and PartialState().is_main_process:
        parts = (f"{trained:,} of {every:,} of the {modality} tower" for modality, (trained, every) in counts.items())
        note(f"trained parameters: {', '.join(parts)}")


def describe_trained(
    name: str, image: Mapping[str, Any], text: Mapping[str, Any], heads_learning_rate: float | None = None
) -> dict[str, str]:
    """Describe what a resumed run must share with its checkpoint so that the optimizer's state fits, by key.

    Args:
        name: the optimizer's.
        image: ``lock``, ``unlocked_groups``, ``learning_rate`` and ``layer_decay`` of the image tower.
        text: of the text tower.
        heads_learning_rate: of the projections. Rates may change from run to run, but not which parts have their own.
    """
    return {
        "optim.name": name,
        "optim.image": _describe_tower(**image),
        "optim.text": _describe_tower(**text),
        "optim.heads_learning_rate": "that of the weights" if heads_learning_rate is None else "its own",
    }


def _describe_tower(
    lock: bool,
    unlocked_groups: int,
    layer_decay: float,
    learning_rate: float | None = None,
    freeze_statistics: bool = False,  # changes no parameter that the optimizer knows
) -> str:
    trained = "trained" if not lock else f"locked but for {unlocked_groups} groups" if unlocked_groups else "locked"
    if layer_decay != 1:
        return f"{trained}, with rates by layer"
    return trained if learning_rate is None else f"{trained}, with a rate of its own"


def find_parts(
    model: DualEncoder,
    *,
    learning_rate: float,
    tower_learning_rates: Mapping[str, float | None],
    layer_decays: Mapping[str, float],
    heads_learning_rate: float | None,
) -> list[Part]:
    """Return the parts of the model with learning rates of their own; see :func:`bimodal_cl.optim.split_parts`.

    Raises:
        SettingRefused: a rate of the heads where none is trained.
    """
    parts = split_parts(
        _layers_of(model),
        learning_rate=learning_rate,
        tower_learning_rates=tower_learning_rates,
        layer_decays=layer_decays,
        heads_learning_rate=heads_learning_rate,
    )
    if heads_learning_rate is not None and not any(part.name == "heads" for part in parts):
        raise SettingRefused(
            f"optim.heads_learning_rate={heads_learning_rate} has no effect: no projection is trained; leave it out"
        )
    return parts


def find_hidden(model: DualEncoder) -> list[nn.Parameter]:
    """Return the parameters inside the towers' blocks: neither embeddings, such as T5's of distances, nor heads."""
    tables = {id(one) for module in model.modules() if isinstance(module, nn.Embedding) for one in module.parameters()}
    inside = [one for layers in _layers_of(model).values() for layer in layers[1:-1] for one in layer]
    return [one for one in inside if id(one) not in tables]


def _layers_of(model: DualEncoder) -> dict[str, list[list[nn.Parameter]]]:
    """Return the parameters of each tower by layer, the head's last."""
    found: dict[str, list[list[nn.Parameter]]] = {}
    for modality, tower in (("image", model.visual), ("text", model.text)):
        layers = model.layers[modality]
        found[modality] = [[] for _ in range(layers.head + 1)]
        for name, parameter in tower.named_parameters():
            found[modality][layers.numbers[name]].append(parameter)
    return found
