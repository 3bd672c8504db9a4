"""Records of a study: which runs they make unnecessary, and what a crash may leave."""

from __future__ import annotations

import json

import pytest

from bimodal_cl.errors import UserError
from eval.study.choice import choose
from eval.study.records import Records, locked_study, read_records, scored_on
from eval.study.schedule import make_record, plan_runs
from tests.test_eval_commands.study.conftest import make_outcome


def add(study, records, run, val=0.5, **more):
    records.append(make_record(study, run, make_outcome(val, **more)))


def test_a_record_makes_its_run_unnecessary_also_when_it_is_read_again(expand_study):
    study = expand_study()
    records = Records(study.output, scored_on(study))
    run, other = study.tuning(study.cells[0])
    add(study, records, run)
    again = Records(study.output, scored_on(study))
    assert again.find(run)["val"] == make_outcome()["val"]
    assert again.find(other) is None
    assert len(plan_runs(study, again).done) == 1
    changed = expand_study(overrides={"optim.weight_decay": 0.05})
    assert again.find(changed.tuning(changed.cells[0])[0]) is None


def test_a_torn_last_line_is_dropped_and_written_over(expand_study):
    study = expand_study()
    records = Records(study.output, scored_on(study))
    run, other = study.tuning(study.cells[0])
    add(study, records, run)
    with records.path.open("ab") as file:
        file.write(b'{"method": "clip", "recipe": "12')
    again = Records(study.output, scored_on(study))
    assert len(read_records(again.path)) == 1
    add(study, again, other)
    lines = records.path.read_text().splitlines()
    assert [json.loads(each)["point"] for each in lines] == [{"loss.tau_init": 0.05}, {"loss.tau_init": 0.1}]


def test_a_damaged_line_is_named(expand_study):
    study = expand_study()
    study.output.mkdir(parents=True)
    (study.output / "runs.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(UserError, match=r"runs\.jsonl: line 1 is no record of a run"):
        Records(study.output)


def test_a_final_run_needs_its_test_scores_and_the_same_test_data(expand_study):
    study = expand_study(tune={"seeds": [1]})
    records = Records(study.output, scored_on(study))
    cell = study.cells[0]
    add(study, records, study.tuning(cell)[0])
    final = study.finals(cell, 0)[0]
    assert study.may_be_final(study.tuning(cell)[0])
    assert records.find(final) is None
    add(study, records, final, test={"rsum": 1.0})
    assert records.find(final)["test"] == {"rsum": 1.0}
    assert records.find(study.tuning(cell)[0]) is not None
    other = expand_study(tune={"seeds": [1]}, test={"data": "shards/val"})
    assert Records(study.output, scored_on(other)).find(final) is None


def test_without_test_data_the_same_config_is_run_once(expand_study):
    study = expand_study(tune={"seeds": [1]}, test=None)
    records = Records(study.output, scored_on(study))
    add(study, records, study.tuning(study.cells[0])[0])
    assert records.find(study.finals(study.cells[0], 0)[0]) is not None


def test_failed_runs_are_done_until_they_are_to_be_tried_again(expand_study):
    study = expand_study()
    records = Records(study.output, scored_on(study))
    run, other = study.tuning(study.cells[0])
    records.append(make_record(study, run, {"failed": "step 3: not finite"}))
    add(study, records, other, 0.1)
    choice = choose(study, records, study.cells[0])
    assert (choice.chosen, choice.points[0].failed) == (1, "step 3: not finite")
    records.forget_failures()
    assert records.find(run) is None
    assert records.find(other) is not None


def test_numbers_that_json_does_not_have_are_null(expand_study):
    study = expand_study()
    records = Records(study.output)
    add(study, records, study.tuning(study.cells[0])[0], log={"loss": float("nan")})
    assert json.loads(records.path.read_text())["log"] == {"loss": None}


def test_a_second_process_is_refused(expand_study):
    study = expand_study()
    with (
        locked_study(study.output),
        pytest.raises(UserError, match="another process runs a study"),
        locked_study(study.output),
    ):
        pass


@pytest.mark.parametrize(
    ("scores", "chosen", "border"),
    [
        ((0.1, 0.3, 0.2), 1, []),
        ((0.3, 0.3, 0.2), 0, ["tau_init 0.03 (smallest of 3)"]),
        ((0.1, 0.2, 0.4), 2, ["tau_init 0.3 (largest of 3)"]),
        ((0.1, None, 0.4), None, []),
    ],
)
def test_the_best_mean_is_chosen_and_the_first_of_equal_ones(scores, chosen, border, expand_study):
    study = expand_study(methods={"clip": {"grid": {"loss.tau_init": [0.03, 0.1, 0.3]}}}, tune={"seeds": [0, 1]})
    records = Records(study.output, scored_on(study))
    cell = study.cells[0]
    for run in study.tuning(cell):
        if (score := scores[run.point]) is not None:
            add(study, records, run, score + (0.01 if run.seed else -0.01))
    choice = choose(study, records, cell)
    assert choice.chosen == chosen
    assert choice.at_border() == border
