"""Files by the names that tables and annotations give them, which another system may have spelled in its own way."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath

_CAPTION_NUMBER = re.compile(r"#[0-9]+$")  # Flickr8k.token.txt: 1000268201_693b08cb0e.jpg#0


class FileFinder:
    r"""Files below a folder by name. The name as it is comes first; only where there is no such file,

    * accented letters may be one code point or two (NFC, NFD: macOS writes the other form than most systems),
    * backslashes are folders (``images\a.jpg``),
    * a drive (``C:\data\images\a.jpg``) or a share stands for the folder: its first file that is found says how many
      of its folders do, and all other names that begin like it follow,
    * ``#0`` at the end is the number of a caption, as in Flickr8k's own list.

    Args:
        root: the folder that names start from.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._drive: tuple[str, ...] | None = None  # what stands before root in names with a drive
        self._listed: dict[Path, dict[str, str]] = {}

    def locate(self, name: str) -> Path:
        """Return the file, or the path that the name says where there is none."""
        if name.isascii() and not _is_of_windows(name) and "#" not in name:
            return self.root / name  # has one spelling, so that nobody needs to look
        return self.find(name) or self.root / name

    def find(self, name: str) -> Path | None:
        """Return the file, or None where no spelling of the name is one."""
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
        """The names in a folder that are not ASCII, by their composed form."""
        if folder not in self._listed:
            try:
                names = [path.name for path in folder.iterdir() if not path.name.isascii()]
            except OSError:  # no folder
                names = []
            self._listed[folder] = {compose(name): name for name in sorted(names, reverse=True)}
        return self._listed[folder]


def compose(name: str) -> str:
    """Return the one form (NFC) that stands for all spellings of a name's accented letters."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def name_without_ending(root: Path, path: Path) -> str:
    """Return a file's path from ``root`` without its extension: the same for all spellings that led to the file."""
    relative = path.relative_to(root) if path.is_relative_to(root) else path
    return compose((relative.parent / relative.stem).as_posix())


def _is_of_windows(name: str) -> bool:
    return "\\" in name or (name[1:2] == ":" and name[0].isalpha())


def _is_true(look: Callable[[], bool]) -> bool:
    try:
        return look()
    except (OSError, ValueError):  # a name that is too long, or holds a zero byte
        return False
