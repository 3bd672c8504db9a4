"""Folders and files stay small enough to read: new modules are sorted into rooms, long ones split by concept."""

import ast
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("bimodal_cl", "data_prep", "eval")
MOST_MODULES, MOST_LINES, MEDIAN_LINES, MOST_LINES_OF_A_FUNCTION = 12, 350, 150, 80


def modules(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def count_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_folders_hold_few_modules():
    folders = {path.parent for path in modules(*SOURCES, "tests")}
    crowded = {folder: count for folder in folders if (count := len(list(folder.glob("*.py")))) > MOST_MODULES}
    assert crowded == {}


@pytest.mark.parametrize("folders", [SOURCES, ("tests",)])
def test_files_are_short(folders):
    lines = {path.relative_to(ROOT).as_posix(): count_lines(path) for path in modules(*folders)}
    assert {path: count for path, count in lines.items() if count > MOST_LINES} == {}
    assert statistics.median(lines.values()) < MEDIAN_LINES


def test_functions_are_short():
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in modules(*SOURCES)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno >= MOST_LINES_OF_A_FUNCTION
    ]
    assert long == []
