"""Write docs/file-map.md from the first docstring line of every module: ``python -m tests.test_docs.write_map``."""

import ast
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "file-map.md"
PACKAGES = ("bimodal_cl", "data_prep", "eval")

INTRODUCTION = """# File map

One line for each module: the first line of its docstring. `make map` writes this page, and a test compares it with
the sources.

The library `bimodal_cl` imports neither `data_prep` nor `eval`, and these do not import each other. Losses, models,
data and optimization import neither each other nor the configuration; `bimodal_cl/build.py` is the only module that
imports both. `make lint` checks these rules.

Besides the modules there are:

| folder | holds |
|---|---|
| `configs/train/` | recipes, each with purpose, command, hardware and score |
| `configs/loss/` | the papers' loss settings, to lay over any run |
| `configs/eval/` | evaluation recipes |
| `configs/accelerate/` | launch files for one and for two processes |
| `docs/` | these pages |
| `docs/examples/` | programs that the pages show and the tests run |
| `tests/test_*` | tests, in folders that mirror the code |
| `tests/reference/` | the formulas in plain float64, written independently of the losses |
| `tests/benchmarks/` | tables of time and memory (`make bench`) |
"""


def read_summaries() -> dict[str, str]:
    """First docstring line of every module, by path."""
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    paths.sort(key=lambda path: (path.parent, path.name != "__init__.py", path.name))
    docstrings = {path: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "" for path in paths}
    return {path.relative_to(ROOT).as_posix(): text.splitlines()[0] for path, text in docstrings.items()}


def format_map(summaries: dict[str, str]) -> str:
    """The page: a table for each folder, whose heading and introduction are the folder's own."""
    parts = [INTRODUCTION]
    for folder, modules in groupby(summaries.items(), key=lambda module: module[0].rpartition("/")[0]):
        rows = [f"| `{path.rpartition('/')[2]}` | {text.replace('|', chr(92) + '|')} |" for path, text in modules]
        parts.append("\n".join([f"## {folder}", "", "| file | what it does |", "|---|---|", *rows]) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(format_map(read_summaries()), encoding="utf-8")
