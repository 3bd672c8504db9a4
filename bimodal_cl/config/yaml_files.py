"""Read a :class:`Config` from YAML files and flags, and write it.

A flag wins over the files, a later file over an earlier one, a file over the defaults. Files and flags are merged
before the schema checks them, so that ``--loss.name macl`` may choose what the other keys of ``loss`` mean. A mistake
is reported with the file or flag it came from. (tyro, made for this, needs the choice among losses to be made before it
reads the flags.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from bimodal_cl.config.keys import Keys
from bimodal_cl.config.messages import describe_mistake
from bimodal_cl.config.schema import Config
from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.files.atomic import write_atomically
from bimodal_cl.files.text_files import NotText, read_text

REPLACED_WHOLE = ("loss",)  # which keys it has depends on its name


def load_config(
    paths: str | Path | Sequence[str | Path], flags: Mapping[Keys, Any] | Mapping[str, Any] | None = None
) -> Config:
    """Read config files, lay each over those before it, and flags over all.

    A later file's keys replace the earlier ones', section by section; its ``loss`` replaces the whole section, whose
    keys belong to its name.

    Args:
        paths: a YAML file, or several.
        flags: values by key, such as ``{"loss.rho": 7}`` or ``{("loss", "rho"): "7"}``.

    Raises:
        UserError: a file that cannot be read, an unknown key, a bad value; one line with file or flag, dotted key and,
            for an unknown key, the nearest valid one.
    """
    merged = _MergedFiles([paths] if isinstance(paths, str | Path) else paths)
    values = merged.values
    given = {tuple(key.split(".")) if isinstance(key, str) else key: value for key, value in (flags or {}).items()}
    for keys, value in given.items():
        inner = values
        for depth, key in enumerate(keys[:-1]):
            if inner.get(key) is None:
                inner[key] = {}
            inner = inner[key]
            if not isinstance(inner, dict):
                above = keys[: depth + 1]
                raise UserError(f"{merged.file_of(above)}: {'.'.join(above)}: should be a mapping, got {inner!r}")
        inner[keys[-1]] = value
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError(describe_mistake(error, merged.file_of, given)) from None


def make_config(values: Mapping[str, Any]) -> Config:
    """Make a config of nested values, those of a YAML file.

    Raises:
        UserError: as :func:`load_config`, with ``config`` in the place of the file's name.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"config: should be a mapping of sections, got {type(values).__name__}")
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError(describe_mistake(error, lambda keys: Path("config"), ())) from None


class _MergedFiles:
    """The values of several files, and which file each of them is from.

    Attributes:
        values: as nested mappings.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self.values: dict[str, Any] = {}
        self._first = Path(paths[0])
        self._file_of: dict[Keys, Path] = {}
        for path in map(Path, paths):
            self._lay_over(self.values, read_yaml(path), path, ())

    def file_of(self, keys: Keys) -> Path:
        """Return the last file that sets a key or, where none does, the section around it."""
        while keys and keys not in self._file_of:
            keys = keys[:-1]
        return self._file_of.get(keys, self._first)

    def _lay_over(self, below: dict[str, Any], above: dict[str, Any], path: Path, prefix: Keys) -> None:
        for key, value in above.items():
            keys = (*prefix, str(key))
            self._file_of[keys] = path
            if not isinstance(value, dict):
                below[key] = value
                continue
            if keys == REPLACED_WHOLE or not isinstance(below.get(key), dict):
                below[key] = {}
            self._lay_over(below[key], value, path, keys)


def save_config(config: Config, path: Path) -> None:
    """Write the resolved config; loading it gives an equal object."""
    write_atomically(path, yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True))


def changed_keys(old: Config, new: Config) -> list[str]:
    """Return the dotted keys whose values differ."""
    return sorted(key for key in {*_flatten(old.to_dict()), *_flatten(new.to_dict())} if _at(old, key) != _at(new, key))


def _flatten(values: dict[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for key, value in values.items():
        keys += _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return keys


def _at(config: Any, dotted: str) -> Any:
    for key in dotted.split("."):
        config = getattr(config, key, None)
    return config


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice; PyYAML would silently keep the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, what: str = "config file") -> dict[str, Any]:
    """Return the values of a YAML file.

    Args:
        path: the file.
        what: what it is called where it is not found.

    Raises:
        UserError: it is not there or cannot be read, is not YAML, gives a key twice, or is no mapping.
    """
    if not path.is_file():
        near = [str(other) for other in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise UserError(f"{what} not found: {path}{did_you_mean(str(path), near)}")
    try:
        values = yaml.load(read_text(path), Loader=_StrictLoader)
    except (OSError, NotText) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UserError(f"{where}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: should be a mapping of sections, got {type(values).__name__}")
    return values
