"""``bimodal-eval retrieval`` end to end, against scores that this file computes from the encoder's features."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

from bimodal_cl.data import Manifest
from bimodal_cl.data.pairs import read_pairs
from eval.cli import main
from eval.retrieval.examples import choose_spread
from tests.refusals import read_mistake
from tests.test_eval_commands.conftest import retrieve


def scores_by_hand(model, folder):
    """Return the ranks of each caption's image and of each image's best caption, by plain sorting."""
    pairs = read_pairs(folder, range(Manifest.load(folder).num_images))
    with torch.no_grad():
        images = torch.cat([model.encode_image(model.preprocess(pair.image)[None]) for pair in pairs.values()])
        texts = torch.cat([model.encode_text([caption]) for pair in pairs.values() for caption in pair.captions])
    owners = [image for image, pair in pairs.items() for _ in pair.captions]
    sims = (texts.double() @ images.double().T).numpy()
    image_ranks = [1 + sum(sims[text] > sims[text, owner]) for text, owner in enumerate(owners)]
    text_ranks = []
    for image in pairs:
        order = sorted(range(len(owners)), key=lambda text: -sims[text, image])
        text_ranks.append(1 + next(place for place, text in enumerate(order) if owners[text] == image))
    return image_ranks, text_ranks, owners, sims


def test_scores_examples_and_provenance(run_folder, shards, tiny_model, tmp_path, capsys):
    result = retrieve(run_folder, shards, tmp_path / "out", "--batch-size", 4, "--examples", 6)
    assert (tmp_path / "out" / "zeroshot_retrieval_colours_test.json").is_file()
    image_ranks, text_ranks, owners, sims = scores_by_hand(tiny_model, shards)
    metrics = result["metrics"]
    for k in (1, 5, 10):
        assert metrics[f"image_retrieval_recall@{k}"] == pytest.approx(np.mean(np.array(image_ranks) <= k))
        assert metrics[f"text_retrieval_recall@{k}"] == pytest.approx(np.mean(np.array(text_ranks) <= k))
    assert metrics["image_retrieval_median_rank"] == np.median(image_ranks)
    assert metrics["text_retrieval_median_rank"] == np.median(text_ranks)
    assert metrics["image_retrieval_mean_rank"] == pytest.approx(np.mean(image_ranks))
    assert metrics["text_retrieval_mean_rank"] == pytest.approx(np.mean(text_ranks))
    assert metrics["image_retrieval_mAP@R"] == metrics["image_retrieval_recall@1"]
    assert metrics["rsum"] == pytest.approx(sum(metrics[name] for name in metrics if "recall@" in name))
    assert (result["task"], result["dataset"], result["model"]) == ("zeroshot_retrieval", "colours_test", "tiny")
    provenance = result["provenance"]
    weights = run_folder / "checkpoints" / "step_00000008" / "model.safetensors"
    assert provenance["checkpoint"] == str(weights.parent)
    assert provenance["checkpoint_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert provenance["step"] == 8
    assert provenance["counts"] == {"num_images": 11, "num_texts": len(owners), "num_skipped": 0}
    assert provenance["data"] == str(shards)
    assert {"bimodal_cl", "torch", "open_clip_torch"} <= set(provenance["versions"])
    assert 0 < len(result["examples"]) <= 6
    for example in result["examples"]:
        assert example["rank"] == image_ranks[example["text_id"]]
        assert example["image_id"] == owners[example["text_id"]]
        assert example["top"] == np.argsort(-sims[example["text_id"]])[:5].tolist()
    assert len({example["image_id"] for example in result["examples"]}) == len(result["examples"])
    assert_nearest_captions(result["caption_examples"], text_ranks, owners, sims)
    shown = capsys.readouterr().out
    assert "text -> image" in shown
    assert "chance" in shown
    assert f"{100 * metrics['image_retrieval_recall@5']:.1f} %" in shown
    assert "9.1 %" in shown  # chance of R@1 among 11 images


def assert_nearest_captions(examples, text_ranks, owners, sims):
    assert 0 < len(examples) <= 6
    for example in examples:
        image = example["image_id"]
        assert example["rank"] == text_ranks[image]
        assert example["text_ids"] == [text for text, owner in enumerate(owners) if owner == image]
        nearest = np.argsort(-sims[:, image]).tolist()
        assert example["top"] == nearest[:5]
        found = [text in example["text_ids"] for text in nearest[: len(example["text_ids"])]]
        precision = sum(sum(found[: i + 1]) / (i + 1) for i in range(len(found)) if found[i]) / len(found)
        assert example["average_precision"] == pytest.approx(precision)
        assert all("number" in caption for caption in example["captions"] + example["top_captions"])
        assert len(example["top_captions"]) == 5


def test_results_go_beside_the_run_and_repeat_exactly(run_folder, shards):
    path = run_folder / "results" / "zeroshot_retrieval_colour_words.json"
    contents = []
    for _ in range(2):
        assert main(["retrieval", str(run_folder), "--data", str(shards), "--name", "colour words"]) == 0
        contents.append(path.read_bytes())
    assert contents[0] == contents[1] and json.loads(contents[0])["dataset"] == "colour words"
    assert [each.name for each in path.parent.iterdir() if each.name.startswith(".")] == []


def test_workers_and_batch_size_change_nothing(run_folder, shards, tmp_path):
    first = retrieve(run_folder, shards, tmp_path / "first", "--batch-size", 11)
    second = retrieve(run_folder, shards, tmp_path / "second", "--batch-size", 3, "--workers", 2)
    assert first["metrics"] == second["metrics"]


def test_several_models_get_a_folder_each(run_folder, shards, tmp_path, capsys):
    older = run_folder / "checkpoints" / "step_00000004"
    assert main(["retrieval", str(run_folder), str(older), "--data", str(shards), "--to", str(tmp_path / "out")]) == 0
    results = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*/*.json")]
    assert sorted(result["provenance"]["step"] for result in results) == [4, 8]
    assert capsys.readouterr().out.count("chance") == 2


def test_an_image_that_cannot_be_read_is_counted_and_named(run_folder, shards, tmp_path):
    path = shards / "00001.tar"
    content = bytearray(path.read_bytes())
    start = content.rfind(b"\x89PNG")
    content[start + 16 : start + 200] = b"\0" * 184
    path.write_bytes(content)
    provenance = retrieve(run_folder, shards, tmp_path / "out")["provenance"]
    assert (provenance["counts"]["num_images"], provenance["counts"]["num_skipped"]) == (10, 1)
    assert "00001.tar" in provenance["skipped"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda args, run: [args[0], str(run.with_name("tinny")), *args[2:]], "did you mean 'tiny'?"),
        (lambda args, run: [args[0], "ViT-B-23/openai", *args[2:]], "ViT-B-32"),
        (lambda args, run: [*args, "--device", "cup"], "--device cup"),
        (lambda args, run: [*args, "--to", "{file}/x"], "cannot create the folder"),
    ],
)
def test_mistakes_are_one_line_and_status_2(change, message, run_folder, shards, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    arguments = change(["retrieval", str(run_folder), "--data", str(shards)], run_folder)
    status = main([word.replace("{file}", str(tmp_path / "file")) for word in arguments])
    error = capsys.readouterr().err
    assert status == 2, error
    assert message in error.splitlines()[-1]
    assert error.count("error:") == 1


def test_data_without_a_manifest(run_folder, shards, capsys):
    (shards / "manifest.json").unlink()
    assert "manifest.json" in read_mistake(capsys, main, "retrieval", run_folder, "--data", shards)


def test_the_choice_of_examples_holds_successes_and_failures_spread_over_the_data():
    ranks = np.array([1, 1, 50, 1, 3, 1, 1, 20, 1, 1, 7, 1, 90, 1, 1, 1])
    owners = np.arange(16)
    chosen = choose_spread(ranks, owners, 6)
    assert ranks[chosen].tolist() == [1, 1, 3, 7, 50, 90]
    assert chosen == choose_spread(ranks, owners, 6)
    assert {0, 15} <= set(chosen)  # the successes reach from one end of the data to the other
    assert len(choose_spread(ranks, owners, 100)) == 16
    assert choose_spread(ranks, owners, 0) == []
    assert len(choose_spread(ranks, owners // 4, 16)) == 4  # one caption per image


def test_image_of_any_shape_fits_the_model(run_folder, tiny_model):
    assert tiny_model.preprocess(Image.new("L", (50, 7))).shape == (3, 16, 16)
