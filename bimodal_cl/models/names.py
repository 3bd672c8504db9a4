"""What a model's name means: one place that turns what people write into files.

In this order: open_clip's schemas (``local-dir:``, ``hf-hub:``), a folder or file, an architecture with weights
(``ViT-B-32/openai``, OpenAI's ``ViT-B/32``, ``NAME:FILE``), a repository of the Hugging Face hub.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.models.architecture import Architecture, named_architecture, nearest
from bimodal_cl.models.hub import NotFetched, fetch_repository, is_repository, why_not_fetched
from bimodal_cl.models.weights.folders import (
    WEIGHT_ENDINGS,
    FoundFolder,
    find_in_file,
    find_in_folder,
    refuse_other_family,
)

_HUB, _LOCAL = "hf-hub:", "local-dir:"
_HUB_ADDRESS = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+?)(?:/tree/[\w.-]+)?/?")
_TIMM = "timm/"
_OPENAI = ("ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px")
_OPENAI_FORM = re.compile(r"vit-\w/\w+(@\w+)?", re.IGNORECASE)


@dataclass(frozen=True)
class ModelSource:
    """A model that was found, before anything of it is loaded.

    Args:
        kind: ``checkpoint`` (our own), ``open_clip`` (config and weights), ``huggingface`` (transformers') or
            ``weights`` (a file alone).
        name: of the architecture, or of the folder, file or repository where no architecture is named.
        pretrained: which weights: a tag, or where they are.
        folder: what holds the model; None for a file of weights alone.
        weights: the file of weights; of sharded ones the index.
        architecture: the open_clip config that was named with the weights.
        tag: what open_clip says of a published tag (preprocessing, ``quick_gelu``); empty for anything else.
        run: the folder of the run, where a run was named.
    """

    kind: Literal["checkpoint", "open_clip", "huggingface", "weights"]
    name: str
    pretrained: str
    weights: Path
    folder: Path | None = None
    architecture: str | None = None
    tag: Mapping[str, Any] = field(default_factory=dict)
    run: Path | None = None


def expand_name(given: str | Path) -> str:
    """Return a model's name with ``~`` and ``$VARIABLES`` expanded, also behind ``local-dir:`` or ``NAME:``."""
    schema, colon, rest = os.path.expandvars(str(given)).strip().partition(":")
    if not colon:
        return os.path.expanduser(schema)  # noqa: PTH111 (a Path would lose the empty name)
    return f"{schema}:{os.path.expanduser(rest)}"  # noqa: PTH111


def locate_model(given: str | Path, what: str = "model") -> ModelSource:
    """Find a trained model by any of its names.

    Args:
        given: a run, checkpoint, export or Hugging Face folder; a file of weights; ``local-dir:FOLDER``;
            ``hf-hub:ORGANISATION/NAME``; a hub repository; an open_clip pair ``NAME/TAG``, also ``NAME:TAG``;
            ``NAME:FILE``; or one of OpenAI's own names, such as ``ViT-L/14@336px``, for OpenAI's weights.
        what: how messages call it, such as ``model.pretrained``.

    Raises:
        UserError: there is no such model, or nothing that can be loaded under this name; the message says why.
    """
    name = expand_name(given)
    what = f"{what} '{name}'"
    if not name.removeprefix(_LOCAL):
        raise UserError(f"{what}: the name is empty")
    if address := _HUB_ADDRESS.fullmatch(name):
        name = _HUB + address[1]
    if name.startswith(_HUB):
        return _locate_on_hub(name.removeprefix(_HUB), what)
    if re.match(r"https?://", name):
        raise UserError(f"{what} is an address: download the file, and give its path")
    if name.startswith(_LOCAL):
        path = Path(name.removeprefix(_LOCAL))
        if not path.is_dir():
            raise UserError(f"{what}: no such folder{near_path(path)}")
        return _of_folder(find_in_folder(path, what))
    path = Path(name)
    if path.is_dir():
        return _of_folder(find_in_folder(path, what))
    if path.exists():
        return _locate_file(path, what)
    return _locate_pair(name, what) or _locate_elsewhere(name, what)


def canonical_architecture(name: str) -> str | None:
    """Return the open_clip config that a spelling names (``ViT-B/32``, ``ViT-L/14@336px``, ``timm/NAME``), or None."""
    import open_clip

    spelled = re.sub(r"@(\d+)(?:px)?$", r"-\1", name.removeprefix(_TIMM).replace("/", "-"))
    return spelled if spelled in open_clip.list_models() else None


def configured_architecture(name: str) -> Architecture:
    """Return the architecture that ``model.name`` names, in any of an open_clip config's spellings.

    Raises:
        UserError: there is none, or the name is one of weights, which go to ``model.pretrained``.
    """
    canonical = canonical_architecture(name)
    if canonical is not None:
        return named_architecture(canonical)
    if name.startswith((_HUB, _LOCAL)) or Path(expand_name(name)).exists():
        raise UserError(
            f"model.name '{name}' is a model with weights, not an open_clip config: give it as model.pretrained, "
            "without model.name"
        )
    architecture, tag = _split_pair(name)
    if architecture is not None and tag:
        raise UserError(
            f"model.name '{name}' is no open_clip config: give model.name '{architecture}' and model.pretrained '{tag}'"
        )
    return named_architecture(name)


def locate_tag(architecture: str, tag: str) -> ModelSource:
    """Fetch the weights that open_clip publishes for one of its configs under a tag.

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


def _of_folder(found: FoundFolder) -> ModelSource:
    return ModelSource(
        found.kind, found.name, str(found.folder), folder=found.folder, weights=found.weights, run=found.run
    )


def _locate_file(path: Path, what: str, architecture: str | None = None) -> ModelSource:
    found = find_in_file(path, what) if architecture is None else None
    if found is not None:
        return _of_folder(found)
    return ModelSource("weights", architecture or path.stem, str(path), path, architecture=architecture)


def _locate_on_hub(repository: str, what: str) -> ModelSource:
    repository = repository.strip("/")
    if not is_repository(repository.partition("@")[0]):
        raise UserError(f"{what}: a repository of the hub is ORGANISATION/NAME, got '{repository}'")
    try:
        found = find_in_folder(fetch_repository(repository, what, refuse_other_family), what)
    except NotFetched:
        # Whoever loaded it by its open_clip tag has the weights in the cache, and open_clip the configuration.
        pair = _published().get(repository)
        if pair is None:
            raise
        return locate_tag(*pair)
    return ModelSource(found.kind, repository, f"{_HUB}{repository}", folder=found.folder, weights=found.weights)


@cache
def _published() -> dict[str, tuple[str, str]]:
    """open_clip's pair for every repository with the weights of just one."""
    import open_clip

    pairs: dict[str, list[tuple[str, str]]] = {}
    for name, tag in open_clip.list_pretrained():
        repository = "/".join(str(open_clip.get_pretrained_cfg(name, tag).get("hf_hub") or "").split("/")[:2])
        if repository and not name.endswith("-quickgelu"):
            pairs.setdefault(repository, []).append((name, tag))
    return {repository: found[0] for repository, found in pairs.items() if len(found) == 1}


def _locate_pair(name: str, what: str) -> ModelSource | None:
    """Find ``NAME``, ``NAME/TAG``, ``NAME:TAG``, ``NAME:FILE``; None where no architecture is named."""
    import open_clip

    if name.startswith(_TIMM) and is_repository(name):
        return None  # timm's repositories bring their own configuration
    architecture, weights = _split_pair(name.removeprefix(_TIMM))
    if architecture is None:
        return None
    if "multimodal_cfg" in (open_clip.get_model_config(architecture) or {}):
        raise UserError(f"{what} is a captioning model (CoCa), not a dual encoder")
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if not weights:
        if name != architecture and "openai" in tags:
            return locate_tag(architecture, "openai")  # OpenAI's own spelling names OpenAI's weights
        shown = f", such as {architecture}/{tags[0]}" if tags else f", and open_clip has none of '{architecture}'"
        raise UserError(f"{what} is no folder; an open_clip model is loaded by NAME/TAG{shown}")
    if open_clip.is_pretrained_cfg(architecture, weights):
        return locate_tag(architecture, weights)
    path = Path(weights)
    if path.is_file():
        return _locate_file(path, what, architecture)
    if path.is_dir():
        raise UserError(f"{what}: '{weights}' is a folder, which says itself what it holds: give it alone")
    if path.suffix in WEIGHT_ENDINGS or len(path.parts) > 1:
        raise UserError(f"{what}: no such file '{weights}'{near_path(path)}")
    near = nearest(weights, tags) or "; it has none"
    raise UserError(f"{what}: '{weights}' is no file and no tag of '{architecture}'{near}")


def _split_pair(name: str) -> tuple[str | None, str]:
    """Cut a name into an open_clip config and what follows it, which may be nothing."""
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


def _locate_elsewhere(name: str, what: str) -> ModelSource:
    """Look a name up on the hub that is neither here nor open_clip's, and say what may be meant if it is not there."""
    import open_clip
    import timm

    path = Path(name)
    pairs = ["/".join(pair) for pair in open_clip.list_pretrained()]
    near = near_path(path) or nearest(name, _OPENAI if _OPENAI_FORM.fullmatch(name) else pairs, only_near=True)
    looks_like_a_path = name.startswith((".", "/", "~")) or path.suffix in WEIGHT_ENDINGS or len(path.parts) > 2
    if looks_like_a_path or ":" in name:
        missing = ": no such file or folder" if path.suffix in WEIGHT_ENDINGS else " is no folder and no file"
        raise UserError(f"{what}{missing}{near}")
    hub = ""
    if is_repository(name.partition("@")[0]):
        try:
            return _locate_on_hub(name, what)
        except NotFetched as error:
            hub = f" (as a model of the hub it {error.reason})"
            if name.startswith(_TIMM) and timm.is_model(name.removeprefix(_TIMM)):
                hub += "; an image model of timm's goes to model.vision.timm_model_name"
    raise UserError(f"{what} is no folder and no open_clip NAME/TAG{near}{hub}")


def near_path(path: Path) -> str:
    """Return a hint at the path that has another name in place of the first part of `path` that is not there."""
    missing = path
    while not missing.parent.is_dir() and missing.parent != missing:
        missing = missing.parent
    if not missing.parent.is_dir():
        return ""
    try:
        names = [entry.name for entry in missing.parent.iterdir()]
    except OSError:
        return ""
    hint = did_you_mean(missing.name, names)
    if not hint.startswith("; did you mean"):
        return ""
    found = Path(hint.removeprefix("; did you mean '").removesuffix("'?"))
    return f"; did you mean '{found / path.relative_to(missing)}'?"
