"""Read prompts and class names: from a file, from the lists that come along, or open_clip's for ImageNet."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bimodal_cl.cli.arguments import path_text
from bimodal_cl.cli.parser import Parser
from bimodal_cl.errors import UserError, did_you_mean
from bimodal_cl.files.text_files import NotText, read_text

from .datasets import require_file

if TYPE_CHECKING:
    from bimodal_cl.data.labelled.class_names import NameList

_PROMPTS, _CLASSNAMES = files(__package__) / "prompts", files(__package__) / "classnames"
# Of open_clip: the 80 prompts of CLIP's paper for ImageNet, and the seven of them that its authors recommend.
_OPEN_CLIP = {"imagenet": "OPENAI_IMAGENET_TEMPLATES", "imagenet-simple": "SIMPLE_IMAGENET_TEMPLATES"}
IMAGENET = "imagenet"


def prompt_names() -> list[str]:
    """Return the names of the built-in lists of prompts."""
    return sorted([*_names_in(_PROMPTS), *_OPEN_CLIP])


def classname_lists() -> list[str]:
    """Return the names of the built-in lists of class names."""
    return sorted([*_names_in(_CLASSNAMES), IMAGENET])


def load_templates(given: str) -> list[str]:
    """Read prompts, one per line with ``{c}`` where the class name goes; lines that start with ``#`` are comments.

    Args:
        given: a file's path, or one of :func:`prompt_names`.

    Raises:
        UserError: there is no such file or name, the file holds no prompt, or one without ``{c}``.
    """
    if given in _OPEN_CLIP:
        import open_clip

        return [template("{c}") for template in getattr(open_clip, _OPEN_CLIP[given])]
    if given in prompt_names():
        lines = _prompt_lines((_PROMPTS / f"{given}.txt").read_text(encoding="utf-8"))
    else:
        lines = _prompt_lines(_read_text(Path(given), "--templates", prompt_names()))
    if not lines:
        raise UserError(f"--templates {given}: holds no template")
    for line in lines:
        if "{c}" not in line:
            hint = "; write {c} for {}" if "{}" in line else ""
            raise UserError(f"--templates {given}: template '{line}' has no {{c}} where the class name goes{hint}")
    return lines


def add_classnames_argument(parser: Parser) -> None:
    """Add the flag ``--classnames``, for :func:`load_classnames`."""
    parser.add_argument(
        "--classnames",
        metavar="FILE",
        type=path_text,
        default=None,
        help=f"names for the classes, one per line in their order; or one of {', '.join(classname_lists())}",
    )


def load_classnames(given: str) -> NameList:
    """Read class names, by class index.

    Args:
        given: a file's path, with a name per line, or one of :func:`classname_lists`.

    Raises:
        UserError: there is no such file or name, or a line is no class name.
    """
    from bimodal_cl.data.labelled.class_names import NameList, read_name_list

    if given == IMAGENET:
        from open_clip import IMAGENET_CLASSNAMES

        return NameList(list(IMAGENET_CLASSNAMES), given)
    if given in classname_lists():
        return NameList((_CLASSNAMES / f"{given}.txt").read_text(encoding="utf-8").splitlines(), given)
    require_file(given, "--classnames", classname_lists())
    return read_name_list(Path(given))


def _names_in(folder: Any) -> list[str]:
    return [each.name.removesuffix(".txt") for each in folder.iterdir() if each.name.endswith(".txt")]


def _prompt_lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip() and not line.startswith("#")]


def _read_text(path: Path, flag: str, names: Sequence[str] = ()) -> str:
    try:
        return read_text(path)
    except FileNotFoundError:
        near = list(names)
        if path.parent.is_dir():
            near += [each.name for each in path.parent.iterdir() if each.suffix == ".txt"]
        raise UserError(f"{flag} {path}: no such file{did_you_mean(path.name, near)}") from None
    except (OSError, NotText) as error:
        raise UserError(f"{flag} {path}: not readable as text: {error}") from None
