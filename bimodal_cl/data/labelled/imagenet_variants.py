"""The classes of test sets that share ImageNet's classes: ImageNet-A, -R, -Sketch and -V2, and ObjectNet.

The 200 classes each of ImageNet-A and -R are timm's lists of WordNet ids, and ImageNet's names are open_clip's. Prompts
are made for a test set's own classes only, as in CLIP_benchmark. ObjectNet has 313 classes, of which 113 are among
ImageNet's; the files that come with its images say which.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from bimodal_cl.data.labelled.class_map import ClassMap
from bimodal_cl.data.labelled.class_names import imagenet_names
from bimodal_cl.errors import UserError, one_line
from bimodal_cl.files.text_files import NotText, read_text

OBJECTNET, OBJECTNET_BY_IMAGENET = "objectnet", "objectnet-imagenet"
VARIANTS = ("imagenet-a", "imagenet-r", "imagenet-sketch", "imagenet-v2", OBJECTNET, OBJECTNET_BY_IMAGENET)
_SYNSETS = {"imagenet-a": "imagenet_a_synsets.txt", "imagenet-r": "imagenet_r_synsets.txt"}
_FOLDERS, _CLASSES = "folder_to_objectnet_label.json", "objectnet_to_imagenet_1k.json"
_ROOT = "objectnet-1.0"


def variant_map(variant: str, data: Path) -> ClassMap:
    """Return the classes of a test set.

    Args:
        variant: one of ``VARIANTS``. ``"objectnet"``: its own names in lower case, as in CLIP_benchmark;
            ``"objectnet-imagenet"``: the names of all the ImageNet classes that each of its classes stands for.
        data: folder of the data set, where ObjectNet's own files are looked for.

    Raises:
        UserError: ObjectNet's files are missing or cannot be read.
    """
    if variant in (OBJECTNET, OBJECTNET_BY_IMAGENET):
        return _objectnet_map(variant, data)
    names = imagenet_names()
    if variant == "imagenet-v2":  # its folders are the numbers of the classes
        return ClassMap(variant, {str(index): [name] for index, name in enumerate(names.values())})
    if variant in _SYNSETS:
        chosen = (files("timm.data") / "_info" / _SYNSETS[variant]).read_text(encoding="utf-8").split()
        return ClassMap(variant, {wordnet_id: [names[wordnet_id]] for wordnet_id in chosen})
    return ClassMap(variant, {wordnet_id: [name] for wordnet_id, name in names.items()})


def objectnet_images(data: Path) -> Path:
    """Return the folder of ObjectNet's class folders: ``objectnet-1.0/images`` or ``images`` in a folder, or itself."""
    return next((path for path in (data / _ROOT / "images", data / "images") if path.is_dir()), data)


def _objectnet_map(variant: str, data: Path) -> ClassMap:
    places = [data, data / "mappings", data / _ROOT / "mappings", data.parent / "mappings", data.parent]
    place = next((place for place in places if (place / _FOLDERS).is_file()), None)
    if place is None:
        raise UserError(f"--class-map {variant}: no {_FOLDERS}, which comes with ObjectNet, in {data} or its mappings")
    label_of_folder, imagenet_of_label = _read_json(variant, place / _FOLDERS), _read_json(variant, place / _CLASSES)
    by_description = _by_description()
    names: dict[str, list[str]] = {}
    for folder, label in sorted(label_of_folder.items()):
        if label in imagenet_of_label:
            meant = [text.strip() for text in imagenet_of_label[label].split(";")]
            of_imagenet = [by_description.get(text.casefold(), text.split(",")[0]) for text in meant]
            names[folder] = of_imagenet if variant == OBJECTNET_BY_IMAGENET else [label.lower()]
    if not names:
        raise UserError(f"--class-map {variant}: {place / _CLASSES} has none of the labels of {_FOLDERS}")
    return ClassMap(variant, names)


def _by_description() -> dict[str, str]:
    """Return ImageNet's names by WordNet's words for a class, which ObjectNet calls it by."""
    from timm.data import ImageNetInfo

    words = ImageNetInfo("imagenet-1k").label_descriptions()
    return {text.casefold(): name for text, name in zip(words, imagenet_names().values(), strict=True)}


def _read_json(variant: str, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_text(path))
    except (OSError, NotText, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise UserError(f"--class-map {variant}: {path}: cannot be read as JSON: {reason}") from None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise UserError(f"--class-map {variant}: {path}: must hold an object of texts")
    return found
