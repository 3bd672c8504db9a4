"""Averaged weights are scored, exported and loaded on request, and told apart from the trained ones everywhere."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file

from bimodal_cl.models import build_model, load_model
from bimodal_cl.models.weights.state_dict import save_weights
from eval.cli import main
from tests.refusals import read_mistake, refused
from tests.test_eval_commands.conftest import zero_shot

CONFIG = {"data": {"train": "shards"}, "loss": {"name": "clip"}, "train": {"num_steps": 8}, "ema": {"decay": 0.95}}


@pytest.fixture
def averaged(tiny_model):
    """The tiny model with other weights, as an average would have."""
    torch.manual_seed(11)
    other = copy.deepcopy(tiny_model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return other


@pytest.fixture
def run(run_folder, averaged, tmp_path):
    """A run whose newest checkpoint has averaged weights, and whose older one has none."""
    run = shutil.copytree(run_folder, tmp_path / "runs" / "tiny", symlinks=True)
    shutil.rmtree(run / "results", ignore_errors=True)
    save_weights(averaged, run / "checkpoints" / "latest" / "ema.safetensors")
    (run / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    scores = {"retrieval/image_retrieval_recall@5": 0.25, "ema/retrieval/image_retrieval_recall@5": 0.375}
    lines = [{"event": "train", "step": step, "loss": 1.0} for step in (4, 8)]
    lines += [{"event": "evaluate", "step": step, **scores} for step in (4, 8)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_both_weights_load_and_the_file_is_a_name(run, tiny_model, averaged):
    file = run / "checkpoints" / "latest" / "ema.safetensors"
    models = (load_model(run), load_model(run, weights="ema"), load_model(file), build_model(pretrained=str(file)))
    for loaded, expected in zip(models, (tiny_model, averaged, averaged, averaged), strict=True):
        assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in expected.state_dict().items())
    with refused("weights 'emma': no such weights of a checkpoint; did you mean 'ema'"):
        load_model(run, weights="emma")


def test_results_of_both_stand_beside_each_other(run, shards, class_folders, capsys):
    results = {}
    for weights in ("model", "ema"):
        for command, data in (("retrieval", shards), ("zero-shot", class_folders)):
            assert main([command, str(run), "--data", str(data), "--weights", weights]) == 0
        assert (f"{run} (EMA)" in capsys.readouterr().out) == (weights == "ema")
    for path in (run / "results").glob("*.json"):
        results[path.name] = json.loads(path.read_text())
    retrieval, classification = "zeroshot_retrieval_colours_test", "zeroshot_classification_six_colours"
    files = {f"{task}{end}.json" for task in (retrieval, classification) for end in ("", "~ema")}
    assert results.keys() == files
    checkpoint = run / "checkpoints" / "step_00000008"
    for name, result in results.items():
        kind = "ema" if "~ema" in name else "model"
        provenance = result["provenance"]
        assert provenance["weights"] == kind
        hashed = hashlib.sha256((checkpoint / f"{kind}.safetensors").read_bytes()).hexdigest()
        assert provenance["checkpoint_sha256"] == hashed and provenance["step"] == 8
        assert result["pretrained"] == str(checkpoint / "ema.safetensors" if kind == "ema" else checkpoint)
    assert results[f"{retrieval}.json"]["metrics"] != results[f"{retrieval}~ema.json"]["metrics"]

    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    shown = ("colours_test, text → image", "colours_test (EMA), text → image", "six_colours (EMA)", "Retrieval (EMA)")
    assert [text for text in (*shown, "0.95") if text not in page] == []


def test_scores_equal_those_of_the_averaged_model_alone(run, averaged, class_folders, tmp_path):
    averaged.save(tmp_path / "alone")
    alone = zero_shot(tmp_path / "alone", class_folders, tmp_path / "first")
    found = zero_shot(run, class_folders, tmp_path / "second", "--weights", "ema")
    assert found["metrics"] == alone["metrics"] and found["per_class"] == alone["per_class"]


def test_an_export_holds_the_average_and_says_so(run, averaged, shards, tmp_path):
    for weights in ("model", "ema"):
        assert main(["retrieval", str(run), "--data", str(shards), "--weights", weights]) == 0
    assert main(["export", str(run), "--to", str(tmp_path / "out"), "--weights", "ema"]) == 0
    tensors = load_file(tmp_path / "out" / "open_clip_model.safetensors")
    assert torch.equal(tensors["visual.proj"], averaged.state_dict()["visual.proj"])
    assert json.loads((tmp_path / "out" / "export.json").read_text())["weights"] == "ema"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Its weights are the exponential moving average (decay 0.95) of the trained ones over the steps." in card
    assert "colours_test (EMA)" in card and "Results of other checkpoints that are left out: 1." in card
    assert main(["export", str(run), "--to", str(tmp_path / "plain")]) == 0
    assert "moving average" not in (tmp_path / "plain" / "README.md").read_text()


@pytest.mark.parametrize("command", ["retrieval", "zero-shot", "export"])
def test_a_model_without_an_average_is_named(command, run, averaged, shards, class_folders, tmp_path, capsys):
    data = {"retrieval": shards, "zero-shot": class_folders}
    rest = ["--to", tmp_path / "out"] if command == "export" else ["--data", data[command]]
    older = run / "checkpoints" / "step_00000004"
    error = read_mistake(capsys, main, command, older, "--weights", "ema", *rest)
    assert error.endswith(f"'ema.safetensors' is missing in {older}; a run keeps them with ema.decay")
    assert main(["export", str(run), "--to", str(tmp_path / "clip")]) == 0
    capsys.readouterr()
    error = read_mistake(capsys, main, command, tmp_path / "clip", "--weights", "ema", *rest)
    assert error == f"error: MODEL '{tmp_path / 'clip'}': only the checkpoints of a run have averaged weights (ema)"
    assert "did you mean 'ema'?" in read_mistake(capsys, main, command, run, "--weights", "emma", *rest)


def test_damaged_averages_are_named(run, shards, capsys):
    path = run / "checkpoints" / "step_00000008" / "ema.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    error = read_mistake(capsys, main, "retrieval", run, "--data", shards, "--weights", "ema")
    assert f"{path}: damaged or not a safetensors file" in error
