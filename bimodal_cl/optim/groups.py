"""Sort parameters into named groups: with and without weight decay, and by part of the model with a rate of its own.

The groups of the whole model are ``decayed``, ``not_decayed`` and, where it has a rate of its own, ``temperature``. A
part that has another learning rate is taken out of them and has groups under its name: ``image/decayed``,
``image/not_decayed``; with layer-wise decay ``image/layer_00/decayed`` and so on; ``heads/decayed``. Muon also has
``matrices`` next to each ``decayed``: the hidden matrices, which it updates itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

DECAYED, NOT_DECAYED, TEMPERATURE = "decayed", "not_decayed", "temperature"  # names of the parameter groups
MATRICES = "matrices"  # with Muon: the hidden ones, which are decayed, too
HEADS = "heads"


@dataclass(frozen=True)
class Part:
    """A part of the model with a learning rate of its own.

    Attributes:
        name: begins the names of its groups.
        learning_rate: its peak.
        parameters: of the part, trained ones alone.
    """

    name: str
    learning_rate: float
    parameters: list[nn.Parameter]


def split_parts(
    towers: Mapping[str, Sequence[Sequence[nn.Parameter]]],
    *,
    learning_rate: float,
    tower_learning_rates: Mapping[str, float | None],
    layer_decays: Mapping[str, float],
    heads_learning_rate: float | None = None,
) -> list[Part]:
    """Return the parts of the model that have another learning rate than the rest.

    With a layer decay ``d`` the peak of layer ``l`` of ``0 .. L`` is ``d ** (L - l)`` times that of the tower, where
    layer ``L`` is the head (BEiT: Bao et al., ICLR 2022, arXiv 2106.08254). The heads themselves have
    ``heads_learning_rate``.

    Args:
        towers: by name, the layers' parameters, the head's last.
        learning_rate: peak of everything that has none of its own.
        tower_learning_rates: peak of each tower without its head, or None.
        layer_decays: of each tower, in (0, 1]; 1: all layers have the tower's rate.
        heads_learning_rate: peak of all towers' heads, or None.
    """
    parts = []
    for name, layers in towers.items():
        own, decay = tower_learning_rates[name], layer_decays[name]
        peak = learning_rate if own is None else own
        if decay != 1:
            head = len(layers) - 1
            parts += [
                Part(f"{name}/layer_{number:02d}", peak * decay ** (head - number), _trained(layer))
                for number, layer in enumerate(layers[:-1])
            ]
        elif own is not None:
            parts.append(Part(name, peak, _trained(parameter for layer in layers[:-1] for parameter in layer)))
    if heads_learning_rate is not None:
        heads = _trained(parameter for layers in towers.values() for parameter in layers[-1])
        parts.append(Part(HEADS, heads_learning_rate, heads))
    return [part for part in parts if part.parameters]


def build_groups(
    model: nn.Module,
    temperatures: Iterable[nn.Parameter],
    *,
    weight_decay: float,
    temperature_learning_rate: float | None,
    parts: Sequence[Part] = (),
) -> list[dict[str, Any]]:
    """Return the parameter groups of an optimizer, each with a ``"name"``.

    Args:
        model: its trained parameters, in its order.
        temperatures: the loss's learned parameters.
        weight_decay: of parameters with two dimensions or more.
        temperature_learning_rate: constant rate of ``temperatures``, then a group; None: they are ``not_decayed``.
        parts: parts of the model with rates of their own.
    """
    taken = {id(parameter) for part in parts for parameter in part.parameters}
    rest = [parameter for parameter in _trained(model.parameters()) if id(parameter) not in taken]
    groups = _split_by_decay("", rest, weight_decay)
    if temperature_learning_rate is None:
        groups[1]["params"] += temperatures
    else:
        rate = temperature_learning_rate
        groups.append({"name": TEMPERATURE, "params": list(temperatures), "weight_decay": 0.0, "lr": rate})
    for part in parts:
        for group in _split_by_decay(f"{part.name}/", part.parameters, weight_decay):
            if group["params"]:
                groups.append({**group, "lr": part.learning_rate})
    return groups


def separate_matrices(groups: Sequence[dict[str, Any]], hidden: Collection[int]) -> list[dict[str, Any]]:
    """Return Muon's groups: the hidden matrices apart, and all others marked for its fallback, AdamW.

    Args:
        groups: from :func:`build_groups`.
        hidden: ids of the parameters inside the towers' blocks. Embeddings and projections are none of them: what makes
            Muon's update good, equal singular values, is not wanted of a table of tokens.
    """
    separated = []
    for group in groups:
        prefix, _, kind = group["name"].rpartition("/")
        matrices = [one for one in group["params"] if kind == DECAYED and id(one) in hidden]
        taken = set(map(id, matrices))
        others = [one for one in group["params"] if id(one) not in taken]
        separated.append({**group, "params": others, "use_fallback": True})
        if matrices:
            name = f"{prefix}/{MATRICES}" if prefix else MATRICES
            separated.append({**group, "name": name, "params": matrices})
    return separated


def _trained(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    return [parameter for parameter in parameters if parameter.requires_grad]


def _split_by_decay(prefix: str, parameters: Sequence[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    decayed = [parameter for parameter in parameters if parameter.ndim >= 2]
    free = [parameter for parameter in parameters if parameter.ndim < 2]
    return [
        {"name": prefix + DECAYED, "params": decayed, "weight_decay": weight_decay},
        {"name": prefix + NOT_DECAYED, "params": free, "weight_decay": 0.0},
    ]
