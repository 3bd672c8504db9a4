"""Open the training, validation and test images of a probe, and bring their classes into one order."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bimodal_cl.cli.arguments import path_text
from bimodal_cl.cli.parser import Parser
from bimodal_cl.errors import NoSuchSplit, UserError, did_you_mean

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


def open_splits(arguments: argparse.Namespace, validation: bool = False) -> dict[str, Split]:
    """Open the splits to learn from (``train``) and to score on (``test``), and that for validation (``val``).

    Args:
        arguments: those of :func:`add_split_arguments`, and with ``validation`` also ``val_split``.
        validation: whether ``val`` is opened too: ``--val-split``, else the split that is called like one for
            validation and is neither of the others, if there is one.

    Raises:
        UserError: a split is missing or cannot be read, is another one again, has a class that the training split does
            not name, or has other kinds of labels.
    """
    _require_splits(arguments)
    named = {"train": ("--train-split", arguments.train_split), "test": ("--split", arguments.split)}
    if validation and arguments.val_split is not None:
        named["val"] = ("--val-split", arguments.val_split)
    flag_of: dict[str, str] = {}
    for flag, name in named.values():
        if name in flag_of:
            raise UserError(f"{flag} {name}: is {flag_of[name]} too; these must be different images")
        flag_of[name] = flag
    opened = {part: _open_split(arguments, name, flag) for part, (flag, name) in named.items()}
    if validation and "val" not in opened:
        for name in (each for each in VALIDATION_NAMES if each not in flag_of):
            try:
                opened["val"] = _open_split(arguments, name, "--val-split")
            except NoSuchSplit:
                continue
            named["val"] = ("--val-split", name)
            break
    splits = _match_splits(opened, named, arguments)
    for line in dict.fromkeys(line for labelled in opened.values() for line in labelled.notes):
        print(line)
    return splits


def _match_splits(
    opened: dict[str, LabelledImages], named: dict[str, tuple[str, str]], arguments: argparse.Namespace
) -> dict[str, Split]:
    train = opened["train"]
    require_classes(train.classnames, arguments.data)
    splits = {
        part: Split(named[part][1], labelled, match_classes(train, labelled, *named[part]))
        for part, labelled in opened.items()
    }
    for part, split in splits.items():
        flag, name = named[part]
        if split.several != splits["train"].several:
            raise UserError(f"{flag} {name}: either it or {arguments.train_split} has several classes an image")
        if split.several and split.labelled.classnames != train.classnames:
            raise UserError(f"{flag} {name}: its classnames.txt differs from that of {arguments.train_split}")
    return splits


def match_classes(train: LabelledImages, other: LabelledImages, flag: str, split: str) -> np.ndarray:
    """Return the training images' class for each class of another split, int64 ``[classes]``.

    Classes that are named after their labels, which are folders or values of a column, are matched by these: without
    their numbers, '002.crane' and '003.crane' have the same name. Where a list names the classes, equal lists are the
    same classes; others are matched by folder, else by name. A split may lack classes of the training images, but not
    have others.

    Raises:
        UserError: a class is not among the training images' classes.
    """
    if train.class_of_label and other.class_of_label:
        known, own = train.class_of_label, other.class_of_label
    elif other.classnames == train.classnames:
        return np.arange(len(other.classnames))
    elif train.class_of_folder and other.class_of_folder:
        known, own = train.class_of_folder, other.class_of_folder
    else:
        known, own = ({name: at for at, name in enumerate(each.classnames)} for each in (train, other))
    unknown = sorted(set(own) - set(known))
    if unknown:
        hint = did_you_mean(unknown[0], list(known))
        raise UserError(
            f"{flag} {split}: {len(unknown)} of its {len(own)} classes are not among the {len(known)} of the training "
            f"images, such as '{unknown[0]}'{hint}"
        )
    matched = np.full(len(other.classnames), -1)  # of a class without a folder, which has no image
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
    """Refuse data that do not exist, and those that do not tell splits apart, so that all would be the same images.

    Raises:
        UserError: so it is.
    """
    from bimodal_cl.data.labelled.layouts.hf import holds_one_split
    from bimodal_cl.data.labelled.layouts.table import TABLES, has_split_column

    path = Path(arguments.data)
    if not path.is_dir():
        require_labelled(arguments.data, arguments.split)
    if path.is_file() and path.suffix.lower() in TABLES:
        if not has_split_column(path):
            raise UserError(f"--data {path}: has no column 'split' that tells training images from those to score")
    elif holds_one_split(path):
        raise UserError(f"--data {path}: holds one split alone; training images and those to score are needed")


def _open_split(arguments: argparse.Namespace, name: str, flag: str) -> LabelledImages:
    """Open a split.

    Raises:
        NoSuchSplit: the data do not have it.
        UserError: it cannot be read.
    """
    from bimodal_cl.data import open_labelled
    from bimodal_cl.data.labelled.layouts.hf import is_hf

    path = Path(arguments.data)
    if path.is_dir() and not (path / name).is_dir() and not is_hf(path, name):
        there = sorted(each.name for each in path.iterdir() if each.is_dir() and not each.name.startswith("."))
        raise NoSuchSplit(f"{flag} {name}: no such folder in {path}{did_you_mean(name, there)}")
    names = load_classnames(arguments.classnames) if arguments.classnames else None
    try:
        return open_labelled(arguments.data, name, names, column_options(arguments))
    except UserError as error:
        raise type(error)(str(error).replace(f"--split {name}:", f"{flag} {name}:")) from None
