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
