"""``bimodal-eval export``: what it writes and prints, what it refuses, and that nothing is half-written."""

from __future__ import annotations

import errno
import json
import shutil

import pytest
import torch
import yaml

from bimodal_cl.models import load_model
from eval.cli import main
from tests.refusals import read_mistake

CONFIG = {
    "data": {"train": "/secret/home/shards/flickr8k/train"},
    "model": {"embed_dim": 16},
    "loss": {"name": "isogclr", "rho": 6.5, "tau_init": 0.04},
    "optim": {"learning_rate": 0.0005, "warmup_steps": 50},
    "train": {"num_epochs": 13, "global_batch_size": 64},
}
SCORES = {"text_retrieval_recall@5": 0.812, "image_retrieval_recall@5": 0.734}


@pytest.fixture
def trained(make, tmp_path):
    """A run with one checkpoint and one result."""
    run = tmp_path / "runs" / "tiny"
    checkpoint = run / "checkpoints" / "step_00000008"
    make("vit").save(checkpoint)
    (checkpoint / "state.json").write_text(json.dumps({"step": 8}))
    (run / "checkpoints" / "latest").symlink_to("step_00000008")
    (run / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (run / "metrics.jsonl").write_text(json.dumps({"event": "train", "step": 8}) + "\n")
    (run / "results").mkdir()
    result = {"dataset": "flickr8k", "task": "zeroshot_retrieval", "metrics": SCORES}
    (run / "results" / "zeroshot_retrieval_flickr8k.json").write_text(json.dumps(result))
    return run


def export(run, folder, *flags):
    return main(["export", str(run), "--to", str(folder), *flags])


def listing(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_run_becomes_a_folder_with_a_card(trained, tmp_path, capsys):
    folder = tmp_path / "out" / "tiny-clip"
    assert export(trained, folder, "--name", "Tiny CLIP") == 0
    printed = capsys.readouterr().out
    assert f"local-dir:{folder}" in printed and "CLIPModel" in printed and "ONNX" not in printed
    assert {"README.md", "export.json", "open_clip_config.json", "open_clip_model.safetensors"} <= set(listing(folder))
    assert [path.name for path in folder.parent.iterdir()] == ["tiny-clip"]
    modes = {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
    (tmp_path / "new").touch()
    assert modes == {(tmp_path / "new").stat().st_mode & 0o777}
    record = json.loads((folder / "export.json").read_text())
    assert record["step"] == 8 and record["formats"]["huggingface"] == "CLIPModel"
    preprocess = json.loads((folder / "open_clip_config.json").read_text())["preprocess_cfg"]
    assert preprocess["size"] == [32, 32] and preprocess["interpolation"] == "bicubic"

    _, metadata, body = (folder / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(metadata) == {
        "license": "other",
        "library_name": "open_clip",
        "pipeline_tag": "zero-shot-image-classification",
        "tags": ["clip", "bimodal_cl"],
    }
    assert "# Tiny CLIP" in body and "for 8 optimizer steps" in body
    assert "rho: 6.5" in body and "learning_rate: 0.0005" in body and "global_batch_size: 64" in body
    assert "`flickr8k/train`" in body and "/secret" not in body
    assert "81.2 %" in body and "73.4 %" in body and "| temperature | 0.03877 " in body
    assert 'open_clip.create_model_and_transforms("local-dir:tiny-clip")' in body and "None is stated yet" in body


def test_the_cards_code_runs(trained, tmp_path, monkeypatch):
    assert export(trained / "checkpoints" / "latest", tmp_path / "tiny-clip") == 0
    card = (tmp_path / "tiny-clip" / "README.md").read_text()
    assert "rho: 6.5" in card  # the run was found from its checkpoint
    blocks = [part.split("```", 1)[0] for part in card.split("```python\n")[1:]]
    assert len(blocks) == 4
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_scores_of_other_checkpoints_are_left_out(trained, tmp_path):
    path = trained / "results" / "zeroshot_retrieval_flickr8k.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps({**result, "provenance": {"checkpoint_sha256": "0" * 64}}))
    assert export(trained, tmp_path / "out") == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "81.2 %" not in card and "Results of other checkpoints that are left out: 1." in card
    assert "None were computed for these weights" in card


def test_a_link_to_a_folder_is_kept(trained, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    assert export(trained, tmp_path / "link") == 0
    assert (tmp_path / "link").is_symlink() and (tmp_path / "disk" / "export.json").is_file()


def test_a_mount_point_is_named(trained, tmp_path, monkeypatch, capsys):
    def busy(path, target):
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr("pathlib.Path.rename", busy)
    error = read_mistake(capsys, main, "export", trained, "--to", tmp_path / "out")
    assert error.endswith("is a mount point; name a new folder in it")


def test_a_licence_and_a_model_that_is_no_run(make, tmp_path):
    make("vit").save(tmp_path / "saved")
    assert export(tmp_path / "saved", tmp_path / "out", "--license", "mit") == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "license: mit" in card and "## Licence" not in card and "## Loss" not in card


def test_existing_folders(trained, tmp_path, capsys):
    target = tmp_path / "out"
    target.mkdir()
    assert export(trained, target) == 0
    before = listing(target)
    assert read_mistake(capsys, main, "export", trained, "--to", target).endswith(
        f"--to {target}: the folder holds an export; give --overwrite to replace it"
    )
    (target / "left.txt").write_text("of the earlier export")
    assert export(trained, target, "--overwrite") == 0
    assert listing(target) == before
    for folder in (trained, tmp_path):
        error = read_mistake(capsys, main, "export", trained, "--to", folder, "--overwrite")
        assert "holds other files than an export" in error
    (tmp_path / "file").write_text("x")
    assert "is not a folder" in read_mistake(capsys, main, "export", trained, "--to", tmp_path / "file")
    assert "cannot be written" in read_mistake(capsys, main, "export", trained, "--to", tmp_path / "file" / "x")


@pytest.mark.parametrize("existing", [False, True])
def test_a_full_disk_leaves_nothing_or_the_earlier_export(existing, trained, tmp_path, monkeypatch, capsys):
    target = tmp_path / "out"
    if existing:
        assert export(trained, target) == 0
    before = listing(tmp_path)

    def full(tensors, path):
        path.write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:664] . PytorchStreamWriter failed writing file data/3")

    monkeypatch.setattr(torch, "save", full)
    capsys.readouterr()
    assert export(trained, target, "--overwrite") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"{target} could not be written" in error
    assert listing(tmp_path) == before
    if existing:
        assert load_model(target).dim == 16


def test_a_folder_that_a_killed_command_left_is_replaced(trained, tmp_path):
    (tmp_path / ".out.partial" / "huggingface").mkdir(parents=True)
    assert export(trained, tmp_path / "out") == 0
    assert not (tmp_path / ".out.partial").exists()


def test_a_missing_package_is_named_before_the_model_is_loaded(tmp_path, monkeypatch, capsys):
    find = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxruntime" else find(name))
    error = read_mistake(capsys, main, "export", "no/such/run", "--to", tmp_path / "out", "--onnx")
    assert error == "error: --onnx needs the package onnxruntime: pip install 'bimodal_cl[onnx]'"


def test_onnx_files_are_listed(trained, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert export(trained, tmp_path / "out", "--onnx") == 0
    printed = capsys.readouterr().out
    assert str(tmp_path / "out" / "image.onnx") in printed and "onnxruntime" in (tmp_path / "out/README.md").read_text()
    assert {"image.onnx", "text.onnx"} <= set(listing(tmp_path / "out"))


def test_an_unknown_run_and_help(tmp_path, capsys):
    assert "no/such/run" in read_mistake(capsys, main, "export", "no/such/run", "--to", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert "required: --to" in read_mistake(capsys, main, "export", "runs/x")
    assert "no effect without --push-to-hub" in read_mistake(
        capsys, main, "export", "runs/x", "--to", tmp_path / "x", "--private"
    )


@pytest.mark.parametrize("on_hub", [False, True])
def test_the_cards_code_runs_on_another_machine_with_a_hugging_face_text_tower(make, tmp_path, monkeypatch, on_hub):
    import open_clip

    model = make("timm_bert")
    if on_hub:  # a name whose configuration is in no cache
        model.architecture.text["hf_model_name"] = "nobody/no-such-bert"
    model.save(tmp_path / "saved")
    assert export(tmp_path / "saved", tmp_path / "first" / "tiny-clip") == 0
    shutil.rmtree(tmp_path / "sources")
    (tmp_path / "second").mkdir()
    (tmp_path / "first" / "tiny-clip").rename(tmp_path / "second" / "tiny-clip")
    monkeypatch.chdir(tmp_path / "second")
    with pytest.raises(OSError):  # otherwise the code would need no name of the folder
        open_clip.create_model("local-dir:tiny-clip")
    card = (tmp_path / "second" / "tiny-clip" / "README.md").read_text()
    assert "after moving the folder, pass it text_cfg" in card
    with torch.no_grad():
        for block in [part.split("```", 1)[0] for part in card.split("```python\n")[1:]]:
            names = {}
            exec(compile(block, "README.md", "exec"), names)
            if "open_clip" in names:
                tokens = open_clip.get_tokenizer("local-dir:tiny-clip")(["a dog", "two cats"])
                found = names["model"].eval().encode_text(tokens, normalize=True)
                torch.testing.assert_close(found, model.encode_text(["a dog", "two cats"]), atol=1e-5, rtol=0)
