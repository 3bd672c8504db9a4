"""Images with class labels: a folder of class folders, or the ``wds_`` layout of CLIP_benchmark."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from contextlib import closing
from pathlib import Path

from PIL import Image

from bimodal_cl.data.decode import BadImage, decode_image
from bimodal_cl.data.locations import count_other_shards, list_tars
from bimodal_cl.data.samples import open_samples
from bimodal_cl.data.storage import Storage
from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.image_files import HIDDEN, count_endings, describe_endings, ending_of, list_images
from bimodal_cl.image_formats import IMAGE_EXTENSIONS

logger = logging.getLogger(__name__)

CLASSNAMES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"
NUM_SHARDS = "nshards.txt"
LABEL_EXTENSION = ".cls"


class LabelledImages(ABC):
    """A sequence of (RGB image, class index).

    Attributes:
        name: of the data set.
        classnames: what to write into a prompt, by class index.
        templates: prompts with ``{c}`` where the class name goes; ``None`` where the data set brings none.
        labels: class index of every image.
    """

    def __init__(self, name: str, classnames: list[str], templates: list[str] | None, labels: list[int]) -> None:
        self.name = name
        self.classnames = classnames
        self.templates = templates
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Decode one image.

        Raises:
            IndexError: ``index`` is outside ``[0, len)``.
            UserError: it cannot be read or decoded; the message names it.
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
        self, name: str, classnames: list[str], templates: list[str] | None, labels: list[int], paths: list[Path]
    ) -> None:
        super().__init__(name, classnames, templates, labels)
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
        labels: list[int],
        places: list[tuple[Path, str, int, int]],
    ) -> None:
        super().__init__(name, classnames, templates, labels)
        self._places = places

    def _read(self, index: int) -> bytes:
        path, _, offset, size = self._places[index]
        return _read_member(path, offset, size)

    def _describe(self, index: int) -> str:
        path, key, _, _ = self._places[index]
        return f"shard {path}, key {key}"


def open_labelled(path: str | Path, split: str = "test") -> LabelledImages:
    """Open images with class labels.

    Layouts, tried in this order:

    - ``wds_``: ``PATH/SPLIT/0.tar, 1.tar, ...`` (as many as ``PATH/SPLIT/nshards.txt`` says, where it exists) of images
      and ``.cls`` (the class index), and ``PATH/classnames.txt``, a name a line;
    - ``PATH/SPLIT/CLASS/...`` or ``PATH/CLASS/...``: folders sorted by name are the classes. Their names, underscores
      as spaces, go into prompts, unless a ``classnames.txt`` stands beside them.

    Images are those of ``IMAGE_EXTENSIONS``; what else is there is counted by ending in a warning.

    Either may bring ``zeroshot_classification_templates.txt``, a prompt a line with ``{c}`` for the class name.

    Args:
        path: folder of the data set.
        split: name of the part.

    Raises:
        UserError: none of the layouts is there, or a file of it is missing, unreadable or does not fit.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder of labelled images")
    name = (path.resolve().parent if path.name == split else path.resolve()).name.removeprefix("wds_")
    part = path / split
    if (part / NUM_SHARDS).exists() or any(part.glob("*.tar")):
        return _open_shards(path, part, name)
    return _open_folders(part if part.is_dir() else path, [path, part], name, split)


def _open_folders(root: Path, beside: list[Path], name: str, split: str) -> LabelledImages:
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    paths: list[Path] = []
    labels: list[int] = []
    left_out: Counter[str] = Counter()
    for label, folder in enumerate(folders):
        files, others = list_images(folder)
        left_out += count_endings(others, folder)
        paths += sorted(files)
        labels += [label] * len(files)
    if not paths:
        hint = did_you_mean(split, [folder.name for folder in folders])
        shards = count_other_shards(root)
        left_out += shards
        found = f", only {describe_endings(left_out)}" if left_out else ""
        hint = f"; shards must be plain tars: unpack them{hint}" if shards else hint
        raise UserError(f"{root}: neither class folders with images nor {split}/*.tar{found}{hint}")
    loose = count_endings([path for path in root.iterdir() if ending_of(path.name) in IMAGE_EXTENSIONS], root)
    left_out.update({f"{ending} outside the class folders": count for ending, count in loose.items()})
    _warn_of_left_out(root, left_out)
    classnames = _read_lines(beside, CLASSNAMES)
    if classnames is None:
        classnames = [folder.name.replace("_", " ") for folder in folders]
    elif len(classnames) != len(folders):
        raise UserError(f"{root}: {len(folders)} class folders but {len(classnames)} names in {CLASSNAMES}")
    return _ClassFolders(name, classnames, _read_templates(beside), labels, paths)


def _open_shards(path: Path, part: Path, name: str) -> LabelledImages:
    classnames = _read_lines([path, part], CLASSNAMES)
    if classnames is None:
        raise UserError(f"{path}: no {CLASSNAMES}, which the tars of {part} need")
    labels: list[int] = []
    places: list[tuple[Path, str, int, int]] = []
    left_out: Counter[str] = Counter()
    for shard in _list_shards(part):
        with open_samples(shard) as tar:
            if tar.damage is not None:
                raise UserError(f"shard {shard}: {tar.damage.reason}")
            left_out += tar.left_out
            for sample in tar.samples:
                if sample.image is None:
                    continue
                if LABEL_EXTENSION not in sample.members:
                    raise UserError(f"shard {shard}, key {sample.key}: no {LABEL_EXTENSION} beside its image")
                text = tar.read(sample, LABEL_EXTENSION)
                labels.append(_parse_label(shard, sample.key, text, len(classnames)))
                places.append((shard, sample.key, *sample.members[sample.image]))
    if not labels:
        raise UserError(f"{part}: its tars hold no images{f', only {describe_endings(left_out)}' if left_out else ''}")
    _warn_of_left_out(part, left_out)
    return _LabelledShards(name, classnames, _read_templates([path, part]), labels, places)


def _warn_of_left_out(folder: Path, left_out: Counter[str]) -> None:
    """Name what is no image, by ending; what systems leave behind is not worth a line of its own."""
    if set(left_out) - {HIDDEN}:
        logger.warning("%s: left out, as no images: %s", folder, describe_endings(left_out))


def _list_shards(part: Path) -> list[Path]:
    count = part / NUM_SHARDS
    if not count.exists():
        return list_tars(part)
    try:
        shards = [part / f"{n}.tar" for n in range(int(count.read_text()))]
    except (OSError, ValueError) as error:
        raise UserError(f"{count}: must hold the number of tars: {error}") from None
    for shard in shards:
        if not shard.exists():
            others = describe_endings(count_other_shards(part))
            hint = f"; there are {others}: unpack them, shards must be plain tars" if others else ""
            raise UserError(f"shard {shard}: missing, though {NUM_SHARDS} says {len(shards)}{hint}")
    more = sum(tar not in shards for tar in part.glob("*.tar"))
    if more:
        logger.warning("%s: %d tars more than %s says are left out", part, more, NUM_SHARDS)
    return shards


def _parse_label(shard: Path, key: str, text: bytes, num_classes: int) -> int:
    try:
        label = int(text)
    except ValueError:
        raise UserError(f"shard {shard}, key {key}: class {text[:20]!r} is not a number") from None
    if not 0 <= label < num_classes:
        raise UserError(f"shard {shard}, key {key}: class {label} is outside [0, {num_classes}), the {CLASSNAMES}")
    return label


def _read_member(path: Path, offset: int, size: int) -> bytes:
    with closing(Storage().open(str(path), offset + size)) as shard:
        return shard.read(offset, size)


def _read_templates(folders: list[Path]) -> list[str] | None:
    templates = _read_lines(folders, TEMPLATES)
    for template in templates or ():
        if "{c}" not in template:
            raise UserError(f"{TEMPLATES}: template {template!r} has no {{c}} for the class name")
    return templates


def _read_lines(folders: list[Path], name: str) -> list[str] | None:
    """Read the non-empty lines of the first of the folders that has the file."""
    path = next((folder / name for folder in folders if (folder / name).exists()), None)
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    return [line.strip() for line in text.split("\n") if line.strip()]
