"""Several runs are compared in one page: seeds in one row, marks of what is sure, sources of every figure."""

import csv
import json
import re
import shutil

import pytest
import yaml

from eval import cli
from eval.report.comparison.groups import load_groups
from eval.report.comparison.score_tables import compare_groups
from eval.report.comparison.warnings import find_warnings
from eval.report.pages import MOST_BYTES
from tests.refusals import read_mistake, refused
from tests.test_report.made_results import SKILL, write_retrieval


def compare(*paths, named=()):
    groups = load_groups([str(path) for path in paths], named)
    return groups, compare_groups(groups)


def test_runs_that_differ_in_the_seed_alone_are_one_row(made_runs):
    groups, tables = compare(*made_runs)
    assert [each.label for each in groups] == list(SKILL)
    assert [len(each.members) for each in groups] == [2, 2, 2, 2]
    assert [(each.task, each.dataset) for each in tables] == [
        ("zeroshot_classification", "made"),
        ("zeroshot_retrieval", "made"),
    ]
    row = tables[1].rows[0]
    cell = row.cells["image_retrieval_recall@1"]
    assert cell.values == tuple(each.scores["image_retrieval_recall@1"] for each in row.files)
    assert cell.estimate.value == pytest.approx(sum(cell.values) / 2)
    assert cell.estimate.low < min(cell.values) and max(cell.values) < cell.estimate.high


def test_an_option_that_an_older_version_did_not_know_and_is_off_makes_no_other_row(made_runs):
    path = made_runs[1] / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["model"]["vision"]["new_option"] = False
    path.write_text(yaml.safe_dump(config))
    assert [each.label for each in load_groups([str(run) for run in made_runs[:2]])] == ["clip"]
    config["model"]["vision"]["new_option"] = True
    path.write_text(yaml.safe_dump(config))
    assert len(load_groups([str(run) for run in made_runs[:2]])) == 2


def test_the_best_is_marked_and_what_is_surely_below_it(made_runs):
    _, (_, retrieval) = compare(*made_runs)
    cells = {row.group.label: row.cells["rsum"] for row in retrieval.rows}
    assert [label for label, cell in cells.items() if cell.best] == ["isogclr"]
    assert [label for label, cell in cells.items() if cell.worse] == ["clip", "macl", "sogclr"]
    ranks = {row.group.label: row.cells["image_retrieval_mean_rank"] for row in retrieval.rows}
    assert ranks["isogclr"].best  # the lowest
    (near,) = [one for one in retrieval.differences if (one.first.label, one.second.label) == ("clip", "macl")]
    found, corrected = near.scores["rsum"]
    assert found.p_value <= corrected and corrected > 0.05
    assert retrieval.chance["image_retrieval_recall@1"] == pytest.approx(1 / 300)


def test_the_same_questions_tell_more_apart_than_two_intervals(made_runs):
    """The pairing needs the outcomes; without them the test data's part of a difference is larger."""
    one, other = made_runs[0], made_runs[2]
    _, (_, paired) = compare(one, other)
    for run in (one, other):
        (run / "results/zeroshot_retrieval_made.outcomes.npz").unlink()
    _, (_, apart) = compare(one, other)
    errors = [each.differences[0].scores["rsum"][0].data_error for each in (paired, apart)]
    assert 0 < errors[0] < 0.8 * errors[1]


def test_other_data_are_named_and_not_compared(made_runs):
    write_retrieval(made_runs[0] / "results", 0.4, 7, [], captions="others")
    groups, tables = compare(made_runs[0], made_runs[6])
    assert tables[1].differences == []
    (line,) = find_warnings(groups, tables)
    assert "isogclr and clip were scored on different data" in line


def test_rows_of_other_lengths_of_training_are_named(made_runs):
    path = made_runs[0] / "results/zeroshot_retrieval_made.json"
    result = json.loads(path.read_text())
    result["provenance"]["step"] = 1000
    path.write_text(json.dumps(result))
    (line,) = find_warnings(*compare(made_runs[0], made_runs[6]))
    assert "different numbers of steps (clip 1,000, isogclr 2,000)" in line


def test_equal_weights_missing_scores_and_repeated_seeds_are_named(made_runs):
    config = made_runs[1] / "config.yaml"
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), "seed": 0}))
    path = made_runs[1] / "results/zeroshot_retrieval_made.json"
    path.unlink()
    same = made_runs[0] / "results/zeroshot_classification_made.json"
    for end in (".json", ".outcomes.npz"):
        shutil.copy(same.with_suffix(end), made_runs[1] / "results" / f"zeroshot_classification_made{end}")
    lines = "\n".join(find_warnings(*compare(*made_runs[:2])))
    for expected in ("seeds 0, 0", "same weights were scored 2 times", "only 1 of 2 seeds were scored"):
        assert expected in lines


def test_folders_of_results_and_named_groups_are_rows(made_runs):
    results = [run / "results" for run in made_runs]
    groups, tables = compare(results[6], named=[f"baseline={results[0]},{results[1]}"])
    assert [(each.label, len(each.members)) for each in groups] == [("baseline", 2), ("results", 1)]
    assert [len(row.files) for row in tables[0].rows] == [2, 1]
    single = tables[1].rows[1].cells["rsum"].estimate
    assert single.seed_error == 0 < single.data_error


def test_the_command_writes_page_tables_and_figures(compared):
    page = (compared / "report.html").read_text(encoding="utf-8")
    assert len(page.encode()) < MOST_BYTES
    assert re.findall(r"<script\b|<link\b|@import|url\(\s*['\"]?(?!data:|#)", page) == []
    for expected in (
        "<h1>clip, macl, sogclr, isogclr</h1>",
        "in other rows: ",
        "isogclr",
        "true class",
        "fitted temperatures",
        "data:image/",
    ):
        assert expected in page, expected
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)
    rows = list(csv.DictReader((compared / "tables/scores.csv").open()))
    (row,) = [
        each
        for each in rows
        if (each["row"], each["metric"], each["task"]) == ("isogclr", "rsum", "zeroshot_retrieval")
    ]
    shown = f"{100 * float(row['mean']):,.1f}"
    assert shown in page and f"**{shown}** ±" in (compared / "tables/scores.md").read_text()
    differences = list(csv.DictReader((compared / "tables/differences.csv").open()))
    assert {each["first"] for each in differences} == {"clip", "macl", "sogclr"}


def test_every_figure_names_the_files_it_is_from(compared):
    listed = json.loads((compared / "figures/figures.json").read_text())
    page = (compared / "report.html").read_text(encoding="utf-8")
    assert len(listed) > 15
    for figure in listed:
        assert figure["files"], figure["name"]
        assert all(len(each["sha256"]) == 64 for each in figure["files"])
        assert f'<figure id="{figure["name"]}">' in page
        assert (compared / "figures" / f"{figure['name']}.png").read_bytes()[:4] == b"\x89PNG"
        assert "<text" not in (compared / "figures" / f"{figure['name']}.svg").read_text()  # glyphs are drawn
    scores = next(each for each in listed if each["name"] == "scores-zeroshot_retrieval_made")
    assert len(scores["files"]) == 8 and scores["files"][0]["command"].startswith("bimodal-eval ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{0}", "{0}"], "given twice"),
        (["{0}", "--group", "noname"], "must be NAME=RUN"),
        (["{0}", "{0}x"], "no such folder; did you mean 'clip_s0'"),
        (["{0}", "{0}/empty"], "neither a run's folder"),
        ([], "name a run's folder"),
        (["{0}", "{1}", "--tables", "{0}/config.yaml"], "cannot create the folder"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(made_runs, tmp_path, capsys, words, message):
    words = [word.format(*made_runs) for word in words]
    (made_runs[0] / "empty").mkdir()
    targets = ["--to", tmp_path / "out" / "page.html", "--figures", tmp_path / "out" / "figures"]
    assert message in read_mistake(capsys, cli.main, "report", *words, *targets)
    assert not (tmp_path / "out").exists()


def test_a_group_without_runs_is_refused():
    with refused("must be NAME=RUN"):
        load_groups([], ["empty="])
