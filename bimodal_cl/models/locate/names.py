"""Find a trained model by any of its names.

A name is tried as, in this order: open_clip's schemas (``local-dir:``, ``hf-hub:``), a folder or file, an architecture
with weights (``ViT-B-32/openai``, OpenAI's ``ViT-B/32``, ``NAME:FILE``), a repository of the Hugging Face hub.
"""

from __future__ import annotations

import re
from pathlib import Path

from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.models.locate.diagnose import refuse_other_family
from bimodal_cl.models.locate.folders import find_in_file, find_in_folder, with_average
from bimodal_cl.models.locate.hub import NotFetched, fetch_repository, is_repository
from bimodal_cl.models.locate.open_clip_names import TIMM, locate_tag, published_pairs, split_pair
from bimodal_cl.models.locate.paths import expand_name, near_name, near_path
from bimodal_cl.models.locate.source import HUB, LOCAL, TRAINED, WEIGHTS, ModelSource
from bimodal_cl.models.weights.file_names import WEIGHT_SUFFIXES

_HUB_ADDRESS = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+?)(?:/tree/[\w.-]+)?/?")
_OPENAI = ("ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px")
_OPENAI_FORM = re.compile(r"vit-\w/\w+(@\w+)?", re.IGNORECASE)


def locate_model(given: str | Path, what: str = "model", weights: str = TRAINED) -> ModelSource:
    """Find a trained model by any of its names.

    Args:
        given: a run, checkpoint, export or Hugging Face folder; a weights file; ``local-dir:FOLDER``;
            ``hf-hub:ORGANISATION/NAME``; a hub repository; an open_clip pair ``NAME/TAG``, also ``NAME:TAG``;
            ``NAME:FILE``; or one of OpenAI's own names, such as ``ViT-L/14@336px``, for OpenAI's weights.
        what: the setting that holds the name, such as ``model.pretrained``, for messages.
        weights: of a run or checkpoint, ``model``, those that were trained, or ``ema``, their moving average.

    Raises:
        UserError: no such model exists, or it cannot be loaded; the message says why.
    """
    if weights not in WEIGHTS:
        raise UserError(f"weights '{weights}': no such weights of a checkpoint{did_you_mean(weights, WEIGHTS)}")
    name = expand_name(given)
    what = f"{what} '{name}'"
    source = _locate(name, what)
    return source if weights == TRAINED else with_average(source, what)


def _locate(name: str, what: str) -> ModelSource:
    if not name.removeprefix(LOCAL):
        raise UserError(f"{what}: the name is empty")
    if address := _HUB_ADDRESS.fullmatch(name):
        name = HUB + address[1]
    if name.startswith(HUB):
        return _locate_on_hub(name.removeprefix(HUB), what)
    if re.match(r"https?://", name):
        raise UserError(f"{what} is a URL: download the file, and give its path")
    if name.startswith(LOCAL):
        path = Path(name.removeprefix(LOCAL))
        if not path.is_dir():
            raise UserError(f"{what}: no such folder{near_path(path)}")
        return find_in_folder(path, what)
    path = Path(name)
    if path.is_dir():
        return find_in_folder(path, what)
    if path.exists():
        return _locate_file(path, what)
    return _locate_pair(name, what) or _locate_elsewhere(name, what)


def _locate_file(path: Path, what: str, architecture: str | None = None) -> ModelSource:
    found = find_in_file(path, what) if architecture is None else None
    if found is not None:
        return found
    return ModelSource("weights", architecture or path.stem, str(path), path, architecture=architecture)


def _locate_on_hub(repository: str, what: str) -> ModelSource:
    repository = repository.strip("/")
    if not is_repository(repository.partition("@")[0]):
        raise UserError(f"{what}: a repository of the hub is ORGANISATION/NAME, got '{repository}'")
    try:
        found = find_in_folder(fetch_repository(repository, what, refuse_other_family), what)
    except NotFetched:
        # Loading the model by its open_clip tag caches its weights only; open_clip itself has the configuration.
        pair = published_pairs().get(repository)
        if pair is None:
            raise
        return locate_tag(*pair)
    return ModelSource(found.kind, repository, f"{HUB}{repository}", folder=found.folder, weights=found.weights)


def _locate_pair(name: str, what: str) -> ModelSource | None:
    """Find ``NAME``, ``NAME/TAG``, ``NAME:TAG`` or ``NAME:FILE``; None where no architecture is named."""
    import open_clip

    if name.startswith(TIMM) and is_repository(name):
        return None  # timm's hub repositories have their own configuration
    architecture, weights = split_pair(name.removeprefix(TIMM))
    if architecture is None:
        return None
    if "multimodal_cfg" in (open_clip.get_model_config(architecture) or {}):
        raise UserError(f"{what} is a captioning model (CoCa), not a dual encoder")
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if not weights:
        if name != architecture and "openai" in tags:
            return locate_tag(architecture, "openai")  # OpenAI's own spelling names OpenAI's weights
        none = f", and open_clip publishes no weights of '{architecture}'"
        shown = f", such as {architecture}/{tags[0]}" if tags else none
        raise UserError(f"{what} is not a folder; an open_clip model is loaded by NAME/TAG{shown}")
    if open_clip.is_pretrained_cfg(architecture, weights):
        return locate_tag(architecture, weights)
    path = Path(weights)
    if path.is_file():
        return _locate_file(path, what, architecture)
    if path.is_dir():
        raise UserError(f"{what}: '{weights}' is a folder, which states its own architecture: give it alone")
    if path.suffix in WEIGHT_SUFFIXES or len(path.parts) > 1:
        raise UserError(f"{what}: no such file '{weights}'{near_path(path)}")
    near = did_you_mean(weights, tags) or "; it has none"
    raise UserError(f"{what}: '{weights}' is neither a file nor a tag of '{architecture}'{near}")


def _locate_elsewhere(name: str, what: str) -> ModelSource:
    """Look up a name on the hub; if it is not there either, suggest the nearest path or open_clip name."""
    import open_clip
    import timm

    path = Path(name)
    pairs = ["/".join(pair) for pair in open_clip.list_pretrained()]
    near = near_path(path) or near_name(name, _OPENAI if _OPENAI_FORM.fullmatch(name) else pairs)
    looks_like_a_path = name.startswith((".", "/", "~")) or path.suffix in WEIGHT_SUFFIXES or len(path.parts) > 2
    if looks_like_a_path or ":" in name:
        missing = ": no such file or folder" if path.suffix in WEIGHT_SUFFIXES else " is neither a folder nor a file"
        raise UserError(f"{what}{missing}{near}")
    hub = ""
    if is_repository(name.partition("@")[0]):
        try:
            return _locate_on_hub(name, what)
        except NotFetched as error:
            hub = f" (as a hub model it {error.reason})"
            if name.startswith(TIMM) and timm.is_model(name.removeprefix(TIMM)):
                hub += "; a timm image model is given as model.vision.timm_model_name"
    raise UserError(f"{what} is neither a folder nor an open_clip NAME/TAG{near}{hub}")
