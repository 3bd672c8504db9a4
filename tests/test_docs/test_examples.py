"""The programs of docs/examples run, and so do the README's lines about the losses alone."""

import csv
import json
import math
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from tests.test_docs.pages import ROOT, code_blocks, read

EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture(scope="module")
def run_example(tmp_path_factory):
    """Run a program as ``python docs/examples/NAME ARGUMENTS`` does, from the top level."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)

        def run(name: str, *arguments: str | Path) -> None:
            patch.setattr(sys, "argv", [name, *map(str, arguments)])
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")

        yield run


@pytest.fixture(scope="module")
def first_run(tmp_path_factory, run_example):
    folder = tmp_path_factory.mktemp("first_run")
    run_example("first_run.py", folder)
    return folder


def test_the_first_run_writes_trains_and_evaluates(first_run):
    run = first_run / "run"
    assert (run / "checkpoints" / "step_00000005").is_dir()
    assert [path.name for path in (run / "results").glob("*.json")] == ["zeroshot_retrieval_retrieval.json"]
    assert (run / "report.html").stat().st_size > 10_000


def test_a_batch_of_the_stream_is_printed(first_run, run_example, capsys):
    run_example("read_stream.py", first_run / "data" / "train")
    first, shape, *rows = capsys.readouterr().out.splitlines()
    assert first.startswith("384 images and ")
    assert shape == "torch.Size([8, 3, 64, 64]) torch.uint8"
    assert len(rows) == 8


def test_the_loaded_model_compares_an_image_with_captions(first_run, run_example, tmp_path, capsys):
    Image.new("RGB", (80, 60), "red").save(tmp_path / "red.png")
    run_example("encode.py", first_run / "run", tmp_path / "red.png", "a large red circle", "a small blue star")
    similarities = [float(line.split()[0]) for line in capsys.readouterr().out.splitlines()]
    assert len(similarities) == 2
    assert similarities == sorted(similarities, reverse=True)


def test_the_temperatures_of_a_run_are_printed(first_run, run_example, capsys):
    run_example("temperatures.py", first_run / "run")
    taus = [float(line.split()[0]) for line in capsys.readouterr().out.splitlines()[-6:]]
    assert taus == sorted(taus)
    assert all(0.01 <= tau <= 1 for tau in taus)


def test_a_run_is_trained_continued_and_loaded_from_python(first_run, run_example, tmp_path, capsys):
    run_example("train.py", first_run / "data" / "train", tmp_path / "run")
    trained, refused, continued, cosine = capsys.readouterr().out.splitlines()
    assert trained == f"trained: {tmp_path / 'run'}"
    assert refused.endswith("already holds a run; continue it with --resume latest, or choose another")
    assert continued == f"continued: {tmp_path / 'run'}"
    assert -1 <= float(cosine.removeprefix("cosine of the captions: ")) <= 1


def test_the_readmes_lines_train_from_python(first_run, tmp_path, monkeypatch):
    """As they are written, but for the names of the files and the length."""
    from bimodal_cl.config import yaml_files

    load = yaml_files.load_config
    given = {"data.train": str(first_run / "data" / "train"), "data.val": None, "data.num_workers": 0}
    given |= {"train.num_epochs": None, "train.num_steps": 1, "train.evaluate_every": None, "output": str(tmp_path)}
    asked = []

    def load_small(path, flags):
        asked.append(load(path, flags).output)  # the lines' own keys are valid
        return load("configs/train/quickstart.yaml", given)

    monkeypatch.setattr(yaml_files, "load_config", load_small)
    (code,) = [code for code in code_blocks(ROOT / "README.md", "python") if "Trainer" in code]
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert asked == ["runs/rho3"]
    assert names["run"] == tmp_path and (tmp_path / "checkpoints" / "latest").is_dir()


def test_variants_equal_images_and_equal_names_stay_on_one_side(run_example, tmp_path):
    images = tmp_path / "color"
    images.mkdir()
    emoji = []
    for number in range(40):
        for tone in ("", "1"):
            code = f"{number:04X}" + (f"-{tone}" if tone else "")
            colour = (number // 2 * 9, 5 * len(tone), 0)  # two emoji share their image
            Image.new("RGB", (8, 8), colour).save(images / f"{code}.png")
            name = f"thing {number % 30}" + (": light skin tone" if tone else "")
            base = f"{number:04X}" if tone else ""
            emoji.append({"hexcode": code, "annotation": name, "skintone": tone, "skintone_base_hexcode": base})
    (tmp_path / "openmoji.json").write_text(json.dumps(emoji))
    run_example("openmoji_tables.py", tmp_path / "openmoji.json", images, tmp_path / "tables")
    sides = {}
    for split in ("train", "val", "test"):
        for row in csv.DictReader((tmp_path / "tables" / f"{split}.csv").open()):
            code = Path(row["image"]).stem
            number, tone = int(code[:4], 16), code[5:]
            assert split == "train" or not tone
            for key in (f"image {number // 2}", f"name {row['caption']}", f"family {number}"):
                sides.setdefault(key, set()).add(split)
    assert {len(each) for each in sides.values()} == {1}
    assert {split for each in sides.values() for split in each} == {"train", "val", "test"}


def test_methods_are_compared_by_how_frequent_a_concept_is(run_example, tmp_path, capsys):
    """Ten test images of a frequent concept and ten of a rare one, two captions each."""
    concepts = ["dog"] * 10 + ["harp"] * 10
    for name, count in (("train", {"dog": 300, "harp": 2}), ("test", {"dog": 10, "harp": 10})):
        rows = [(number, concept, count[concept]) for number, concept in enumerate(concepts)]
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("image_id", "concept", "concept_count"), *rows])
    table = [["method", "batch", "chosen", "metric", "seeds", "runs"]]
    frequent = np.arange(20) < 10
    for method in ("clip", "isogclr"):
        for seed in (1, 2):
            folder = tmp_path / f"{method}_s{seed}" / "results"
            folder.mkdir(parents=True)
            better = frequent & (method == "isogclr") & (np.arange(20) < 2 * seed)  # first instead of fifth
            ranks = np.where(better, 1, 5)
            arrays = {"text_ranks": ranks, "image_ranks": np.full(40, 11), "image_of_text": np.arange(40) // 2}
            np.savez(folder / "zeroshot_retrieval_test.outcomes.npz", **arrays)
        table.append([method, "64", "{}", "rsum", "1 2", f"{method}_s1 {method}_s2"])
        table.append([method, "32", "{}", "rsum", "1 2", "missing_s1 missing_s2"])
    with (tmp_path / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows(table)
    run_example("recall_by_concept.py", tmp_path, tmp_path / "train.csv", tmp_path / "test.csv", "64")
    head, gain, *others = capsys.readouterr().out.splitlines()
    assert head == "at least 250 training images: 10 test images, clip 200.0"
    half = 12.706205 * 20 / math.sqrt(2) / math.sqrt(2)  # gains of 20 and 40 points, Student's t with one degree
    assert gain == f"  isogclr - clip: +30.0 [{30 - half:+.1f}, {30 + half:+.1f}]"
    assert others[-1] == "  isogclr - clip: +0.0 [+0.0, +0.0]"
    with pytest.raises(SystemExit, match="no runs at the setting ''"):  # of two batch sizes
        run_example("recall_by_concept.py", tmp_path, tmp_path / "train.csv", tmp_path / "test.csv")


def test_a_plain_training_loop_uses_a_loss(run_example, capsys):
    run_example("plain_loop.py")
    assert capsys.readouterr().out.count("mean tau of images") == 4


def test_every_example_is_run_here_and_shown_on_a_page():
    examples = {path.name for path in EXAMPLES.iterdir() if path.suffix == ".py"}
    pages = "".join(read(page) for page in (ROOT / "docs").glob("*.md"))
    assert [name for name in sorted(examples) if f"\n[docs/examples/{name}](examples/{name})\n" not in pages] == []
    assert [name for name in sorted(examples) if f'"{name}"' not in Path(__file__).read_text(encoding="utf-8")] == []


@pytest.mark.parametrize("page", ["README.md", "docs/losses.md"])
def test_the_losses_alone_run_as_they_are_written(page, capsys):
    image_tower, text_tower = torch.nn.Linear(6, 8), torch.nn.Linear(5, 8)
    ids = torch.arange(12)
    given = {
        "images": range(12),
        "captions": range(12),
        "loader": [(torch.randn(12, 6), torch.randn(12, 5), ids, ids)] * 2,
        "normalize": normalize,
        "image_tower": image_tower,
        "text_tower": text_tower,
        "optimizer": torch.optim.SGD([*image_tower.parameters(), *text_tower.parameters()], lr=0.1),
    }
    before = image_tower.weight.detach().clone()
    (code,) = [code for code in code_blocks(ROOT / page, "python") if "build_loss" in code]
    with pytest.warns(UserWarning, match="rho=4"):  # 11 negatives: a batch of the README's loader has more
        exec(compile(code, page, "exec"), given)
    assert not torch.equal(image_tower.weight, before)
    assert "tensor" in capsys.readouterr().out
