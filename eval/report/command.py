"""Write one run's report, or a comparison of several runs and folders of results, as one self-contained page.

Runs whose configurations differ in the seed alone are one row of the comparison. Its tables and figures can also be
written as files for papers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bimodal_cl.cli.arguments import path_text
from bimodal_cl.cli.parser import Parser
from bimodal_cl.errors import UserError
from bimodal_cl.files.atomic import write_atomically

from ..results import make_folder
from ..trained_run import load_run
from .comparison.members import is_run
from .export import write_figures, write_texts


def add_arguments(parser: Parser) -> None:
    """Add the sub-command's arguments."""
    parser.add_argument(
        "folders",
        metavar="RUN",
        nargs="*",
        type=path_text,
        help="a run's folder, or a folder of results; several are compared",
    )
    parser.add_argument(
        "--group",
        metavar="NAME=RUN,RUN",
        action="append",
        default=[],
        help="a row of the comparison with its name and its runs, given once for each; other runs are sorted into rows "
        "by their configuration without the seed",
    )
    parser.add_argument(
        "--to",
        metavar="FILE",
        type=path_text,
        help="where to write the page (default: RUN/report.html of one run, report.html of a comparison)",
    )
    parser.add_argument("--tables", metavar="DIR", type=path_text, help="also write the tables as Markdown and CSV")
    parser.add_argument("--figures", metavar="DIR", type=path_text, help="also write the figures as PNG and SVG")


def run(args: argparse.Namespace) -> None:
    """Write the report and print its path.

    Raises:
        UserError: nothing to report, a file that cannot be read, or a target that cannot be written.
    """
    if not args.folders and not args.group:
        raise UserError("report: name a run's folder, or several runs and folders of results")
    single = len(args.folders) == 1 and not args.group and not _holds_results_alone(Path(args.folders[0]))
    write = _write_one_run if single else _write_comparison
    for path in write(args):
        print(path)


def _make_folders(args: argparse.Namespace) -> None:
    """Make the folders of the other files before anything is written, so that a mistake shows early."""
    for folder in (args.tables, args.figures):
        if folder is not None:
            make_folder(Path(folder))


def _holds_results_alone(folder: Path) -> bool:
    """Return whether a folder holds results, or folders of them, and is no run's."""
    found = (each for pattern in ("*.json", "*/*.json") for each in folder.glob(pattern))
    return not is_run(folder) and any(each.is_file() for each in found)


def _write_one_run(args: argparse.Namespace) -> list[Path]:
    from .one_run.content import describe_run, final_results
    from .pages import fill_in
    from .scores import tables_as_csv, tables_as_markdown
    from .sources import Sources

    trained = load_run(args.folders[0])
    _make_folders(args)
    target = trained.folder.report if args.to is None else Path(args.to)
    placed: list[Sources] = []

    def content(side: int) -> dict[str, object]:
        placed[:] = [Sources()]
        return {**describe_run(trained, placed[0], side), "sources": placed[0]}

    write_atomically(target, fill_in("report.html.j2", content))
    written = [target]
    if args.tables is not None:
        final = final_results(trained)
        texts = {"scores.md": tables_as_markdown(final), "scores.csv": tables_as_csv(final)}
        written += write_texts(Path(args.tables), texts)
    return written + write_figures(args.figures, placed[0])


def _write_comparison(args: argparse.Namespace) -> list[Path]:
    from .comparison.cells import as_csv, as_markdown, differences_as_csv
    from .comparison.content import describe_comparison
    from .comparison.groups import load_groups
    from .comparison.score_tables import compare_groups
    from .pages import fill_in
    from .sources import Sources

    groups = load_groups(args.folders, args.group)
    tables = compare_groups(groups)
    _make_folders(args)
    target = Path("report.html" if args.to is None else args.to)
    placed: list[Sources] = []

    def content(side: int) -> dict[str, object]:
        placed[:] = [Sources()]
        return {**describe_comparison(groups, tables, placed[0], side), "sources": placed[0]}

    write_atomically(target, fill_in("comparison.html.j2", content))
    written = [target]
    if args.tables is not None:
        texts = {"scores.md": as_markdown(tables), "scores.csv": as_csv(tables)}
        written += write_texts(Path(args.tables), {**texts, "differences.csv": differences_as_csv(tables)})
    return written + write_figures(args.figures, placed[0])
