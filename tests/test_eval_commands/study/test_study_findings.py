"""Intervals and tests of a study against SciPy's and hand-worked numbers, and the notes that warn a reader."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from scipy import stats

from bimodal_cl.errors import UserError
from eval.study.choice import choose
from eval.study.findings.comparisons import compare_cells, find_pairs, score_cells
from eval.study.findings.figures import marker_of
from eval.study.findings.render import write_study
from eval.study.findings.tables import as_markdown, collect_findings, differences_as_csv, notes
from eval.study.records import Records, scored_on
from eval.study.schedule import estimate_seconds, make_record, plan_runs
from tests.test_eval_commands.study.conftest import make_outcome

METHODS = {"a": {"loss": {"name": "clip"}}, "b": {"loss": {"name": "sogclr"}}, "c": {"loss": {"name": "siglip"}}}
SCORES = {"a": [0.30, 0.32, 0.31, 0.35], "b": [0.33, 0.34, 0.35, 0.36], "c": [0.30, 0.33, 0.30, 0.34]}


@pytest.fixture
def done(expand_study):
    """A study of three methods at two batch sizes with four seeds, all done; at the second all scores are 0.1 more."""

    def fill(**changes):
        study = expand_study(methods=METHODS, final={"seeds": [1, 2, 3, 4]}, **changes)
        records = Records(study.output, scored_on(study))
        for number, cell in enumerate(study.cells):
            for run, value in zip(study.finals(cell, 0), SCORES[cell.method], strict=True):
                test = {"rsum": value + 0.1 * (number >= 3), "image_retrieval_recall@1": value / 2}
                records.append(make_record(study, run, make_outcome(test=test)))
        return study, records

    return fill


def test_means_have_intervals_with_the_variance_pooled_at_a_setting(done):
    study, records = done()
    scored = score_cells(study, records, [choose(study, records, each) for each in study.cells])
    values = np.array(list(SCORES.values()))
    error = np.sqrt(values.var(axis=1, ddof=1).mean() / 4)
    half = stats.t.ppf(0.975, 3 * 3) * error
    found = scored[0].estimates["rsum"]
    assert (found.value, found.low, found.high) == pytest.approx((0.32, 0.32 - half, 0.32 + half))
    assert scored[4].estimates["rsum"].value == pytest.approx(0.445)
    assert scored[0].with_data == {}


def test_pairs_are_tested_by_seed_and_corrected_over_the_study(done):
    study, records = done()
    scored = score_cells(study, records, [choose(study, records, each) for each in study.cells])
    found = compare_cells(find_pairs(study), scored)
    assert [(each.first.method, each.second.method) for each in found] == 2 * [("a", "b"), ("a", "c"), ("b", "c")]
    raw = []
    for each in found[:3]:
        one, other = SCORES[each.first.method], SCORES[each.second.method]
        expected = stats.ttest_rel(one, other)
        interval = expected.confidence_interval()
        estimate, _ = each.scores["rsum"]
        assert estimate.p_value == pytest.approx(expected.pvalue)
        assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high))
        raw.append(expected.pvalue)
    smallest = min(raw)
    corrected = [each.scores["rsum"][1] for each in found]
    assert min(corrected) == pytest.approx(6 * smallest)  # six comparisons of the study


def test_named_pairs_are_a_smaller_family_also_between_settings(done):
    study, records = done(compare=["b vs a", "a@8 vs b@4"])
    names = [(one.key, other.key) for one, other in find_pairs(study)]
    assert names == [(("b", "4"), ("a", "4")), (("b", "8"), ("a", "8")), (("a", "8"), ("b", "4"))]
    found = collect_findings(study, records).comparisons
    assert found[2].scores["rsum"][0].value == pytest.approx(0.42 - 0.345)
    text = as_markdown(collect_findings(study, records))
    assert "| b − a, global batch size 4 | 4 |" in text
    assert "| a, global batch size 8 − b, global batch size 4 | 4 |" in text


def test_methods_that_are_not_run_everywhere_are_compared_where_both_are(done):
    axes = {"size": {"small": {"train.global_batch_size": 4, "methods": ["a", "b"]}, "large": {}}}
    study, _ = done(axes=axes, compare=["c vs a", "a@large vs a@small", "b@small vs c"])
    names = [(*one.key, *other.key) for one, other in find_pairs(study)]
    assert names == [("c", "large", "a", "large"), ("a", "large", "a", "small"), ("b", "small", "c", "large")]
    study, _ = done(axes=axes, compare=["c@small vs a"])
    with pytest.raises(UserError, match="no 'small' among the axes"):
        find_pairs(study)


def test_a_failed_seed_is_left_out_and_said(done):
    study, records = done()
    run = study.finals(study.cells[0], 0)[2]
    records._of_run.pop((run.recipe, run.seed))
    records.append(make_record(study, run, {"failed": "step 2: not finite"}))
    findings = collect_findings(study, records)
    assert list(findings.cells[0].scores["rsum"]) == [1, 2, 4]
    rows = list(csv.DictReader(io.StringIO(differences_as_csv(findings))))
    assert rows[0]["seeds"] == "1 2 4"
    assert notes(findings) == ["a: a final run failed: step 2: not finite (global batch size 4)"]


def test_notes_say_what_makes_a_comparison_unfair(expand_study):
    grid = {"loss.tau_init": [0.05, 0.1]}
    study = expand_study(methods={"a": {"grid": grid}, "b": {}}, axes={})
    records = Records(study.output, scored_on(study))
    for run in study.tuning(study.cells[0]):
        records.append(make_record(study, run, make_outcome(0.5 + run.point)))
    assert notes(collect_findings(study, records)) == [
        "The grids differ in size, so the methods are not tuned equally: a 2, b 1.",
        "1 of 2 chosen points lie on the border of their grid, see Tuning: beyond it may be better ones. "
        "Of two values each is on a border; with three or more it is 0.",
        "4 runs are yet to be done.",
    ]


def test_the_note_of_unequal_grids_says_where(expand_study):
    small = {"grid": {"optim.learning_rate": [1e-3, 1e-2]}}
    methods = {"a": {"grid": {"loss.tau_init": [0.05, 0.1]}}, "b": {"grid": {"loss.tau_init": [0.05, 0.1]}}}
    study = expand_study(methods=methods, axes={"size": {"small": small, "large": {}}})
    assert not any("not tuned equally" in each for each in notes(collect_findings(study, Records(study.output))))
    study = expand_study(methods={**methods, "c": {}}, axes={"size": {"small": small, "large": {}}})
    assert notes(collect_findings(study, Records(study.output)))[:2] == [
        "The grids differ in size, so the methods are not tuned equally: a 4, b 4, c 2 (size small).",
        "The grids differ in size, so the methods are not tuned equally: a 2, b 2, c 1 (size large).",
    ]


def test_time_is_estimated_from_runs_of_the_same_setting(done):
    study, records = done()
    for run in (study.finals(study.cells[0], 0)[0], study.finals(study.cells[5], 0)[1]):
        del records._of_run[run.recipe, run.seed]
    plan = plan_runs(study, records)
    assert (len(plan.done), plan.num_lacking) == (22, 2)
    assert estimate_seconds(study, records, plan, jobs=2) == pytest.approx(2 * 2.0 / 2)


def test_the_page_holds_tables_and_figures(done):
    study, records = done()
    paths = write_study(collect_findings(study, records), records)
    page = paths[-1].read_text()
    assert "global batch size 8" in page
    assert page.count("<svg") == 2 + 2 * 2  # two metrics: over the axis, and at each of two settings
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_methods_beyond_the_colours_differ_by_marker():
    looks = {(number % 8, marker_of(number)) for number in range(64)}
    assert len(looks) == 64
