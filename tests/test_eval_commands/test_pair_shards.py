"""``bimodal-eval retrieval`` reads shards, a folder of their splits and CLIP_benchmark's layout."""

from __future__ import annotations

import pytest

from eval.cli import main
from tests.refusals import read_mistake
from tests.test_data.tiny_shards import write_tar
from tests.test_eval_commands.conftest import COLOURS, as_png, draw, retrieve


@pytest.fixture
def benchmark_layout(tmp_path):
    """Two tars of four and two images with two captions each, and no manifest."""
    folder = tmp_path / "wds_colours"
    for shard, names in enumerate((list(COLOURS)[:4], list(COLOURS)[4:])):
        members = []
        for name in names:
            members.append((f"s{name}.png", as_png(draw(name, 3))))
            members.append((f"s{name}.txt", f"{name} tile\nthe colour {name}".encode()))
        write_tar(folder / "test" / f"{shard}.tar", members)
    (folder / "test" / "nshards.txt").write_text("2\n")
    return folder


def test_a_split_of_a_folder_scores_as_the_split_itself(run_folder, shards, tmp_path):
    direct = retrieve(run_folder, shards, tmp_path / "direct")
    above = retrieve(run_folder, shards.parent, tmp_path / "above")
    assert direct["provenance"].pop("command") != above["provenance"].pop("command")
    assert above == direct
    assert above["dataset"] == "colours_test"


def test_the_layout_of_clip_benchmark_is_read_and_nothing_is_written(run_folder, benchmark_layout, tmp_path):
    before = sorted(path.name for path in benchmark_layout.rglob("*"))
    result = retrieve(run_folder, benchmark_layout, tmp_path / "out")
    assert result["provenance"]["counts"] == {"num_images": 6, "num_texts": 12, "num_skipped": 0}
    assert result["dataset"] == "colours_test"
    assert sorted(path.name for path in benchmark_layout.rglob("*")) == before
    assert retrieve(run_folder, benchmark_layout / "test", tmp_path / "inside")["metrics"] == result["metrics"]


def test_a_split_that_is_not_there_is_named_with_the_nearest(run_folder, shards, benchmark_layout, capsys):
    for data in (shards.parent, benchmark_layout):
        error = read_mistake(capsys, main, "retrieval", run_folder, "--data", data, "--split", "tset")
        assert f"--split tset: not in {data}; did you mean 'test'?" in error


def test_a_tar_that_is_counted_and_missing_is_named(run_folder, benchmark_layout, capsys):
    (benchmark_layout / "test" / "1.tar").unlink()
    error = read_mistake(capsys, main, "retrieval", run_folder, "--data", benchmark_layout)
    assert "1.tar: missing, though nshards.txt says 2" in error


def test_labelled_images_are_sent_to_zero_shot(run_folder, wds_folder, capsys):
    error = read_mistake(capsys, main, "retrieval", run_folder, "--data", wds_folder)
    assert "hold no captions; images with labels are scored by `bimodal-eval zero-shot`" in error


def test_images_that_come_more_than_once_are_remarked(run_folder, tmp_path, capsys):
    """img2dataset writes one caption per sample, so COCO's images repeat; no model can choose among the copies."""
    folder = tmp_path / "test"
    members = []
    for number, name in enumerate(list(COLOURS)[:3] * 2):
        members += [(f"{number}.png", as_png(draw(name, 3))), (f"{number}.txt", f"{name} {number}".encode())]
    write_tar(folder / "0.tar", members)
    (folder / "nshards.txt").write_text("1")
    result = retrieve(run_folder, folder, tmp_path / "out")
    assert result["metrics"]["image_retrieval_recall@1"] == 0
    shown = capsys.readouterr().out
    assert (
        "note: only 3 of 6 images are distinct; equal ones tie, and a tie with the right one counts against it" in shown
    )
    assert "captions are distinct" not in shown
