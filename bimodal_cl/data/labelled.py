"""Open images with class labels: a folder of class folders, or the ``wds_`` layout of CLIP_benchmark."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from PIL import Image

from bimodal_cl.data.class_folders import find_class_folders
from bimodal_cl.data.class_labels import LABEL_EXTENSIONS, Label, parse_label
from bimodal_cl.data.class_names import name_classes, name_warnings, read_lines, read_names
from bimodal_cl.data.images.decode import BadImage, decode_image
from bimodal_cl.data.storage.storage import Storage
from bimodal_cl.data.tar.samples import open_samples
from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.files.image_files import HIDDEN, count_endings, describe_endings, ending_of, list_images
from bimodal_cl.files.image_formats import IMAGE_EXTENSIONS
from bimodal_cl.files.tar_files import count_other_shards, is_tar, list_tars
from bimodal_cl.files.text_files import read_text

logger = logging.getLogger(__name__)

CLASSNAMES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"
NUM_SHARDS = "nshards.txt"


class LabelledImages(ABC):
    """A sequence of (RGB image, class index), or of (RGB image, 0 or 1 for every class) if an image may have several.

    Attributes:
        name: of the data set.
        classnames: for prompts, by class index.
        templates: prompts with ``{c}`` in place of the class name; ``None`` if the data set has none.
        labels: the class index of every image, or a uint8 array ``[classes]``.
        class_of_folder: the class index of every class folder; empty without class folders.
        notes: lines, some of them warnings, that tell the user how the classes were found.
    """

    def __init__(
        self,
        name: str,
        classnames: list[str],
        templates: list[str] | None,
        labels: Sequence[Label],
        class_of_folder: dict[str, int] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.classnames = classnames
        self.templates = templates
        self.labels = labels
        self.class_of_folder = class_of_folder or {}
        self.notes = list(notes)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, Label]:
        """Decode one image.

        Raises:
            IndexError: ``index`` is outside ``[0, len)``.
            UserError: the image cannot be read or decoded; the message names it.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} is outside [0, {len(self)})")
        try:
            return decode_image(self._read(index)), self.labels[index]
        except (BadImage, OSError) as error:
            raise UserError(f"{self._describe(index)}: cannot be used: {error}") from None

    @abstractmethod
    def _read(self, index: int) -> bytes: ...

    @abstractmethod
    def _describe(self, index: int) -> str: ...


class _ClassFolders(LabelledImages):
    def __init__(
        self,
        name: str,
        classnames: list[str],
        templates: list[str] | None,
        labels: Sequence[Label],
        class_of_folder: dict[str, int],
        notes: Sequence[str],
        paths: list[Path],
    ) -> None:
        super().__init__(name, classnames, templates, labels, class_of_folder, notes)
        self._paths = paths

    def _read(self, index: int) -> bytes:
        return self._paths[index].read_bytes()

    def _describe(self, index: int) -> str:
        return str(self._paths[index])


class _LabelledShards(LabelledImages):
    def __init__(
        self,
        name: str,
        classnames: list[str],
        templates: list[str] | None,
        labels: Sequence[Label],
        notes: Sequence[str],
        places: list[tuple[Path, str, int, int]],
    ) -> None:
        super().__init__(name, classnames, templates, labels, notes=notes)
        self._places = places

    def _read(self, index: int) -> bytes:
        path, _, offset, size = self._places[index]
        return _read_member(path, offset, size)

    def _describe(self, index: int) -> str:
        path, key, _, _ = self._places[index]
        return f"shard {path}, key {key}"


def open_labelled(path: str | Path, split: str = "test", classnames: str | Path | None = None) -> LabelledImages:
    """Open images with class labels.

    Layouts, tried in this order:

    - ``wds_``: ``PATH/SPLIT/0.tar, 1.tar, ...`` (as many as ``PATH/SPLIT/nshards.txt`` says, if it exists) of images
      with ``.cls`` (the class index or name) or ``.npy`` (the class index, or 0 or 1 for every class), and
      ``PATH/classnames.txt`` with a name per line;
    - ``PATH/SPLIT/CLASS/...`` or ``PATH/CLASS/...``: folders are the classes. Their names, with underscores as spaces,
      go into prompts, unless there is a ``classnames.txt``: see :mod:`bimodal_cl.data.class_names`.

    Images are the files with ``IMAGE_EXTENSIONS``; a warning counts all others by extension. Either layout may have a
    ``zeroshot_classification_templates.txt`` with a prompt per line, in which ``{c}`` stands for the class name.

    Args:
        path: folder of the data set.
        split: name of the part.
        classnames: a file of names, one per line, in place of ``classnames.txt``.

    Raises:
        UserError: the folder has neither layout, or a file is missing, unreadable or contradicts the others.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder of labelled images")
    name = (path.resolve().parent if path.name == split else path.resolve()).name.removeprefix("wds_")
    part = path / split
    given = None if classnames is None else Path(classnames)
    if (part / NUM_SHARDS).exists() or (part.is_dir() and any(map(is_tar, part.iterdir()))):
        return _open_shards(path, part, name, given)
    return _open_folders(part if part.is_dir() else path, [path, part], name, split, given)


def _open_folders(root: Path, parents: list[Path], name: str, split: str, given: Path | None) -> LabelledImages:
    folders, remarks = find_class_folders(root)
    file = given or _find(parents, CLASSNAMES)
    names = None if file is None else read_names(file)
    classes = name_classes(root, folders, names, file.name if file is not None else "")
    paths: list[Path] = []
    labels: list[Label] = []
    empty = []
    left_out: Counter[str] = Counter()
    for folder, label in classes.label_of_folder.items():
        files, others = list_images(root / folder)
        left_out += count_endings(others, root / folder)
        paths += sorted(files)
        labels += [label] * len(files)
        if not files:
            empty.append(folder)
    if not paths:
        hint = did_you_mean(split, folders)
        shards = count_other_shards(root)
        left_out += shards
        found = f", only {describe_endings(left_out)}" if left_out else ""
        hint = f"; shards must be plain tars: unpack them{hint}" if shards else hint
        raise UserError(f"{root}: neither class folders with images nor {split}/*.tar{found}{hint}")
    loose = count_endings([path for path in root.iterdir() if ending_of(path.name) in IMAGE_EXTENSIONS], root)
    left_out.update({f"{ending} outside the class folders": count for ending, count in loose.items()})
    _warn_of_left_out(root, left_out)
    notes = [*remarks, *classes.notes]
    if empty:
        shown = ", ".join(empty[:10]) + (", ..." if len(empty) > 10 else "")
        notes.append(f"{len(empty)} of {len(folders)} class folders hold no image: {shown}")
    return _ClassFolders(name, classes.names, _read_templates(parents), labels, classes.label_of_folder, notes, paths)


def _open_shards(path: Path, part: Path, name: str, given: Path | None) -> LabelledImages:
    file = _find([path, part], CLASSNAMES) or given
    if file is None:
        raise UserError(f"{path}: no {CLASSNAMES}, which the tars of {part} need")
    classnames = read_names(file)
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
    _warn_of_left_out(part, left_out)
    shown = _replace_names(file, classnames, given)
    return _LabelledShards(name, shown, _read_templates([path, part]), labels, name_warnings(shown), places)


def _replace_names(file: Path, classnames: list[str], given: Path | None) -> list[str]:
    """Return the names of a given file in place of those in ``classnames.txt``, by which labels may be written."""
    names = classnames if given is None else read_names(given)
    if len(names) != len(classnames):
        raise UserError(f"{given}: {len(names)} names for the {len(classnames)} classes of {file}")
    return names


def _warn_of_left_out(folder: Path, left_out: Counter[str]) -> None:
    """Warn about files that are not images, by extension, unless all of them are hidden."""
    if set(left_out) - {HIDDEN}:
        logger.warning("%s: left out, since they are not images: %s", folder, describe_endings(left_out))


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


def _read_member(path: Path, offset: int, size: int) -> bytes:
    with closing(Storage().open(str(path), offset + size)) as shard:
        return shard.read(offset, size)


def _read_templates(folders: list[Path]) -> list[str] | None:
    file = _find(folders, TEMPLATES)
    if file is None:
        return None
    templates = [line for line in read_lines(file) if line]
    for template in templates:
        if "{c}" not in template:
            raise UserError(f"{TEMPLATES}: template {template!r} has no {{c}} for the class name")
    return templates


def _find(folders: list[Path], name: str) -> Path | None:
    """Return the first file of a name in some folders, or None."""
    return next((folder / name for folder in folders if (folder / name).exists()), None)
