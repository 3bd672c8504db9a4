"""Provenance and result folders of models that are not runs of this project."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest
import torch
from transformers import CLIPImageProcessor, SiglipImageProcessor

from bimodal_cl.models import load
from eval.cli import main
from eval.encode import open_model, result_folder
from tests.refusals import read_mistake
from tests.test_eval_commands.conftest import retrieve
from tests.test_models.huggingface.folders import (
    SQUARE,
    write_clip,
    write_clip_tokenizer,
    write_siglip,
    write_unigram,
)
from tests.test_models.source_models import assert_same_features, export_folder, open_clip_model, openai_archive


@pytest.fixture
def source():
    return open_clip_model(quick_gelu=True)


def test_provenance_of_an_export_an_archive_and_a_tag(source, tmp_path, monkeypatch):
    folder = export_folder(source, tmp_path / "export", quick_gelu=True)
    archive = openai_archive(source, tmp_path / "ViT-tiny.pt")
    monkeypatch.setattr("open_clip.download_pretrained", lambda config: str(archive))
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    weights = folder / "open_clip_model.safetensors"
    for name, file, model, pretrained, checkpoint in (
        (f"local-dir:{folder}", weights, "export", str(folder), str(folder)),
        (str(archive), archive, "ViT-tiny", str(archive), str(archive)),
        ("ViT-B/32", archive, "ViT-B-32", "openai", "openai"),
    ):
        if name == "ViT-B/32":  # replace its towers by small ones
            monkeypatch.setattr("open_clip.get_model_config", lambda name: config)
        scored = open_model(name, torch.device("cpu"))
        assert not scored.encoder.training
        assert_same_features(scored.encoder, source)
        assert (scored.name, scored.pretrained, scored.run) == (model, pretrained, None)
        hashed = hashlib.sha256(file.read_bytes()).hexdigest()
        assert scored.provenance() == {"checkpoint": checkpoint, "checkpoint_sha256": hashed, "step": None}


def test_every_name_has_a_folder_of_its_own(source, tmp_path):
    scored = open_model(str(export_folder(source, tmp_path / "export")), torch.device("cpu"))
    names = ["a/b", "a_b", "a:b", "hf-hub:org/clip", "hf-hub/org/clip"]
    names += ["ViT-L/14@336px", "ViT-L/14/336px", "x y", "x_y"]
    folders = [result_folder(scored.run, name, "out", names) for name in names]
    assert len(set(folders)) == len(names)
    for folder in folders:
        assert folder.parent.name == "out"
        assert not set(folder.name) & set(' :/\\*?"<>|')
    assert str(folders[5]) == "out/ViT-L_14@336px"
    assert str(result_folder(scored.run, "hf-hub:org/clip", None, ["hf-hub:org/clip"])) == "results/hf-hub=org_clip"


def test_retrieval_of_an_archive_and_of_nothing(source, shards, tmp_path, capsys):
    archive = openai_archive(source, tmp_path / "ViT-tiny.pt")
    assert retrieve(archive, shards, tmp_path / "out")["model"] == "ViT-tiny"
    archive.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    error = read_mistake(capsys, main, "retrieval", archive, "--data", shards)
    assert error.endswith("ViT-tiny.pt: is a Git LFS pointer, not the weights: fetch them with 'git lfs pull'")


def test_models_of_other_sizes_and_libraries_score_in_one_call(source, run_folder, class_folders, tmp_path, capsys):
    export = export_folder(source, tmp_path / "export")
    clip, siglip = tmp_path / "clip", tmp_path / "siglip"
    write_clip(clip)
    write_clip_tokenizer(clip)
    write_siglip(siglip, vocab_size=100, image_size=48)
    write_unigram(siglip)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SQUARE).save_pretrained(clip)
    SiglipImageProcessor(size={"height": 48, "width": 48}).save_pretrained(siglip)
    names = [str(run_folder), f"local-dir:{export}", str(clip), f"local-dir:{siglip}"]
    widths, sides = {}, {}
    for name in names:
        encoder = open_model(name, torch.device("cpu")).encoder
        widths[name], sides[name] = encoder.encode_text(["a dog"]).shape[1], encoder.image_size
    assert list(widths.values()) == [16, 24, 24, 48] and list(sides.values()) == [16, 32, 32, 48]
    assert main(["zero-shot", *names, "--data", str(class_folders), "--to", str(tmp_path / "out")]) == 0
    results = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*/*.json")]
    assert len(results) == 4 and all(len(result["compared"]) == 3 for result in results)
    assert {result["provenance"]["counts"]["num_images"] for result in results} == {12}
    shown = capsys.readouterr().out
    assert all(f"\n{name}" in shown for name in names)


def test_a_checkpoint_that_is_removed_while_it_is_read_is_one_line(
    run_folder, class_folders, tmp_path, monkeypatch, capsys
):
    checkpoint = tmp_path / "step_00000008"
    shutil.copytree(run_folder / "checkpoints" / "step_00000008", checkpoint)
    real = load.load_source

    def load_source(source):
        model = real(source)
        shutil.rmtree(checkpoint)  # as a training with checkpoint.keep_last does
        return model

    monkeypatch.setattr(load, "load_source", load_source)
    error = read_mistake(capsys, main, "zero-shot", checkpoint, "--data", class_folders, "--to", tmp_path / "out")
    removed = checkpoint / "model.safetensors"
    assert error == f"error: MODEL '{checkpoint}': a file was removed while the model was read: {removed}"


def test_a_model_that_is_given_twice_is_refused(run_folder, shards, capsys):
    error = read_mistake(capsys, main, "retrieval", run_folder, run_folder, "--data", shards)
    assert (
        error == f"error: MODEL '{run_folder}' is '{run_folder}' again: both have their results in {run_folder}/results"
    )


def test_a_mistake_in_the_last_name_shows_before_the_first_is_scored(run_folder, shards, tmp_path, capsys):
    read_mistake(capsys, main, "retrieval", run_folder, tmp_path / "none", "--data", shards, "--to", tmp_path / "to")
    assert not (tmp_path / "to").exists()
