"""Captions of any script reach the tokenizer as they were written, from JSON, tables and CLIP_benchmark's layout."""

from __future__ import annotations

import json

import pytest

from bimodal_cl.models import DualEncoder
from data_prep.cli import main as prepare
from eval.cli import main
from tests.test_data.tiny_shards import write_tar
from tests.test_eval_commands.conftest import COLOURS, as_png, draw, retrieve

CAPTIONS = {
    "de": ["Ein Mädchen in Weiß läuft über die Straße.", "Zwei größere Hunde, “müde”", "ÄÖÜ äöü ß", "x", "Ünï", "Ja?"],
    "zh": ["一个穿红色外套的女孩在雪地里玩。", "两只狗，在草地上奔跑", "你好 世界", "山", "北京　上海", "猫"],
}


@pytest.fixture
def seen(monkeypatch):
    """Return all texts that a tokenizer gets from now on, without those that try a model's context length."""
    texts: list[str] = []
    tokenize = DualEncoder.tokenize

    def note(self, given):
        texts.extend(text for text in given if not text.startswith("a a "))
        return tokenize(self, given)

    monkeypatch.setattr(DualEncoder, "tokenize", note)
    return texts


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, colour in enumerate(COLOURS):
        draw(colour, number).save(folder / f"{number}.png")
    return folder


def write_karpathy(captions, pictures, folder, language):
    records = [
        {"filename": f"{row}.png", "split": "test", "sentences": [{"raw": each}]} for row, each in enumerate(captions)
    ]
    # One file with the letters themselves, one with escapes, as both are JSON.
    content = json.dumps({"images": records}, ensure_ascii=language == "zh")
    (folder / "dataset.json").write_text(content, encoding="utf-8")
    return ["karpathy", "--json", folder / "dataset.json", "--images", pictures]


def write_table(captions, pictures, folder, language):
    """Write names and captions side by side, as ``paste`` joins the files of XTD."""
    lines = [f"{row}.png\t{caption}" for row, caption in enumerate(captions)]
    (folder / "pairs.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    flags = ["--columns", "image,caption", "--quoting", "none", "--root", pictures]
    return ["csv", "--csv", folder / "pairs.tsv", *flags]


@pytest.mark.parametrize("write", [write_karpathy, write_table])
@pytest.mark.parametrize("language", ["de", "zh"])
def test_captions_reach_the_tokenizer_unchanged(write, language, run_folder, pictures, tmp_path, seen):
    source = write(CAPTIONS[language], pictures, tmp_path, language)
    assert prepare([str(word) for word in ["write", *source, "--to", tmp_path / "shards"]]) == 0
    result = retrieve(run_folder, tmp_path / "shards", tmp_path / "out", "--language", language)
    assert sorted(seen) == sorted(CAPTIONS[language])
    assert result["language"] == language
    assert {each["caption"] for each in result["examples"]} == set(CAPTIONS[language])
    assert next(path.name for path in (tmp_path / "out").glob("*.json")).endswith(f"~{language}.json")


def test_two_languages_of_one_data_set_do_not_overwrite_each_other(run_folder, tmp_path, seen):
    for language, captions in CAPTIONS.items():
        members = []
        for row, (colour, caption) in enumerate(zip(COLOURS, captions, strict=True)):
            members += [(f"s{row}.png", as_png(draw(colour, row))), (f"s{row}.txt", caption.encode())]
        folder = tmp_path / language / "wds_xtd" / "test"
        write_tar(folder / "0.tar", members)
        (folder / "nshards.txt").write_text("1\n")
        flags = ["--data", folder.parent, "--language", language, "--to", tmp_path / "out"]
        assert main([str(word) for word in ["retrieval", run_folder, *flags]]) == 0
    assert sorted(seen) == sorted(CAPTIONS["de"] + CAPTIONS["zh"])
    results = {path.name: json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json")}
    assert {name: result["language"] for name, result in results.items()} == {
        f"zeroshot_retrieval_xtd_test~{language}.json": language for language in CAPTIONS
    }
