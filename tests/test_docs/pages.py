"""The documentation's pages, and what tests take from them: code, commands, links."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def code_blocks(page: Path, language: str) -> list[str]:
    """The page's fenced code of one language; ``""``: of none."""
    return [code for found, code in _BLOCK.findall(read(page)) if found == language]


def prose(page: Path) -> str:
    """The page without its fenced code."""
    return _BLOCK.sub("", read(page))


def commands(page: Path) -> list[str]:
    """Whole command lines of this project's programs, from code blocks; continuation lines are joined."""
    lines = "\n".join(code_blocks(page, "")).replace("\\\n", " ").splitlines()
    return [line for line in lines if re.match(r"bimodal-\w+ \S|accelerate launch", line)]


def mentioned_commands(page: Path) -> list[str]:
    """Commands that the prose mentions, mostly without all their arguments."""
    mentioned = re.findall(r"`(bimodal-\w+ [^`\n]+)`", prose(page))
    return [command.replace(" ...", "").replace("...", "") for command in mentioned]
