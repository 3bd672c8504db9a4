"""Write the model card of an exported model: what it is, data, loss, settings, scores, and how to load it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bimodal_cl.data.storage.locations import redact
from bimodal_cl.errors import UserError
from bimodal_cl.models.export.file_names import HUGGINGFACE_FOLDER, IMAGE_FILE, TEXT_FILE
from bimodal_cl.models.locate.source import AVERAGED
from bimodal_cl.models.weights.file_names import OPEN_CLIP_MODEL_CONFIG, OPEN_CLIP_STATE_DICT
from bimodal_cl.run_folder import RunFolder

from ..report.scores import score_tables
from ..trained_run import find_training_data, load_run, sections_in_use

if TYPE_CHECKING:
    from bimodal_cl.models.export.folder import Formats

    from ..encode import ScoredModel

_SECTIONS = ("optim", "train", "ema")
_NO_LICENCE = "other"


def format_card(
    name: str, folder: str, repository: str | None, model: ScoredModel, formats: Formats, licence: str = _NO_LICENCE
) -> str:
    """Return the model card as Markdown with the hub's metadata in front.

    Args:
        name: of the model.
        folder: the exported folder's name, for the code that loads it.
        repository: on the hub, for that code; None: the folder is not on the hub.
        model: the model and where it comes from.
        formats: how it can be loaded.
        licence: the hub's identifier of a licence.
    """
    run = None if model.run is None else RunFolder(model.run)
    config = _config(run)
    parts = [_metadata(formats, licence), f"# {name}", _description(model, config), _model_table(model)]
    if config is not None and run is not None:
        parts += ["## Training data", _data(run, config)]
        parts += ["## Loss", _as_yaml(config["loss"])]
        settings = sections_in_use(config, _SECTIONS)
        if settings:
            parts += ["## Training settings", _as_yaml(settings)]
        parts += ["## Scores", _scores(run, model.sha256)]
    own_text = model.encoder.architecture.hf_text_config is not None
    parts += ["## Load it", *_usage(folder, repository, formats, own_text)]
    if formats.remarks:
        parts += ["## Remarks", "\n".join(f"- {line}" for line in formats.remarks)]
    if licence == _NO_LICENCE:
        parts += ["## Licence", "None is stated yet. State one here and as `license` in the first lines of this file."]
    return "\n\n".join(parts) + "\n"


def _config(run: RunFolder | None) -> dict[str, Any] | None:
    if run is None or not run.config.is_file():
        return None
    try:
        return run.read_config()
    except UserError:
        return None


def _metadata(formats: Formats, licence: str) -> str:
    library = "open_clip" if formats.open_clip else "transformers" if formats.huggingface else "bimodal_cl"
    values = {
        "license": licence,
        "library_name": library,
        "pipeline_tag": "zero-shot-image-classification",
        "tags": ["clip", "bimodal_cl"],
    }
    return f"---\n{yaml.safe_dump(values, sort_keys=False)}---"


def _description(model: ScoredModel, config: Mapping[str, Any] | None) -> str:
    kind = "A dual encoder of images and texts: both become unit-norm vectors of one space."
    if config is None:
        return f"{kind} Its weights were read from `{_shown(model.pretrained)}`."
    step = "" if model.step is None else f" for {model.step:,} optimizer steps"
    trained = f"{kind} It was trained with the loss `{config['loss']['name']}` of `bimodal_cl`{step}."
    if model.weights != AVERAGED:
        return trained
    decay = (config.get("ema") or {}).get("decay")
    named = "" if decay is None else f" (decay {decay})"
    return f"{trained} Its weights are the exponential moving average{named} of the trained ones over the steps."


def _model_table(model: ScoredModel) -> str:
    encoder, architecture = model.encoder, model.encoder.architecture
    rows = [
        ("image tower", _tower(architecture.vision, "timm_model_name", architecture.name)),
        ("text tower", _tower(architecture.text, "hf_model_name", architecture.name)),
        ("images", f"{encoder.image_size} x {encoder.image_size} pixels"),
        ("texts", f"{architecture.text['context_length']} tokens"),
        ("features", f"{encoder.dim} dimensions"),
        ("parameters", f"{_count(encoder.visual):,} for images, {_count(encoder.text):,} for texts"),
        ("temperature", f"{math.exp(-encoder.logit_scale.item()):.4g} (`logit_scale` is its negative logarithm)"),
    ]
    if encoder.logit_bias is not None:
        rows.append(("logit bias", f"{encoder.logit_bias.item():.4g}"))
    if model.sha256 is not None:
        rows.append(("source", f"weights with SHA-256 `{model.sha256}`"))
    return _table(("", ""), rows)


def _tower(keys: Mapping[str, Any], named: str, name: str | None) -> str:
    if keys.get(named):
        return f"`{Path(keys[named]).name if Path(keys[named]).is_absolute() else keys[named]}`"
    if name:
        return f"open_clip's `{name}`"
    shown = {key: keys[key] for key in ("layers", "width", "patch_size", "heads") if keys.get(key) is not None}
    return ", ".join(f"{key} {value}" for key, value in shown.items()) or "transformers' SigLIP"


def _count(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _data(run: RunFolder, config: Mapping[str, Any]) -> str:
    section = config.get("data")
    named = section.get("train") if isinstance(section, dict) else None
    lines = []
    for one in named if isinstance(named, list) else [named]:
        given, weight = (one.get("folder"), one.get("weight")) if isinstance(one, dict) else (one, None)
        lines.append(f"- `{_shown(str(given))}`" + ("" if weight is None else f", weight {weight}"))
    try:
        data, _ = find_training_data(load_run(run.path))
    except UserError:
        data = None
    if data is not None:
        lines.append(f"\n{data.num_images:,} images with {data.num_texts:,} captions.")
    return "\n".join(lines)


def _shown(location: str) -> str:
    """Return a location without secrets; of an absolute path, which means nothing elsewhere, the last two parts."""
    path = Path(location)
    return "/".join(path.parts[-2:]) if path.is_absolute() else redact(location)


def _as_yaml(values: Mapping[str, Any]) -> str:
    return f"```yaml\n{yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)}```"


def _scores(run: RunFolder, sha256: str | None) -> str:
    """Return tables of the scores of these weights; those of other checkpoints of the run are only counted."""
    results = run.read_results()
    hashes = [(each.get("provenance") or {}).get("checkpoint_sha256") for each in results]
    own = [result for result, hashed in zip(results, hashes, strict=True) if hashed in (None, sha256)]
    tables = []
    for table in score_tables(own):
        rows = [(data, *cells) for data, _, cells in table.rows]
        tables.append(f"{table.title}\n\n{_table(('data set', *table.columns), rows)}")
    if not own:
        tables.append("None were computed for these weights before the export.")
    if left_out := len(results) - len(own):
        tables.append(f"Results of other checkpoints that are left out: {left_out}.")
    return "\n\n".join(tables)


def _table(header: tuple[str, ...], rows: list[Any]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _usage(folder: str, repository: str | None, formats: Formats, own_text: bool) -> list[str]:
    place = folder if repository is None else "."
    ours = f'"{folder}"' if repository is None else f'"hf-hub:{repository}"'
    ours_lines = ["from bimodal_cl.models import load_model"]
    if repository is not None and not formats.open_clip:
        ours = f'snapshot_download("{repository}")'
        ours_lines.insert(0, "from huggingface_hub import snapshot_download")
    parts = ["bimodal_cl:", _python(*ours_lines, f"model = load_model({ours})")]
    if formats.open_clip:
        parts += _open_clip_usage(folder, repository, formats, own_text)
    if formats.huggingface:
        location = f'"{place}/{HUGGINGFACE_FOLDER}"'
        if repository is not None:
            location = f'"{repository}", subfolder="{HUGGINGFACE_FOLDER}"'
        parts += [
            "transformers:",
            _python(
                f"from transformers import AutoProcessor, {formats.huggingface}",
                f"model = {formats.huggingface}.from_pretrained({location})",
                f"processor = AutoProcessor.from_pretrained({location})",
            ),
        ]
    if formats.onnx:
        parts += [
            "onnxruntime, with normalised pixels `[batch, 3, height, width]` or tokens `[batch, context_length]`:",
            _python(
                "import onnxruntime",
                f'images = onnxruntime.InferenceSession("{place}/{IMAGE_FILE}")',
                'image_features = images.run(None, {"pixels": pixels})[0]',
                f'texts = onnxruntime.InferenceSession("{place}/{TEXT_FILE}")',
                'text_features = texts.run(None, {"tokens": tokens})[0]',
            ),
        ]
    return parts


def _open_clip_usage(folder: str, repository: str | None, formats: Formats, own_text: bool) -> list[str]:
    """Return how open_clip loads the folder.

    It looks up the configuration of a Hugging Face text model by ``text_cfg["hf_model_name"]``, in the hub or from the
    working directory, and not beside its own config. So the code names the folder, which may have moved since.
    """
    place = folder if repository is None else "."
    name = f"local-dir:{folder}" if repository is None else f"hf-hub:{repository}"
    own = [] if formats.builtin else [f'open_clip.add_model_config("{place}/{OPEN_CLIP_MODEL_CONFIG}")']
    config = formats.builtin or Path(OPEN_CLIP_MODEL_CONFIG).stem
    start, end = ["import open_clip"], ")"
    if own_text and repository is None:
        start = [
            "import json",
            "import open_clip",
            f'with open("{place}/{OPEN_CLIP_MODEL_CONFIG}") as file:',
            f'    text_cfg = {{**json.load(file)["text_cfg"], "hf_model_name": "{place}"}}  # where its config.json is',
        ]
        end = ", text_cfg=text_cfg)"
    return [
        "open_clip:",
        _python(
            *start,
            f'model, _, preprocess = open_clip.create_model_and_transforms("{name}"{end}',
            f'tokenizer = open_clip.get_tokenizer("{name}")',
        ),
        "open_clip, by the file of weights, as its training takes it:",
        _python(
            *start, *own, f'model = open_clip.create_model("{config}", pretrained="{place}/{OPEN_CLIP_STATE_DICT}"{end}'
        ),
    ]


def _python(*lines: str) -> str:
    return "\n".join(["```python", *lines, "```"])
