"""Load a weights file of the user's own into a timm tower, by the names of its tensors or, if asked, by their order.

timm converts files in the layouts that the authors of its models published. A file of another program has the same
tensors under other names. Such a file is paired with the tower one by one, in the order in which both programs made
their layers, if every shape agrees.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bimodal_cl.errors import UserError
from bimodal_cl.models.locate.paths import near_path
from bimodal_cl.models.weights.weight_file import read_weight_file

PATH_KEY, ORDER_KEY = "model.vision.timm_checkpoint_path", "model.vision.timm_checkpoint_by_order"
# The ends of the names of tensors that may have the same shape, and mean something else.
_KINDS = {"weight", "bias", "running_mean", "running_var"}
_COUNTER = "num_batches_tracked"  # of a batch norm; no weight, and old files have none

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class TimmFile:
    """A file with the weights of a timm model.

    Args:
        path: the file: safetensors, or written by ``torch.save``.
        by_order: pair the tensors in order where their names do not fit.
    """

    path: Path
    by_order: bool = False

    def load_into(self, trunk: nn.Module, name: str) -> str:
        """Load the file into a timm model, all but the file's classifier: the tower has none, or one of its own.

        Args:
            trunk: the timm model, with or without a classifier.
            name: of its architecture, for messages.

        Returns:
            What was loaded, left out and, by order, paired: one line for the user.

        Raises:
            UserError: the file is missing or damaged, or its tensors do not fit; the message names those that do not.
        """
        if not self.path.is_file():
            raise UserError(f"{PATH_KEY} '{self.path}': no such file{near_path(self.path)}")
        own = _own_tensors(trunk)
        stored = {key: tensor for key, tensor in read_weight_file(self.path).tensors.items() if _is_weight(key)}
        by_name = {key: tensor for key, tensor in _converted(stored, trunk).items() if _is_weight(key)}
        classifier = [key for key in by_name if key.startswith(_classifier_prefixes(trunk)) and key not in own]
        by_name = {key: tensor for key, tensor in by_name.items() if key not in classifier}
        problem = _compare_names(own, by_name)
        if problem is None:
            trunk.load_state_dict(by_name, strict=False)
            return f"{PATH_KEY}: {len(by_name)} tensors of {self.path.name} by name{_left_out(classifier)}"
        if not self.by_order:
            fits = _compare_order(own, stored, trunk) is None and not self._is_sorted()
            hint = f"; in order, all shapes match: {ORDER_KEY}=true pairs them so" if fits else ""
            raise UserError(f"{self.path}: the tensors do not match timm's '{name}': {problem}{hint}")
        if self._is_sorted():
            raise UserError(
                f"{ORDER_KEY}=true: {self.path} is a safetensors file, which keeps its tensors in the order of their "
                "names, not of the layers: give a file written by torch.save"
            )
        problem = _compare_order(own, stored, trunk)
        if problem is not None:
            raise UserError(f"{self.path}: the tensors do not match timm's '{name}' in order: {problem}")
        pairs = list(zip(own, stored, strict=False))
        trunk.load_state_dict({ours: stored[theirs] for ours, theirs in pairs}, strict=False)
        shown = " ... ".join(f"'{theirs}' to '{ours}'" for ours, theirs in (pairs[0], pairs[-1]))
        left_out = _left_out(list(stored)[len(pairs) :])
        return (
            f"{PATH_KEY}: {len(pairs)} tensors of {self.path.name} paired in order, as shapes match: {shown}{left_out}"
        )

    def _is_sorted(self) -> bool:
        return self.path.suffix == ".safetensors"


def _own_tensors(trunk: nn.Module) -> dict[str, Tensor]:
    """Return the trunk's tensors in order, without those of a classifier that serves as the projection."""
    classifier = trunk.get_classifier() if hasattr(trunk, "get_classifier") else None  # type: ignore[operator]
    parts = classifier if isinstance(classifier, (tuple, list)) else [classifier]
    ids = {id(one) for part in parts if isinstance(part, nn.Module) for one in part.parameters()}
    tensors = trunk.state_dict(keep_vars=True)
    return {key: tensor for key, tensor in tensors.items() if id(tensor) not in ids and _is_weight(key)}


def _is_weight(key: str) -> bool:
    return not key.endswith(_COUNTER)


def _converted(stored: Tensors, trunk: nn.Module) -> Tensors:
    """Return the tensors as timm's own loader renames them: its models have a function for their authors' layouts."""
    convert: Any = getattr(sys.modules[type(trunk).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return stored
    try:
        return convert(dict(stored), trunk)
    except Exception:  # it expects one of the layouts that it knows
        return stored


def _classifier_prefixes(trunk: Any) -> tuple[str, ...]:
    names = (getattr(trunk, "pretrained_cfg", None) or {}).get("classifier") or ()
    return tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))


def _compare_names(own: Tensors, given: Tensors) -> str | None:
    """Return how the names and shapes differ, or None where they fit."""
    missing, unexpected = ([key for key in one if key not in other] for one, other in ((own, given), (given, own)))
    problems = [
        f"{len(keys)} {kind} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for kind, keys in (("missing", missing), ("unexpected", unexpected))
        if keys
    ]
    if problems:
        return " and ".join(problems)
    other = [key for key in own if own[key].shape != given[key].shape]
    if not other:
        return None
    first = other[0]
    shapes = f"'{first}' is {list(given[first].shape)} and not {list(own[first].shape)}"
    return f"{len(other)} of another shape ({shapes})"


def _compare_order(own: Tensors, stored: Tensors, trunk: nn.Module) -> str | None:
    """Return the first pair of tensors that differ in shape or kind, or None where all fit, up to a classifier."""
    for number, (ours, theirs) in enumerate(zip(own, stored, strict=False), start=1):
        kinds = {ours.rpartition(".")[2], theirs.rpartition(".")[2]}
        if own[ours].shape != stored[theirs].shape or (len(kinds) == 2 and kinds <= _KINDS):
            shapes = (list(stored[theirs].shape), list(own[ours].shape))
            return f"tensor {number} is '{theirs}' {shapes[0]} in the file and '{ours}' {shapes[1]} in the tower"
    rest = list(stored)[len(own) :]
    if len(stored) < len(own):
        return f"the file ends after {len(stored)} tensors, before '{list(own)[len(stored)]}'"
    if not _is_classifier([stored[key] for key in rest], trunk):
        return f"the file has {len(rest)} tensors after the tower's last, from '{rest[0]}', which are no classifier"
    return None


def _is_classifier(tensors: list[Tensor], trunk: Any) -> bool:
    """Return whether these are matrices from the tower's features to classes, each perhaps with its bias."""
    widths = {trunk.num_features, getattr(trunk, "head_hidden_size", trunk.num_features)}
    classes = None
    for tensor in tensors:
        if tensor.ndim >= 2 and tensor.shape[1] in widths and tensor[0, 0].numel() == 1:
            classes = tensor.shape[0]
        elif tensor.shape == (classes,):
            classes = None
        else:
            return False
    return True


def _left_out(keys: list[str]) -> str:
    return f"; left out, as the tower has a head of its own: {', '.join(sorted(keys))}" if keys else ""
