"""Which runs and results share a row of the comparison, and which rows may be compared."""

import json
import math

import pytest
import yaml

from eval import cli
from eval.outcomes import outcomes_path, read_outcomes
from eval.report.comparison.groups import load_groups
from eval.report.comparison.score_tables import compare_groups
from eval.report.comparison.warnings import find_warnings
from tests.refusals import read_mistake
from tests.test_report.made_results import write_retrieval

RETRIEVAL = "zeroshot_retrieval_made.json"


def rewrite(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_random_weights_are_another_recipe_than_the_models_own(made_runs):
    path = made_runs[1] / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["model"].setdefault("text", {})["hf_model_pretrained"] = False
    path.write_text(yaml.safe_dump(config))
    assert len(load_groups([str(run) for run in made_runs[:2]])) == 2


def test_a_row_without_its_seed_keeps_the_rest_of_its_name(made_runs):
    renamed = [
        made_runs[0].rename(made_runs[0].with_name("vits_s0")),
        made_runs[1].rename(made_runs[0].parent / "vits_s1"),
    ]
    other = [made_runs[2].rename(made_runs[0].parent / "run_bs512"), made_runs[3]]
    for run in other:  # the same loss, so that the folders name the rows
        path = run / "config.yaml"
        config = yaml.safe_load(path.read_text())
        config["loss"] = yaml.safe_load((renamed[0] / "config.yaml").read_text())["loss"]
        config["optim"]["learning_rate"] = 0.5
        path.write_text(yaml.safe_dump(config))
    assert [each.label for each in load_groups([str(run) for run in (*renamed, *other)])] == ["vits", "run_bs512"]


def test_a_folder_of_several_models_is_no_group(made_runs, tmp_path, capsys):
    for number, skill in enumerate((0.2, 0.9)):
        folder = tmp_path / "published" / f"model{number}"
        folder.mkdir(parents=True)
        write_retrieval(folder, skill, number, [])
    error = read_mistake(capsys, cli.main, "report", "--group", f"published={tmp_path / 'published'}", made_runs[0])
    assert "holds the results of 2 models (model0, model1); name one's folder" in error


def test_results_of_other_programs_are_not_tested_on_what_is_not_known(made_runs):
    for run in made_runs[2:4]:
        path = run / "results" / RETRIEVAL
        outcomes_path(path).unlink()
        rewrite(path, lambda content: content.pop("provenance"))
    groups = load_groups([str(run) for run in made_runs[:4]])
    tables = compare_groups(groups)
    (table,) = [each for each in tables if each.task == "zeroshot_retrieval"]
    assert not table.differences
    (line,) = [line for line in find_warnings(groups, tables) if "not known" in line]
    assert "clip" in line and "macl" in line and "different data" not in line


def test_nothing_is_marked_beside_other_data(made_runs):
    for run in made_runs[2:4]:
        write_retrieval(run / "results", 0.99, 5, [], captions="others")
    tables = compare_groups(load_groups([str(run) for run in made_runs]))
    (table,) = [each for each in tables if each.task == "zeroshot_retrieval"]
    assert not any(cell.best or cell.worse for row in table.rows for cell in row.cells.values())
    assert table.chance == {} and len(table.differences) == 3  # the other three rows are still compared


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"\x93NUMPY" + data]
)
def test_damaged_outcomes_are_not_used(made_runs, damage):
    path = made_runs[0] / "results" / RETRIEVAL
    content, file = json.loads(path.read_text()), outcomes_path(path)
    assert read_outcomes(path, content) is not None
    file.write_bytes(damage(file.read_bytes()))
    assert read_outcomes(path, content) is None


def test_tables_of_one_run_hold_final_results_and_name_the_language(made_runs, tmp_path):
    results = made_runs[0] / "results"
    text = (results / RETRIEVAL).read_text()
    (results / "zeroshot_retrieval_made~step_00001000.json").write_text(text)
    german = results / "zeroshot_retrieval_made~de.json"
    german.write_text(text)
    rewrite(german, lambda content: content.update(language="de"))
    assert cli.main(["report", str(made_runs[0]), "--tables", str(tmp_path / "tables")]) == 0
    markdown = (tmp_path / "tables" / "scores.md").read_text()
    assert markdown.count("| made, both directions |") == 1 == markdown.count("| made (de), both directions |")
    assert "~step_" not in (tmp_path / "tables" / "scores.csv").read_text()


def test_equal_scores_of_two_seeds_alone_are_no_certainty(made_runs):
    for run in made_runs[:4]:
        path = run / "results" / RETRIEVAL
        outcomes_path(path).unlink()
        for each in (path,):
            rewrite(each, lambda content: content.pop("intervals"))
            rewrite(each, lambda content, run=run: content["metrics"].update(rsum=1.0 + 0.1 * ("macl" in run.name)))
    tables = compare_groups(load_groups([str(run) for run in made_runs[:4]]))
    (table,) = [each for each in tables if each.task == "zeroshot_retrieval"]
    assert all(math.isnan(row.cells["rsum"].estimate.high) for row in table.rows)
    assert math.isnan(table.differences[0].scores["rsum"][0].p_value)
