"""Describe a mistake in a config in one line: the file or flag, the key, and the nearest valid key or value."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from bimodal_cl.cli.synonyms import find_value
from bimodal_cl.config.keys import Keys, dotted_keys, loss_names, valid_keys
from bimodal_cl.config.names import find_meant, in_steps, is_known, why_no_key
from bimodal_cl.errors import did_you_mean, nearest

# Pydantic's names for the types of a field that takes several.
_CHOICE = re.compile(r"function-before\[.*\]|constrained-\w+|literal\[.*\]|int|list\[.*\]")


def describe_mistake(error: ValidationError, file_of: Callable[[Keys], Path], flags: Collection[Keys]) -> str:
    """Return one line for the first mistake: its source, its key and, for an unknown key, the nearest one.

    Args:
        error: of the schema.
        file_of: the file that a key, or the section around it, is from.
        flags: the keys that were given as flags.
    """
    problems = _join_choices(error.errors(include_url=False))
    problem = problems[0]
    tags = loss_names()
    location = [str(part) for part in problem["loc"]]
    tag = location.pop(1) if len(location) > 1 and location[0] == "loss" and location[1] in tags else ""
    keys = tuple(location)
    dotted = ".".join(keys)
    path = file_of(keys)
    flag = max((given for given in flags if given == keys[: len(given)]), key=len, default=None)
    source = f"{path}: {dotted}" if dotted else str(path)
    inside_flags = [f"--{'.'.join(given)}" for given in flags if keys and given[: len(keys)] == keys != given]
    if inside_flags and not flag:  # a mistake between keys of a section
        source = f"{path} with {', '.join(inside_flags)}: {dotted}"
    if flag:
        inside = keys[len(flag) :]  # of a list or mapping; the value shows a place alone
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
    """Join the problems of a field of a union type, one for each of its types, into one."""
    joined: dict[Any, Any] = {}
    for problem in problems:
        *field, last = problem["loc"] or ("",)
        if isinstance(last, str) and _CHOICE.fullmatch(last):
            problem = {**problem, "loc": tuple(field), "type": "choices"}
            if tuple(field) in joined:
                problem["msg"] = f"{joined[tuple(field)]['msg']}, or {problem['msg'].removeprefix('Input should be ')}"
        joined[problem["loc"]] = problem
    # An unknown key comes first: it explains a missing one.
    return sorted(joined.values(), key=lambda problem: problem["type"] != "extra_forbidden")


def _suggest_key(keys: Keys, tag: str) -> str:
    """Suggest the key that an unknown one of a file means; a near miss in the same section is named without it."""
    siblings = valid_keys(keys[:-1], tag)
    given = ".".join(key for key in keys if not key.isdigit())  # a number is a place in a list
    section = given.rpartition(".")[0]
    losses = [name for name in sorted(loss_names()) if tag and keys[-1] in valid_keys(("loss",), name)]
    if losses:
        return f", a key of {', '.join(losses)}; valid: {', '.join(sorted(siblings))}"
    known = [key for key in dotted_keys() if not (tag and key.startswith("loss."))]
    known += [f"{section}.{name}" if section else name for name in siblings]
    near = nearest(keys[-1], siblings, similarity=0.6 if section == "" or not is_known(keys[-1], known) else 0.85)
    if near is not None:
        return f"; did you mean '{near}'?"
    return _suggest(given, list(dict.fromkeys(known))) or did_you_mean(keys[-1], siblings)


def suggest_flag(flag: str, flags: Iterable[str]) -> str:
    """Name the flag that an unknown one means.

    Args:
        flag: the unknown flag.
        flags: all flags of the command, those of the schema's keys and others.
    """
    near = nearest(flag, [other for other in flags if "." not in other], similarity=0.85)
    if near is not None:
        return f"; did you mean '{near}'?"
    given, keys = flag.lstrip("-"), dotted_keys()
    section, _, name = given.rpartition(".")
    siblings = [key.rpartition(".")[2] for key in keys if section and key.rpartition(".")[0] == section]
    inside = [f"--{key}" for key in keys if key.startswith(f"{given}.")]
    if inside and (section or not (is_known(given, keys) or why_no_key(given))):
        return f": a section; its flags: {', '.join(inside)}"
    if siblings:
        return _suggest(given, keys, "--") or did_you_mean(name, siblings)
    return _suggest(given, keys, "--") or "; --help lists all flags"


def _suggest(given: str, keys: Sequence[str], dashes: str = "") -> str:
    """Name the keys that an unknown one may mean, or say why there is none; ``""`` where none is near."""
    name = given.rpartition(".")[2]
    meant = find_meant(given, keys)
    why = why_no_key(name)
    if why is None or any(key.rpartition(".")[2] == name for key in meant):
        why = why_no_key(given.replace(".", "_"))  # optim.name: optim_name elsewhere
    if why is not None:
        return f": {why}"
    names = [f"'{dashes}{key}'{in_steps(name, key)}" for key in meant]
    return f"; did you mean {' or '.join(filter(None, [', '.join(names[:-1]), *names[-1:]]))}?" if names else ""
