"""Byte order marks, UTF-16 and Windows line ends are read in every kind of text file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from bimodal_cl.config.yaml_files import load_config
from bimodal_cl.data import Manifest
from bimodal_cl.data.shards.index import index_shard, split_captions
from bimodal_cl.files.json_files import read_mapping
from bimodal_cl.files.text_files import NotText, read_text
from bimodal_cl.run_folder import read_state
from data_prep.cli import main as prep
from eval.cli import main as evaluate
from tests.refusals import refused
from tests.test_data.tiny_shards import encode_image, write_tar

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32")


@pytest.fixture(params=ENCODINGS)
def written(request):
    def write(path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.replace("\n", "\r\n").encode(request.param))
        return path

    return write


def test_text_is_the_same_in_every_encoding(written, tmp_path):
    assert read_text(written(tmp_path / "a.txt", "ein Café\nzwei\n")) == "ein Café\nzwei\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"one\ncaf\xe9\n", "byte 0xe9 on line 2 is not UTF-8; save it as UTF-8"),
        (b"\xff\xfea\x00\x00\xd8", "is not UTF-16-LE"),
        ("a\nb".encode("utf-16-le"), "a NUL on line 1: not text, or UTF-16 without a byte order mark"),
    ],
)
def test_files_that_are_not_text_are_refused_in_one_line(content, message, tmp_path):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(NotText, match=message) as caught:
        read_text(tmp_path / "a.txt")
    assert "\n" not in str(caught.value)


def test_json_and_yaml(written, tmp_path):
    assert read_state(written(tmp_path / "state.json", '{"step": 4}\n').parent) == {"step": 4}
    assert read_mapping(written(tmp_path / "open_clip_config.json", '{"model_cfg": {}}')) == {"model_cfg": {}}
    manifest = {"version": 1, "captions": "lines", "shards": [], "num_images": 0, "num_texts": 0}
    written(tmp_path / "shards" / "manifest.json", json.dumps(manifest))
    assert Manifest.load(tmp_path / "shards").num_images == 0
    recipe = Path(__file__).parents[2] / "configs" / "train" / "flickr8k_clip.yaml"
    assert load_config(written(tmp_path / "run.yaml", recipe.read_text())) == load_config(recipe)


def test_arguments_of_an_evaluation(written, tmp_path, capsys):
    config = written(tmp_path / "eval.yaml", "data: bilder\nbatch_size: 3\n")
    assert evaluate(["zero-shot", "m", "--config", str(config), "--print-config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["batch_size"] == 3
    (tmp_path / "eval.yaml").write_bytes(b"data: caf\xe9\n")
    assert evaluate(["zero-shot", "m", "--config", str(config), "--print-config"]) == 2
    assert "byte 0xe9 on line 1 is not UTF-8" in capsys.readouterr().err


def test_captions_and_tables_of_sources(written, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(encode_image(1))
    written(tmp_path / "images" / "a.txt", "ein Hund\neine Katze\n")
    assert prep(["write", "folder", "--images", str(tmp_path / "images"), "--to", str(tmp_path / "by_folder")]) == 0
    assert captions(tmp_path / "by_folder") == ["ein Hund", "eine Katze"]
    record = {"filename": "a.png", "split": "test", "sentences": [{"raw": "ein Hund"}]}
    table = written(tmp_path / "dataset.json", json.dumps({"images": [record]}))
    flags = ["--json", str(table), "--images", str(tmp_path / "images"), "--to", str(tmp_path / "by_table")]
    assert prep(["write", "karpathy", *flags]) == 0
    assert captions(tmp_path / "by_table" / "test") == ["ein Hund"]


def captions(folder: Path) -> list[str]:
    (tar,) = folder.glob("*.tar")
    index = index_shard(tar)
    start, size = int(index.text_offset[0]), int(index.text_size[0])
    return split_captions(tar.read_bytes()[start : start + size], "lines")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_captions_in_shards_of_others(encoding, tmp_path):
    text = "ein Hund\r\neine Katze\r\n".encode(encoding)
    assert split_captions(text, "lines") == ["ein Hund", "eine Katze"]
    write_tar(tmp_path / "0.tar", [("a.png", encode_image(1)), ("a.txt", text)])
    assert index_shard(tmp_path / "0.tar").caption_count.tolist() == [2]


def test_a_damaged_manifest_names_the_byte(tmp_path):
    (tmp_path / "manifest.json").write_bytes(b'{"name": "caf\xe9"}')
    with refused(r"manifest\.json: cannot be read: byte 0xe9 on line 1 is not UTF-8"):
        Manifest.load(tmp_path)
