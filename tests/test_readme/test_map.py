"""The README's map is true: it names every module, and says what the module's own docstring says first."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("bimodal_cl", "data_prep", "eval")


def summaries() -> dict[str, str]:
    """First docstring line of every module, by path."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    docstrings = {path: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "" for path in paths}
    return {path.relative_to(ROOT).as_posix(): text.splitlines()[0] for path, text in docstrings.items()}


def mapped() -> dict[str, str]:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| `([\w/]+\.py)` \| (.*) \|$", readme, flags=re.MULTILINE))


def test_the_map_names_every_module_in_its_own_words():
    assert mapped() == {path: text.replace("|", "\\|") for path, text in summaries().items()}


def test_the_files_and_folders_that_the_readme_names_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\b(?:configs|bimodal_cl|tests)/[\w/]+\.(?:yaml|py)\b", readme))
    assert named
    assert [path for path in sorted(named) if not (ROOT / path).is_file()] == []
