"""Resolve names of open_clip's configs and published weights, in all their spellings."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from bimodal_cl.errors import UserError
from bimodal_cl.models.architecture import Architecture
from bimodal_cl.models.locate.hub import why_not_fetched
from bimodal_cl.models.locate.paths import expand_name
from bimodal_cl.models.locate.source import HUB, LOCAL, ModelSource
from bimodal_cl.models.open_clip_config import named_architecture

TIMM = "timm/"


def canonical_architecture(name: str) -> str | None:
    """Return the open_clip config for a name such as ``ViT-B/32``, ``ViT-L/14@336px`` or ``timm/NAME``, or None."""
    import open_clip

    spelled = re.sub(r"@(\d+)(?:px)?$", r"-\1", name.removeprefix(TIMM).replace("/", "-"))
    return spelled if spelled in open_clip.list_models() else None


def configured_architecture(name: str) -> Architecture:
    """Return the architecture for ``model.name``, an open_clip config in any spelling.

    Raises:
        UserError: no such config exists, or the name is one of weights, which belongs in ``model.pretrained``.
    """
    canonical = canonical_architecture(name)
    if canonical is not None:
        return named_architecture(canonical)
    if name.startswith((HUB, LOCAL)) or Path(expand_name(name)).exists():
        raise UserError(
            f"model.name '{name}' is a model with weights, not an open_clip config: give it as model.pretrained, "
            "without model.name"
        )
    architecture, tag = split_pair(name)
    if architecture is not None and tag:
        raise UserError(
            f"model.name '{name}' is not an open_clip config: give model.name '{architecture}' and model.pretrained "
            f"'{tag}'"
        )
    return named_architecture(name)


def locate_tag(architecture: str, tag: str) -> ModelSource:
    """Download, or find in the cache, the weights that open_clip publishes for a config under a tag.

    Raises:
        UserError: they are not in the cache and cannot be fetched.
    """
    import open_clip

    config = open_clip.get_pretrained_cfg(architecture, tag)
    try:
        path = Path(open_clip.download_pretrained(config))
    except Exception as error:
        raise UserError(
            f"weights '{architecture}/{tag}' are not in the cache and cannot be fetched ({why_not_fetched(error)})"
        ) from error
    return ModelSource("weights", architecture, tag, path, architecture=architecture, tag=dict(config))


@cache
def published_pairs() -> dict[str, tuple[str, str]]:
    """Map each hub repository with the weights of exactly one open_clip pair to that ``(name, tag)``."""
    import open_clip

    pairs: dict[str, list[tuple[str, str]]] = {}
    for name, tag in open_clip.list_pretrained():
        repository = "/".join(str(open_clip.get_pretrained_cfg(name, tag).get("hf_hub") or "").split("/")[:2])
        if repository and not name.endswith("-quickgelu"):
            pairs.setdefault(repository, []).append((name, tag))
    return {repository: found[0] for repository, found in pairs.items() if len(found) == 1}


def split_pair(name: str) -> tuple[str | None, str]:
    """Split a name into an open_clip config, or None, and the tag or file after it, which may be empty."""
    if whole := canonical_architecture(name):
        return whole, ""
    head, colon, rest = name.partition(":")
    if colon and (architecture := canonical_architecture(head)):
        return architecture, rest
    parts = name.split("/")
    for cut in range(len(parts) - 1, 0, -1):
        if architecture := canonical_architecture("/".join(parts[:cut])):
            return architecture, "/".join(parts[cut:])
    return None, ""
