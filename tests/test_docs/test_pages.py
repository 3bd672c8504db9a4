"""What the pages say is true: links lead somewhere, files exist, commands parse, messages occur in the sources."""

import ast
import re
import shlex

import pytest
import yaml

from bimodal_cl import train
from bimodal_cl.config.keys import dotted_keys
from bimodal_cl.config.schema import Config
from data_prep import cli as prep
from eval import cli as evaluation
from tests.test_docs.pages import PAGES, ROOT, code_blocks, commands, mentioned_commands, prose, read

QUICKSTART = "configs/train/quickstart.yaml"


def names(paths):
    return [path.relative_to(ROOT).as_posix() for path in paths]


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_relative_links_lead_to_files_and_headings(page):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", prose(page)):
        file = (page.parent / target).resolve() if target else page
        if page.parent.name == "docs" and target in ("contributing.md", "changelog.md"):
            file = ROOT / f"{target.partition('.')[0].upper()}.md"  # docs/hooks.py makes pages of them
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", read(file), flags=re.MULTILINE)
            assert anchor in [re.sub(r"[^\w]+", "-", heading.lower()).strip("-") for heading in headings], anchor


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_the_files_that_a_page_names_exist(page):
    pattern = r"\b(?:configs|bimodal_cl|data_prep|eval|tests|docs)/[\w/]+\.(?:yaml|py|md|txt)\b"
    new = set(re.findall(r"^# (\S+)$", read(page), flags=re.MULTILINE))  # files that an example adds
    assert [name for name in sorted({*re.findall(pattern, read(page))} - new) if not (ROOT / name).is_file()] == []


PROGRAMS = {"bimodal-prep": prep.main, "bimodal-train": train.main, "bimodal-eval": evaluation.main}
COMMANDS = sorted({command for page in PAGES for command in commands(page)})
MENTIONED = sorted({command for page in PAGES for command in mentioned_commands(page)})


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_are_understood(command, capsys):
    program, *words = shlex.split(command, comments=True)
    if program == "accelerate" and "--no_python" in words:
        program, *words = words[words.index("--no_python") + 1 :]
    elif program == "accelerate":
        program, words = "bimodal-train", words[words.index("bimodal_cl.train") + 1 :]
    words = [QUICKSTART if re.fullmatch(r"(FILE|RUN)(\.yaml)?", word) else word for word in words]
    assert PROGRAMS[program]([*words, "--print-config"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("command", MENTIONED)
def test_the_commands_and_flags_in_the_prose_exist(command, capsys):
    program, *words = shlex.split(command.replace("SOURCE", "folder"))
    flags = [word for word in words if word.startswith("--")]
    subcommands = [word for word in words[: 2 if words[0] == "write" else 1] if re.fullmatch(r"[a-z][\w-]+", word)]
    with pytest.raises(SystemExit, match=r"^0$"):
        PROGRAMS[program]([*subcommands, "--help"])
    shown = capsys.readouterr().out
    assert [flag for flag in flags if flag != "--help" and flag not in shown] == []


def test_there_are_commands_of_all_programs():
    assert {command.split()[0] for command in COMMANDS} == {*PROGRAMS, "accelerate"}
    assert len(COMMANDS) > 20 and len(MENTIONED) > 15


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_the_keys_that_a_page_names_exist(page):
    keys = dotted_keys()
    sections = {key.partition(".")[0] for key in keys if "." in key}
    pattern = r"`(?:--)?((?:" + "|".join(sections) + r")\.(?!py\b|safetensors\b)[a-z_.]+)(?:[ :][^`]*)?`"
    named = re.findall(pattern, prose(page))
    assert [key for key in named if key not in keys and f"{key}." not in "".join(keys)] == []


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_python_and_yaml_parse(page):
    for code in code_blocks(page, "python"):
        ast.parse(code)
    for code in code_blocks(page, "yaml"):
        assert isinstance(yaml.safe_load(code), dict)


def test_the_config_from_scratch_is_valid():
    (code,) = code_blocks(ROOT / "docs" / "training.md", "yaml")
    config = Config.model_validate(yaml.safe_load(code))
    assert config.loss.name == "isogclr"


def test_the_readme_is_short():
    assert len(read(ROOT / "README.md").splitlines()) <= 150


def messages():
    """Every text of the sources, with ``...`` for what is filled in."""
    for package in ("bimodal_cl", "data_prep", "eval"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    yield "".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


HEADINGS = re.findall(r"^### `(.*)`$", read(ROOT / "docs" / "troubleshooting.md"), flags=re.MULTILINE)


@pytest.fixture(scope="module")
def texts():
    return list(messages())


@pytest.mark.parametrize("quoted", HEADINGS)
def test_the_messages_occur_in_the_sources(quoted, texts):
    pattern = re.compile(".*".join(re.escape(part) for part in quoted.split("...")), flags=re.DOTALL)
    assert any(pattern.search(text) for text in texts)


def test_there_are_enough_messages():
    assert len(HEADINGS) >= 30
