"""Find files by the names in tables and annotations, which may follow the rules of another operating system."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath

_CAPTION_NUMBER = re.compile(r"#[0-9]+$")  # Flickr8k.token.txt: 1000268201_693b08cb0e.jpg#0


class FileFinder:
    r"""Find files below a folder by name. If no file has the name as it is given, these spellings are tried:

    * accented letters in composed or decomposed form (NFC or NFD; macOS decomposes them, most systems do not),
    * backslashes as separators of folders (``images\a.jpg``),
    * a Windows path (``C:\data\images\a.jpg``, or a network share): the first such name whose last parts are a file
      tells which leading parts stand for ``root``; later names must begin with the same parts,
    * ``#0`` at the end as the number of a caption, as in Flickr8k's own list.

    Args:
        root: the folder that relative names start from.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._drive: tuple[str, ...] | None = None  # leading parts of Windows paths that stand for root
        self._listed: dict[Path, dict[str, str]] = {}

    def locate(self, name: str) -> Path:
        """Return the file, or ``root / name`` if there is none."""
        if name.isascii() and not _is_of_windows(name) and "#" not in name:
            return self.root / name  # it has only one spelling, so the disk need not be asked
        return self.find(name) or self.root / name

    def find(self, name: str) -> Path | None:
        """Return the file, or None if no spelling of the name is a file."""
        if _is_true((self.root / name).is_file):
            return self.root / name
        for spelling in dict.fromkeys((name, _CAPTION_NUMBER.sub("", name))):
            found = self._in_any_form(PurePosixPath(spelling)) or self._on_windows(spelling)
            if found is not None:
                return found
        return None

    def _on_windows(self, name: str) -> Path | None:
        if not _is_of_windows(name):
            return None
        path = PureWindowsPath(name)
        parts = path.parts
        found = self._in_any_form(PurePosixPath(name.replace("\\", "/")))
        if found is not None or not path.anchor:
            return found
        if self._drive is not None:
            begins = tuple(part.casefold() for part in parts[: len(self._drive)]) == self._drive
            return self._in_any_form(PurePosixPath(*parts[len(self._drive) :])) if begins else None
        for dropped in range(1, len(parts)):
            found = self._in_any_form(PurePosixPath(*parts[dropped:]))
            if found is not None:
                self._drive = tuple(part.casefold() for part in parts[:dropped])
                return found
        return None

    def _in_any_form(self, path: PurePosixPath) -> Path | None:
        if _is_true((self.root / path).is_file):
            return self.root / path
        found = Path(path.anchor) if path.is_absolute() else self.root
        for part in path.parts[1:] if path.is_absolute() else path.parts:
            found /= part if _is_true((found / part).exists) else self._names(found).get(compose(part), part)
        return found if _is_true(found.is_file) else None

    def _names(self, folder: Path) -> dict[str, str]:
        """Return the non-ASCII names in a folder by their composed form."""
        if folder not in self._listed:
            try:
                names = [path.name for path in folder.iterdir() if not path.name.isascii()]
            except OSError:  # no folder
                names = []
            self._listed[folder] = {compose(name): name for name in sorted(names, reverse=True)}
        return self._listed[folder]


def compose(name: str) -> str:
    """Return a name with composed accented letters (NFC), so that all its spellings are equal."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def name_without_ending(root: Path, path: Path) -> str:
    """Return a file's path relative to ``root``, without its extension and with composed letters."""
    relative = path.relative_to(root) if path.is_relative_to(root) else path
    return compose((relative.parent / relative.stem).as_posix())


def _is_of_windows(name: str) -> bool:
    return "\\" in name or (name[1:2] == ":" and name[0].isalpha())


def _is_true(look: Callable[[], bool]) -> bool:
    try:
        return look()
    except (OSError, ValueError):  # the name is too long, or contains NUL
        return False
