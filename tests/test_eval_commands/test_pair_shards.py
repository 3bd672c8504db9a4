"""Which folders ``bimodal-eval retrieval`` takes: shards, a folder of their splits, CLIP_benchmark's layout."""

from __future__ import annotations

import json

import pytest
from test_eval_commands.conftest import COLOURS, as_png, draw, write_tar

from eval.cli import main


def retrieve(run_folder, data, to, *flags):
    assert main(["retrieval", str(run_folder), "--data", str(data), "--to", str(to), *flags]) == 0
    (result,) = [json.loads(path.read_text()) for path in to.glob("*.json")]
    return result


@pytest.fixture
def benchmark_layout(tmp_path):
    """Two tars of four and two images with two captions each, and no manifest."""
    folder = tmp_path / "wds_colours"
    (folder / "test").mkdir(parents=True)
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
        assert main(["retrieval", str(run_folder), "--data", str(data), "--split", "tset"]) == 2
        assert f"--split tset: not in {data}; did you mean 'test'?" in capsys.readouterr().err


def test_a_tar_that_is_counted_and_missing_is_named(run_folder, benchmark_layout, capsys):
    (benchmark_layout / "test" / "1.tar").unlink()
    assert main(["retrieval", str(run_folder), "--data", str(benchmark_layout)]) == 2
    assert "1.tar: missing, though nshards.txt says 2" in capsys.readouterr().err


def test_labelled_images_are_sent_to_zero_shot(run_folder, wds_folder, capsys):
    assert main(["retrieval", str(run_folder), "--data", str(wds_folder)]) == 2
    assert "hold no captions; images with labels are scored by `bimodal-eval zero-shot`" in capsys.readouterr().err


def test_images_that_come_more_than_once_are_remarked(run_folder, tmp_path, capsys):
    """As COCO's do through img2dataset, with a caption a sample: no model can choose among the copies."""
    folder = tmp_path / "test"
    folder.mkdir()
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
