"""Pairs with faults are left out and named by shard and key, on the terminal and in the results."""

from __future__ import annotations

import pytest

from eval.cli import main
from tests.refusals import read_mistake
from tests.test_data.tiny_shards import write_tar
from tests.test_eval_commands.conftest import COLOURS, as_png, draw, retrieve


def write_pairs(folder, change):
    """Write six images in CLIP_benchmark's layout; ``change`` returns the members of one sample in place of its own."""
    members = []
    for row, colour in enumerate(COLOURS):
        own = [(f"s{row}.png", as_png(draw(colour, row))), (f"s{row}.txt", f"{colour} tile".encode())]
        members += change(own) if row == 3 else own
    write_tar(folder / "test" / "0.tar", members)
    (folder / "test" / "nshards.txt").write_text("1\n")
    return folder


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda own: own[:1], "key s3: no_caption"),
        (lambda own: [own[0], (own[1][0], b" \n")], "key s3: empty_caption"),
        (lambda own: [(own[0][0], own[0][1][:60]), own[1]], "key s3: undecodable"),
        (lambda own: [(own[0][0], b""), own[1]], "key s3: zero_bytes"),
    ],
)
def test_a_faulty_sample_is_left_out_and_named(change, fault, run_folder, tmp_path, caplog):
    result = retrieve(run_folder, write_pairs(tmp_path / "wds_tiles", change), tmp_path / "out")
    assert result["provenance"]["counts"] == {"num_images": 5, "num_texts": 5, "num_skipped": 1}
    (named,) = result["provenance"]["skipped"]
    assert "shard 0.tar" in named and fault in named
    assert fault in caplog.text


def test_images_without_any_caption_are_refused(run_folder, tmp_path, capsys):
    folder = tmp_path / "wds_tiles"
    write_tar(folder / "test" / "0.tar", [(f"s{row}.png", as_png(draw(name, 1))) for row, name in enumerate(COLOURS)])
    (folder / "test" / "nshards.txt").write_text("1\n")
    assert "its tars hold no captions" in read_mistake(capsys, main, "retrieval", run_folder, "--data", folder)
