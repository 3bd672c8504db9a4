"""Open the training, validation and test images of a probe, and bring their classes into one order."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bimodal_cl.cli.arguments import path_text
from bimodal_cl.cli.parser import Parser
from bimodal_cl.errors import UserError, did_you_mean

from ..class_prompts import add_classnames_argument, load_classnames
from ..datasets import add_column_arguments, column_options, require_classes, require_labelled
from ..encode import ScoredModel
from ..features.encoded import encode_images
from ..features.identity import hash_labelled, hash_values

if TYPE_CHECKING:
    from bimodal_cl.data import LabelledImages
    from bimodal_cl.scoring.probes.linear_probe import LabelledPart

VALIDATION_NAMES = ("val", "valid", "validation")


@dataclass(frozen=True)
class Split:
    """The images of one split.

    Attributes:
        name: of the split.
        labelled: the images.
        class_of_label: int64 ``[classes]``, the class in the training images' order of each of its own.
    """

    name: str
    labelled: LabelledImages
    class_of_label: np.ndarray

    @property
    def several(self) -> bool:
        """Whether an image may have several classes."""
        return not isinstance(self.labelled.labels[0], int)

    def targets(self) -> np.ndarray:
        """Return the class of every image, also of those that cannot be read, in the training images' order."""
        return self.class_of_label[np.array(self.labelled.labels, dtype=np.int64)]


@dataclass(frozen=True)
class Encoded:
    """The features of a split.

    Attributes:
        part: the features and the labels.
        skipped: a message for each image that could not be read.
    """

    part: LabelledPart
    skipped: list[str]


def add_split_arguments(parser: Parser) -> None:
    """Add the flags that name the data and the splits to learn from and to score on."""
    parser.add_argument(
        "--data",
        metavar="DIR|FILE|hf:NAME",
        type=path_text,
        required=True,
        help="labelled images with their splits: a folder, a .csv or .tsv file with a column 'split', or a data set on "
        "the Hugging Face hub",
    )
    parser.add_argument("--train-split", default="train", help="the split to learn from")
    parser.add_argument("--split", default="test", help="the split to score on")
    add_classnames_argument(parser)
    add_column_arguments(parser)


def open_splits(arguments: argparse.Namespace, *others: tuple[str, str]) -> list[Split]:
    """Open the training split, then the split to score on and others, each given as a flag and its value.

    Raises:
        UserError: a split is missing, is the training split again, has a class that the training split does not name,
            or has other kinds of labels.
    """
    _require_splits(arguments)
    named = [("--train-split", arguments.train_split), ("--split", arguments.split), *others]
    for at, (flag, name) in enumerate(named):
        for other_flag, other in named[:at]:
            if name == other:
                raise UserError(f"{flag} {name}: is {other_flag} too; these must be different images")
    opened = [_open_split(arguments, name, flag) for flag, name in named]
    require_classes(opened[0].classnames, arguments.data)
    splits = [
        Split(name, labelled, match_classes(opened[0], labelled, flag, name))
        for (flag, name), labelled in zip(named, opened, strict=True)
    ]
    for (flag, name), split in zip(named, splits, strict=True):
        if split.several != splits[0].several:
            raise UserError(f"{flag} {name}: either it or {arguments.train_split} has several classes an image")
        if split.several and split.labelled.classnames != splits[0].labelled.classnames:
            raise UserError(f"{flag} {name}: its classnames.txt differs from that of {arguments.train_split}")
    for line in dict.fromkeys(line for labelled in opened for line in labelled.notes):
        print(line)
    return splits


def find_validation(arguments: argparse.Namespace) -> str | None:
    """Return ``--val-split``, else the split that is called like one for validation and not used otherwise, or None."""
    if arguments.val_split is not None:
        return arguments.val_split
    for name in VALIDATION_NAMES:
        if name not in (arguments.train_split, arguments.split):
            try:
                _open_split(arguments, name, "--val-split")
            except UserError:
                continue
            return name
    return None


def match_classes(train: LabelledImages, other: LabelledImages, flag: str, split: str) -> np.ndarray:
    """Return the training images' class for each class of another split, int64 ``[classes]``.

    Equal lists of names are the same classes. Others are matched by folder, or by name where the labels are no folders;
    a split may lack classes of the training images, but not have others.

    Raises:
        UserError: a class is not among the training images' classes.
    """
    if other.classnames == train.classnames:
        return np.arange(len(other.classnames))
    by_folder = bool(train.class_of_folder and other.class_of_folder)
    known = train.class_of_folder if by_folder else {name: at for at, name in enumerate(train.classnames)}
    own = other.class_of_folder if by_folder else {name: at for at, name in enumerate(other.classnames)}
    unknown = sorted(set(own) - set(known))
    if unknown:
        hint = did_you_mean(unknown[0], list(known))
        raise UserError(
            f"{flag} {split}: {len(unknown)} of its {len(own)} classes are not among the {len(known)} of the training "
            f"images, such as '{unknown[0]}'{hint}"
        )
    matched = np.zeros(len(other.classnames), dtype=np.int64)
    for name, label in own.items():
        matched[label] = known[name]
    return matched


def encode_split(model: ScoredModel, split: Split, arguments: argparse.Namespace) -> Encoded:
    """Encode the images of a split; all processes share the work."""
    import torch

    from bimodal_cl.scoring.probes.linear_probe import LabelledPart

    encoded = encode_images(model, split.labelled, arguments)
    targets = encoded.targets
    if targets.ndim == 1:
        targets = torch.from_numpy(split.class_of_label)[targets]
    return Encoded(LabelledPart(encoded.image_features, targets), encoded.skipped)


def hash_splits(*splits: Split) -> str:
    """Return a hash of the images, labels and class names of splits.

    Raises:
        OSError: an image cannot be read.
    """
    return hash_values(*(hash_labelled(each.labelled) for each in splits))


def _require_splits(arguments: argparse.Namespace) -> None:
    """Refuse data that do not exist, and files that hold one split alone.

    Raises:
        UserError: so it is.
    """
    path = Path(arguments.data)
    if not path.is_dir():
        require_labelled(arguments.data, arguments.split)
    if path.is_file():
        header = path.open(encoding="utf-8", errors="replace").readline().replace(chr(34), "")
        if "split" not in re.split(r"[,;\t]", header.strip()):
            raise UserError(f"--data {path}: has no column 'split' that tells training images from those to score")


def _open_split(arguments: argparse.Namespace, name: str, flag: str) -> LabelledImages:
    """Open a split.

    Raises:
        UserError: it is missing or cannot be read.
    """
    from bimodal_cl.data import open_labelled
    from bimodal_cl.data.labelled.layouts.hf import is_hf

    path = Path(arguments.data)
    if path.is_dir() and not (path / name).is_dir() and not is_hf(path, name):
        there = sorted(each.name for each in path.iterdir() if each.is_dir() and not each.name.startswith("."))
        raise UserError(f"{flag} {name}: no such folder in {path}{did_you_mean(name, there)}")
    names = load_classnames(arguments.classnames) if arguments.classnames else None
    try:
        return open_labelled(arguments.data, name, names, column_options(arguments))
    except UserError as error:
        raise UserError(str(error).replace(f"--split {name}:", f"{flag} {name}:")) from None
