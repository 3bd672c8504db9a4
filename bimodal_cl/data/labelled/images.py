"""Images with class labels, whatever stores them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from PIL import Image

from bimodal_cl.data.images.decode import BadImage, decode_image
from bimodal_cl.data.labelled.class_labels import Label
from bimodal_cl.errors import UserError


class ImageSource(Protocol):
    """What stores the encoded images, in the order of their labels."""

    def read(self, index: int) -> bytes:
        """Return an encoded image.

        Raises:
            OSError: it cannot be read.
        """

    def describe(self, index: int) -> str:
        """Return where an image is, for messages."""


class ImageFiles:
    """Images in files of their own."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def read(self, index: int) -> bytes:
        """Return the file's bytes."""
        return self._paths[index].read_bytes()

    def describe(self, index: int) -> str:
        """Return the file's path."""
        return str(self._paths[index])


class LabelledImages:
    """A sequence of (RGB image, class index), or of (RGB image, 0 or 1 for every class) if an image may have several.

    Attributes:
        name: of the data set.
        classnames: for prompts, by class index.
        templates: prompts with ``{c}`` in place of the class name; ``None`` if the data set has none.
        labels: the class index of every image, or a uint8 array ``[classes]``.
        source: what stores the encoded images.
        class_of_folder: the class index of every class folder; empty without class folders.
        class_of_label: the class index of every label as it is stored, a folder or a value of a column, where classes
            are named after these; empty where the names come from elsewhere.
        notes: lines, some of them warnings, that tell the user how the classes were found.
        names_of_class: for prompts, the names of every class; one each, unless a class map gives several.
    """

    def __init__(
        self,
        name: str,
        classnames: list[str],
        templates: list[str] | None,
        labels: Sequence[Label],
        source: ImageSource,
        class_of_folder: dict[str, int] | None = None,
        notes: Sequence[str] = (),
        names_of_class: list[list[str]] | None = None,
        class_of_label: dict[str, int] | None = None,
    ) -> None:
        self.name = name
        self.classnames = classnames
        self.templates = templates
        self.labels = labels
        self.class_of_folder = class_of_folder or {}
        self.class_of_label = class_of_label or {}
        self.notes = list(notes)
        self.source = source
        self.names_of_class = names_of_class or [[name] for name in classnames]

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
            return decode_image(self.source.read(index)), self.labels[index]
        except (BadImage, OSError) as error:
            raise UserError(f"{self.source.describe(index)}: cannot be used: {error}") from None

    def digest(self) -> str:
        """Return a SHA-256 of the encoded images in their order; names and labels do not count.

        Raises:
            OSError: an image cannot be read; one that cannot be decoded can.
        """
        found = hashlib.sha256()
        for index in range(len(self)):
            content = self.source.read(index)
            found.update(len(content).to_bytes(8, "big"))
            found.update(content)
        return found.hexdigest()
