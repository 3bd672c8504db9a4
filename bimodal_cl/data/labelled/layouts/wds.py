"""Open labelled images in the ``wds_`` layout of CLIP_benchmark."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import closing
from pathlib import Path

from bimodal_cl.data.labelled.class_labels import LABEL_EXTENSIONS, Label, parse_label
from bimodal_cl.data.labelled.class_names import NameList, name_warnings
from bimodal_cl.data.labelled.images import LabelledImages
from bimodal_cl.data.labelled.layouts.files_beside import (
    CLASSNAMES,
    read_names_beside,
    read_templates,
    warn_of_left_out,
)
from bimodal_cl.data.storage.storage import Storage
from bimodal_cl.data.tar.samples import open_samples
from bimodal_cl.errors import UserError
from bimodal_cl.files.image_files import describe_endings
from bimodal_cl.files.tar_files import count_other_shards, is_tar, list_tars
from bimodal_cl.files.text_files import read_text

logger = logging.getLogger(__name__)

NUM_SHARDS = "nshards.txt"


class TarMembers:
    """Images in tars: the tar, the key, the offset and the size in bytes of each."""

    def __init__(self, places: list[tuple[Path, str, int, int]]) -> None:
        self._places = places

    def read(self, index: int) -> bytes:
        """Return the member's bytes."""
        path, _, offset, size = self._places[index]
        with closing(Storage().open(str(path), offset + size)) as shard:
            return shard.read(offset, size)

    def describe(self, index: int) -> str:
        """Return the shard and the key."""
        path, key, _, _ = self._places[index]
        return f"shard {path}, key {key}"


def is_wds(part: Path) -> bool:
    """Return whether the folder of a split holds tars, or says that it should."""
    return (part / NUM_SHARDS).exists() or (part.is_dir() and any(map(is_tar, part.iterdir())))


def open_wds(path: Path, part: Path, name: str, given: NameList | None) -> LabelledImages:
    """Open the images in the tars of a split.

    Args:
        path: folder of the data set.
        part: folder of the split.
        name: of the data set.
        given: names in place of those of ``classnames.txt``, by which labels may be written.

    Raises:
        UserError: a file is missing, unreadable or contradicts the others.
    """
    own = read_names_beside([path, part]) or given
    if own is None:
        raise UserError(f"{path}: no {CLASSNAMES}, which the tars of {part} need")
    classnames = own.names
    labels: list[Label] = []
    places: list[tuple[Path, str, int, int]] = []
    left_out: Counter[str] = Counter()
    for shard in list_numbered_shards(part):
        with open_samples(shard) as tar:
            if tar.damage is not None:
                raise UserError(f"shard {shard}: {tar.damage.reason}")
            left_out += tar.left_out
            for sample in tar.samples:
                if sample.image is None:
                    continue
                where = f"shard {shard}, key {sample.key}"
                extension = next((each for each in LABEL_EXTENSIONS if each in sample.members), None)
                if extension is None:
                    raise UserError(f"{where}: its image has neither a .cls nor a .npy")
                labels.append(parse_label(where, extension, tar.read(sample, extension), classnames))
                places.append((shard, sample.key, *sample.members[sample.image]))
                if isinstance(labels[-1], int) != isinstance(labels[0], int):
                    raise UserError(f"{where}: some labels are a single class and others are vectors")
    if not labels:
        raise UserError(f"{part}: its tars hold no images{f', only {describe_endings(left_out)}' if left_out else ''}")
    warn_of_left_out(part, left_out)
    shown = given or own
    if len(shown.names) != len(classnames):
        raise UserError(
            f"{shown.origin}: {len(shown.names)} names for the {len(classnames)} classes of {path}'s {own.origin}"
        )
    return LabelledImages(
        name, shown.names, read_templates([path, part]), labels, TarMembers(places), notes=name_warnings(shown.names)
    )


def list_numbered_shards(part: Path) -> list[Path]:
    """List the shards of CLIP_benchmark's layout: ``0.tar``, ... up to the count in ``nshards.txt``, or else all tars.

    Raises:
        UserError: a shard is missing, the count is not a number >= 1, or there is no tar.
    """
    count = part / NUM_SHARDS
    if not count.exists():
        return list_tars(part)
    try:
        number = int(read_text(count))
        if number < 1:
            raise ValueError(f"it says {number}")
        shards = [part / f"{n}.tar" for n in range(number)]
    except (OSError, ValueError) as error:
        raise UserError(f"{count}: must hold the number of tars: {error}") from None
    for shard in shards:
        if not shard.exists():
            others = describe_endings(count_other_shards(part))
            hint = f"; there are {others}: unpack them, shards must be plain tars" if others else ""
            raise UserError(f"shard {shard}: missing, though {NUM_SHARDS} says {len(shards)}{hint}")
    more = sum(is_tar(path) and path not in shards for path in part.iterdir())
    if more:
        logger.warning("%s: %d tars more than %s says are left out", part, more, NUM_SHARDS)
    return shards
