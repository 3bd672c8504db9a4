"""Contrastive losses over image-text pairs, for any training loop.

>>> loss = build_loss("isogclr", num_images=1_000, num_texts=5_000, rho=4.0)
>>> out = loss(image_features, text_features, image_ids, text_ids)
>>> out.loss.backward()
"""

from __future__ import annotations

import inspect
import numbers
import types
import typing
from typing import Any

from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.losses.clip import CLIPLoss
from bimodal_cl.losses.contrastive import ContrastiveLoss, LossOutput
from bimodal_cl.losses.cyclip import CyCLIPLoss
from bimodal_cl.losses.isogclr import ISogCLRLoss
from bimodal_cl.losses.macl import MACLLoss
from bimodal_cl.losses.margin import Margins, contrastive_margins
from bimodal_cl.losses.rgcl_g import RGCLGlobalLoss
from bimodal_cl.losses.siglip import SigLIPLoss
from bimodal_cl.losses.sogclr import SogCLRLoss

_CLASSES: dict[str, type[ContrastiveLoss]] = {
    "clip": CLIPLoss,
    "siglip": SigLIPLoss,
    "cyclip": CyCLIPLoss,
    "macl": MACLLoss,
    "sogclr": SogCLRLoss,
    "isogclr": ISogCLRLoss,
    "rgcl_g": RGCLGlobalLoss,
}
LOSSES = tuple(_CLASSES)
_UNIONS = (types.UnionType, typing.Union)
_NUMBERS = {float: numbers.Real, int: numbers.Integral}

__all__ = ["LOSSES", "ContrastiveLoss", "LossOutput", "Margins", "build_loss", "contrastive_margins"]


def build_loss(
    name: str, *, num_images: int | None = None, num_texts: int | None = None, **hyperparameters: Any
) -> ContrastiveLoss:
    """Build a loss by name.

    Args:
        name: one of :data:`LOSSES`.
        num_images: images of the data set: rows of the per-anchor table.
        num_texts: texts of the data set, likewise.
        hyperparameters: keyword arguments of the named loss; see its class.

    Raises:
        UserError: an unknown name, an unknown hyperparameter for that name, a value of the wrong type (text where a
            number belongs), or a missing table size.
        ValueError: a value out of range, or one that another hyperparameter leaves without effect.
    """
    if name not in _CLASSES:
        raise UserError(f"unknown loss '{name}'{did_you_mean(name, LOSSES)}")
    parameters = inspect.signature(_CLASSES[name]).parameters
    known = [parameter for parameter in parameters if parameter not in ("num_images", "num_texts")]
    for key in hyperparameters:
        if key not in known:
            raise UserError(f"loss '{name}' has no hyperparameter '{key}'{did_you_mean(key, known)}")
    expected = typing.get_type_hints(_CLASSES[name].__init__)
    for key, size in (("num_images", num_images), ("num_texts", num_texts)):
        if size is None and parameters[key].default is inspect.Parameter.empty:
            raise UserError(f"loss '{name}' keeps a state per anchor and needs {key}")
    for key, value in {"num_images": num_images, "num_texts": num_texts, **hyperparameters}.items():
        if not _is_of_type(value, expected[key]):
            raise UserError(f"loss '{name}': {key}={value!r} must be {_describe_type(expected[key])}")
    return _CLASSES[name](num_images=num_images, num_texts=num_texts, **hyperparameters)


def _is_of_type(value: object, expected: Any) -> bool:
    """Whether a hyperparameter fits its annotation; whole numbers are numbers, truth values are not."""
    if typing.get_origin(expected) in _UNIONS:
        return any(_is_of_type(value, choice) for choice in typing.get_args(expected))
    if typing.get_origin(expected) is typing.Literal:
        return value in typing.get_args(expected)
    if expected in _NUMBERS:
        return isinstance(value, _NUMBERS[expected]) and not isinstance(value, bool)
    return isinstance(value, expected)


def _describe_type(expected: Any) -> str:
    if typing.get_origin(expected) in _UNIONS:
        return " or ".join(_describe_type(choice) for choice in typing.get_args(expected))
    if typing.get_origin(expected) is typing.Literal:
        choices = ", ".join(repr(choice) for choice in typing.get_args(expected))
        return f"one of {choices}" if len(typing.get_args(expected)) > 1 else choices
    return {float: "a number", int: "a whole number", bool: "True or False", types.NoneType: "None"}[expected]
