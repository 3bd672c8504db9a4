"""Which checkpoint of a run's folder is the newest, and what counts as one."""

import json

import pytest

from bimodal_cl.errors import UserError
from bimodal_cl.run_folder import RunFolder


@pytest.fixture
def run(tmp_path):
    """A run's folder with two whole checkpoints, one half removed, and one half written."""
    run = RunFolder(tmp_path)
    for step in (4, 20):
        run.checkpoint(step).mkdir(parents=True)
        (run.checkpoint(step) / "state.json").write_text(json.dumps({"step": step}))
    run.checkpoint(30).mkdir()
    partial = run.checkpoints / "step_00000040.partial"
    partial.mkdir()
    (partial / "state.json").write_text("{}")
    return run


def test_the_newest_is_what_latest_points_to(run):
    (run.checkpoints / "latest").symlink_to("step_00000004")
    assert run.newest_checkpoint() == run.find_checkpoint("latest") == run.checkpoint(4)


@pytest.mark.parametrize("target", [None, "step_00000030", "step_00000099"])
def test_without_a_whole_latest_it_is_the_last_whole_one(run, target):
    if target is not None:
        (run.checkpoints / "latest").symlink_to(target)
    assert run.list_checkpoints() == [run.checkpoint(4), run.checkpoint(20)]
    assert run.newest_checkpoint() == run.find_checkpoint("latest") == run.checkpoint(20)


def test_by_name_by_path_and_not_at_all(run, tmp_path):
    assert run.find_checkpoint("step_00000004") == run.find_checkpoint(str(run.checkpoint(4))) == run.checkpoint(4)
    with pytest.raises(UserError, match=r"no checkpoint 'step_00000005' in .*; did you mean 'step_000000"):
        run.find_checkpoint("step_00000005")
    assert RunFolder(tmp_path / "new").find_checkpoint("latest") is None
