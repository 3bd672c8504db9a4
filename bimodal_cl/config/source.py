"""From YAML files and flags to a :class:`Config`: flag over YAML over default, a later file over an earlier one.

Flags are ``--section.key VALUE`` for every key of the schema. Both sources are merged before the schema looks at them,
so that ``--loss.name macl`` may choose what the other keys of ``loss`` mean; a mistake is reported by the file or flag
it came from. (tyro, made for this, needs the choice among losses to be made before it reads the flags.)
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from bimodal_cl.cli.command_line import Parser
from bimodal_cl.config.names import find_meant, find_value, in_steps, is_known, why_no_key
from bimodal_cl.config.schema import Config
from bimodal_cl.errors import UserError, did_you_mean, nearest
from bimodal_cl.files.text_files import NotText, read_text

Keys = tuple[str, ...]
_CHOICE = re.compile(
    r"function-before\[.*\]|constrained-\w+|literal\[.*\]|int|list\[.*\]"
)  # pydantic's names for the types of a field
REPLACED_WHOLE = ("loss",)  # which keys it has depends on its name


def load_config(paths: str | Path | Sequence[str | Path], flags: dict[Keys, Any] | None = None) -> Config:
    """Read config files, lay each over those before it, and flags over all.

    A later file's keys replace the earlier ones', section by section; its ``loss`` replaces the whole section, whose
    keys belong to its name.

    Args:
        paths: a YAML file, or several.
        flags: values by key path, such as ``{("loss", "rho"): "7"}``.

    Raises:
        UserError: a file that cannot be read, an unknown key, a bad value; one line with file or flag, dotted key and,
            for an unknown key, the nearest valid one.
    """
    merged = _MergedFiles([paths] if isinstance(paths, str | Path) else paths)
    values = merged.values
    for keys, value in (flags or {}).items():
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
        raise UserError(_describe(error, merged, flags or {})) from None


class _MergedFiles:
    """The values of several files, and which file each is from.

    Attributes:
        values: as nested mappings.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self.values: dict[str, Any] = {}
        self._first = Path(paths[0])
        self._file_of: dict[Keys, Path] = {}
        for path in map(Path, paths):
            self._lay_over(self.values, _read_yaml(path), path, ())

    def file_of(self, keys: Keys) -> Path:
        """Return the last file that says something about a key or, where none does, about what it belongs to."""
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
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True), encoding="utf-8")
    temporary.replace(path)


def add_flags(parser: Parser) -> None:
    """Add one flag for every key of the schema, with its description, default and range, by section."""
    groups = {}
    for keys, owners in _fields(Config):
        field = next(iter(owners.values()))
        section = keys[0] if len(keys) > 1 else "run"
        if section not in groups:
            groups[section] = parser.add_argument_group(section)
        flag = "--" + ".".join(keys)
        description = (field.description or "").replace("%", "%%")
        if "" not in owners:
            description = f"[{', '.join(owners)}] {description}"
        defaults = {str(owner.default): name for name, owner in owners.items() if not owner.is_required()}
        default = ", ".join(f"{name}: {value}" if len(defaults) > 1 else value for value, name in defaults.items())
        default = f" (default: {default})" if default not in ("", "None") else ""
        groups[section].add_argument(
            flag, dest=flag, metavar=_type_name(field), help=description + default, default=None
        )


def flags_given(arguments: Any) -> dict[Keys, Any]:
    """Collect the flags of :func:`add_flags` that were given, by key path."""
    given = {name: value for name, value in vars(arguments).items() if name.startswith("--") and value is not None}
    return {tuple(name[2:].split(".")): _parse(name, value) for name, value in given.items()}


def dotted_keys() -> list[str]:
    """All keys of the schema, ``loss.rho`` for example, without repeats."""
    return [".".join(keys) for keys, _ in _fields(Config)]


def suggest_flag(flag: str, flags: Iterable[str]) -> str:
    """Say which flag of :func:`add_flags` (or of the others in ``flags``) is meant by one that nobody knows."""
    near = nearest(flag, [other for other in flags if "." not in other], similarity=0.85)
    if near is not None:
        return f"; did you mean '{near}'?"
    given, keys = flag.lstrip("-"), dotted_keys()
    section, _, name = given.rpartition(".")
    beside = [key.rpartition(".")[2] for key in keys if section and key.rpartition(".")[0] == section]
    inside = [f"--{key}" for key in keys if key.startswith(f"{given}.")]
    if inside and (section or not (is_known(given, keys) or why_no_key(given))):
        return f": a section; its flags: {', '.join(inside)}"
    if beside:
        return _suggest(given, keys, "--") or did_you_mean(name, beside)
    return _suggest(given, keys, "--") or "; --help lists all flags"


def _suggest(given: str, keys: Sequence[str], dashes: str = "") -> str:
    """Say which key is meant, or why there is none; ``""`` where nothing is known or like it."""
    name = given.rpartition(".")[2]
    meant = find_meant(given, keys)
    why = why_no_key(name)
    if why is None or any(key.rpartition(".")[2] == name for key in meant):
        why = why_no_key(given.replace(".", "_"))  # optim.name: what others call optim_name
    if why is not None:
        return f": {why}"
    names = [f"'{dashes}{key}'{in_steps(name, key)}" for key in meant]
    return f"; did you mean {' or '.join(filter(None, [', '.join(names[:-1]), *names[-1:]]))}?" if names else ""


def changed_keys(old: Config, new: Config) -> list[str]:
    """Dotted keys whose values differ."""
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
    """SafeLoader that refuses a key given twice: the first would be ignored."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        near = [str(other) for other in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise UserError(f"config file not found: {path}{did_you_mean(str(path), near)}")
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


def _parse(flag: str, text: str) -> Any:
    """Lists, mappings and null are written as in YAML; the schema converts everything else."""
    if text[:1] in ("[", "{") or text in ("null", "none"):
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            raise UserError(f"{flag}: '{text}' is not a valid YAML list or mapping") from None
    return text


def _fields(section: type[BaseModel], prefix: Keys = ()) -> Iterator[tuple[Keys, dict[str, FieldInfo]]]:
    """Every leaf of the schema; its field by loss where only some losses have it, and under ``""`` elsewhere."""
    for name, field in section.model_fields.items():
        sections = _sections_of(field.annotation)
        if not sections or typing.get_origin(field.annotation) in (tuple, list):
            yield (*prefix, name), {"": field}
        elif len(sections) == 1:
            yield from _fields(sections[0], (*prefix, name))
        else:
            yield from _union_fields(sections, (*prefix, name))


def _union_fields(sections: Sequence[type[BaseModel]], prefix: Keys) -> Iterator[tuple[Keys, dict[str, FieldInfo]]]:
    leaves: dict[Keys, dict[str, FieldInfo]] = {}
    for section in sections:
        for keys, owners in _fields(section, prefix):
            leaves.setdefault(keys, {})[_names_of(section)[0]] = owners[""]
    for keys, owners in leaves.items():
        if keys[-1] == "name":
            yield keys, {"": FieldInfo(annotation=str, description=f"one of {', '.join(owners)}")}
        elif len(owners) == len(sections):
            yield keys, {"": next(iter(owners.values()))}
        else:
            yield keys, owners


def _sections_of(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for inner in typing.get_args(annotation) for section in _sections_of(inner)]


def _names_of(section: type[BaseModel]) -> tuple[str, ...]:
    return typing.get_args(section.model_fields["name"].annotation)


def _type_name(field: FieldInfo) -> str:
    def describe(annotation: Any) -> str:
        if typing.get_origin(annotation) is typing.Literal:
            return "|".join(str(choice) for choice in typing.get_args(annotation))
        if typing.get_origin(annotation) is typing.Annotated:
            return describe(typing.get_args(annotation)[0])
        if typing.get_origin(annotation) in (tuple, list):
            return "LIST"
        if isinstance(annotation, type):
            return {"str": "TEXT", "bool": "true|false"}.get(annotation.__name__, annotation.__name__.upper())
        inner = [describe(choice) for choice in typing.get_args(annotation) if choice is not type(None)]
        return "|".join(dict.fromkeys(inner))

    return describe(field.annotation)


def _describe(error: ValidationError, files: _MergedFiles, flags: dict[Keys, Any]) -> str:
    """One line for the first mistake, naming its source, its key and, for an unknown key, the nearest one."""
    problems = _join_choices(error.errors(include_url=False))
    problem = problems[0]
    tags = _losses()
    location = [str(part) for part in problem["loc"]]
    tag = location.pop(1) if len(location) > 1 and location[0] == "loss" and location[1] in tags else ""
    keys = tuple(location)
    dotted = ".".join(keys)
    path = files.file_of(keys)
    flag = next((given for given in flags if given == keys[: len(given)]), None)
    source = f"{path}: {dotted}" if dotted else str(path)
    if flag:
        inside = keys[len(flag) :]  # a value that is a list or mapping; a number alone is said by the value
        source = "--" + ".".join(flag) + (f": {'.'.join(inside)}" if len(inside) > 1 else "")
    more = f" (and {len(problems) - 1} more mistake{'s' * (len(problems) > 2)})" if len(problems) > 1 else ""
    if problem["type"] == "extra_forbidden":
        where = f" of loss '{tag}'" if tag else ""
        return f"{source}: unknown key{where}{_suggest_key(keys, tag)}{more}"
    if problem["type"] == "union_tag_invalid":
        name = str(problem["ctx"]["tag"])
        source = "--loss.name" if ("loss", "name") in flags else f"{path}: loss.name"
        meant = find_value(name, sorted(tags))
        return f"{source}: unknown loss '{name}'{did_you_mean(meant or name, sorted(tags))}"
    if problem["type"] == "union_tag_not_found":
        return f"{path}: loss.name is missing; valid: {', '.join(sorted(tags))}"
    if problem["type"] == "missing":
        return f"{path}: {dotted} is missing{more}"
    if problem["type"] in ("model_type", "model_attributes_type"):
        inner = {"data": "train", "model": "name", "loss": "name"}.get(dotted)
        example = f", such as {dotted}.{inner}: {problem['input']}" if inner else ""
        return f"{source}: should be a mapping of keys{example}, got {problem['input']!r}{more}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "literal_error":
        meant = find_value(str(problem["input"]), re.findall(r"'([^']*)'", problem["ctx"]["expected"]))
        more = (f"; did you mean '{meant}'?" if meant else "") + more
    given = "" if isinstance(problem["input"], dict | BaseModel) else f", got {problem['input']!r}"
    return f"{source}: {message[0].lower()}{message[1:]}{given}{more}"


def _join_choices(problems: Sequence[Any]) -> list[Any]:
    """Problems of a field that takes several types, one for each type, as one."""
    joined: dict[Any, Any] = {}
    for problem in problems:
        *field, last = problem["loc"] or ("",)
        if isinstance(last, str) and _CHOICE.fullmatch(last):
            problem = {**problem, "loc": tuple(field), "type": "choices"}
            if tuple(field) in joined:
                problem["msg"] = f"{joined[tuple(field)]['msg']}, or {problem['msg'].removeprefix('Input should be ')}"
        joined[problem["loc"]] = problem
    return sorted(
        joined.values(), key=lambda problem: problem["type"] != "extra_forbidden"
    )  # it explains a missing one


def _suggest_key(keys: Keys, tag: str) -> str:
    """Say which key is meant by one of a file, by its own name alone where it is a near miss in the same section."""
    beside = _valid_keys(keys[:-1], tag)
    given = ".".join(key for key in keys if not key.isdigit())  # a number is a place in a list
    section = given.rpartition(".")[0]
    losses = [name for name in sorted(_losses()) if tag and keys[-1] in _valid_keys(("loss",), name)]
    if losses:
        return f", a key of {', '.join(losses)}; valid: {', '.join(sorted(beside))}"
    known = [key for key in dotted_keys() if not (tag and key.startswith("loss."))]
    known += [f"{section}.{name}" if section else name for name in beside]
    near = nearest(keys[-1], beside, similarity=0.6 if section == "" or not is_known(keys[-1], known) else 0.85)
    if near is not None:
        return f"; did you mean '{near}'?"
    return _suggest(given, list(dict.fromkeys(known))) or did_you_mean(keys[-1], beside)


def _losses() -> set[str]:
    return {name for section in _sections_of(Config.model_fields["loss"].annotation) for name in _names_of(section)}


def _valid_keys(parent: Keys, tag: str) -> list[str]:
    sections: list[type[BaseModel]] = [Config]
    for key in (key for key in parent if not key.isdigit()):  # a number is a place in a list
        sections = [inner for section in sections for inner in _sections_of(section.model_fields[key].annotation)]
        if key == "loss":
            sections = [section for section in sections if tag in _names_of(section)]
    return [name for section in sections for name in section.model_fields]
