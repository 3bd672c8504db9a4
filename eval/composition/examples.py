"""Examples of a composition set: images and captions, of which only some belong together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.files.image_formats import IMAGE_EXTENSIONS

from ..features.identity import hash_values

if TYPE_CHECKING:
    from PIL import Image


class StoredImage(Protocol):
    """An image that is read when it is needed."""

    @property
    def name(self) -> str:
        """Return its name in results."""

    def read(self) -> bytes:
        """Return the bytes of the image file.

        Raises:
            OSError: it cannot be read.
        """


@dataclass(frozen=True)
class ImageFile:
    """An image in a file of its own."""

    path: Path

    @property
    def name(self) -> str:
        """Return the file's name."""
        return self.path.name

    def read(self) -> bytes:
        """Return the file's bytes."""
        return self.path.read_bytes()


@dataclass(frozen=True)
class Example:
    """Image ``i`` belongs to caption ``i``; further captions describe none of the images.

    Attributes:
        where: file and key, for messages.
        key: in its subset.
        subset: the subset's name.
        images: one, or two.
        captions: two.
    """

    where: str
    key: str
    subset: str
    images: tuple[StoredImage, ...]
    captions: tuple[str, ...]


class ExampleImages:
    """All images of some examples, each with its number as its label, as ``encode_labelled`` reads them."""

    def __init__(self, examples: list[Example]) -> None:
        self._images = [(each.where, image) for each in examples for image in each.images]
        self.classnames: list[str] = []
        self.templates: list[str] | None = None
        self.labels: Sequence[int] = list(range(len(self._images)))

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Decode one image.

        Raises:
            UserError: it cannot be read or decoded; the message names the example.
        """
        from bimodal_cl.data.images.decode import BadImage, decode_image

        where, image = self._images[index]
        try:
            return decode_image(image.read()), index
        except (BadImage, OSError) as error:
            raise UserError(f"{where}: image '{image.name}' cannot be used: {error}") from None

    def digest(self) -> str:
        """Return a SHA-256 of the encoded images in their order, as ``LabelledImages.digest`` does.

        Raises:
            OSError: an image cannot be read; one that cannot be decoded can.
        """
        found = hashlib.sha256()
        for _, image in self._images:
            content = image.read()
            found.update(len(content).to_bytes(8, "big"))
            found.update(content)
        return found.hexdigest()


def hash_examples(examples: list[Example]) -> str:
    """Return a SHA-256 of examples: their places in the data, captions and images.

    Raises:
        OSError: an image cannot be read.
    """
    texts = [(each.subset, each.key, each.captions, len(each.images)) for each in examples]
    return hash_values(texts, ExampleImages(examples).digest())


def require_texts(entry: Any, keys: tuple[str, ...], where: str) -> list[str]:
    """Return an entry's values, which must be texts that are not blank.

    Raises:
        UserError: a key is missing, or a value is no text or a blank one; the message names the nearest key.
    """
    if not isinstance(entry, dict):
        raise UserError(f"{where}: must be an object with {', '.join(map(repr, keys))}, got {type(entry).__name__}")
    for key in keys:
        if key not in entry:
            raise UserError(f"{where}: no '{key}'{did_you_mean(key, entry)}")
        if not isinstance(entry[key], str):
            raise UserError(f"{where}: '{key}' must be a text, got {entry[key]!r}")
        if not entry[key].strip():
            raise UserError(f"{where}: '{key}' is empty")
    return [entry[key] for key in keys]


def find_image(folder: Path, name: str, where: str) -> ImageFile:
    """Return an image of a folder by its name, with or without the ending.

    Raises:
        UserError: there is no such file; the message names the nearest one.
    """
    for ending in ("", *IMAGE_EXTENSIONS):
        path = folder / f"{name}{ending}"
        if path.is_file():
            return ImageFile(path)
    near = did_you_mean(name, [each.name for each in folder.iterdir() if each.suffix.lower() in IMAGE_EXTENSIONS])
    raise UserError(f"{where}: no image '{name}' in {folder}{near}; --images names another folder")


def image_folder(given: Path | None, *usual: Path) -> Path:
    """Return the folder of the images: a given one, else the first that exists.

    Raises:
        UserError: the given one does not exist.
    """
    if given is not None:
        if not given.is_dir():
            raise UserError(f"--images {given}: no such folder")
        return given
    return next(folder for folder in usual if folder.is_dir())
