"""Features that an earlier command kept give the scores of features encoded now, and never those of other data."""

from __future__ import annotations

import json
import resource
import signal
import tracemalloc

import pytest
import torch
from safetensors.torch import save_file

from bimodal_cl.models import DualEncoder
from eval.cli import main
from eval.features.store import Entry, FeatureStore
from tests.refusals import read_mistake
from tests.test_eval_commands.conftest import as_png, draw, retrieve, zero_shot


@pytest.fixture
def no_encoding(monkeypatch):
    """Make any call of a tower an error."""

    def refuse(*arguments):
        raise AssertionError("a tower was called")

    def arrange():
        monkeypatch.setattr(DualEncoder, "encode_image", refuse)
        monkeypatch.setattr(DualEncoder, "encode_text", refuse)

    return arrange


def split(result):
    """Return what a result says about kept features, and the rest without the command."""
    result["provenance"].pop("command")
    return {each.pop("of"): each for each in result["provenance"].pop("features", [])}, result


def test_classification_takes_kept_features(run_folder, class_folders, tmp_path, no_encoding, capfd):
    (class_folders / "test" / "blue_square" / "broken.png").write_bytes(as_png(draw("blue", 1))[:60])
    kept = tmp_path / "kept"
    _, alone = split(zero_shot(run_folder, class_folders, tmp_path / "a"))
    first, encoded = split(zero_shot(run_folder, class_folders, tmp_path / "b", "--cache", kept))
    assert {name: each["from_cache"] for name, each in first.items()} == {"prompts": False, "images": False}
    no_encoding()
    capfd.readouterr()
    second, loaded = split(zero_shot(run_folder, class_folders, tmp_path / "c", "--cache", kept))
    assert {name: each["from_cache"] for name, each in second.items()} == {"prompts": True, "images": True}
    assert [second[name]["key"] for name in second] == [first[name]["key"] for name in first]
    assert alone == encoded == loaded and loaded["provenance"]["counts"]["num_skipped"] == 1
    assert "features of images: taken from " in capfd.readouterr().err
    (class_folders / "test" / "blue_square").rename(class_folders / "test" / "blue_tile")
    with pytest.raises(AssertionError, match="a tower was called"):  # of the new prompts
        zero_shot(run_folder, class_folders, tmp_path / "d", "--cache", kept)


def test_changed_images_weights_and_precision_have_other_features(run_folder, tiny_model, class_folders, tmp_path):
    flags = ("--cache", tmp_path / "kept")
    before, _ = split(zero_shot(run_folder, class_folders, tmp_path / "a", *flags))
    picture = class_folders / "test" / "red_square" / "0.png"
    content = picture.read_bytes()
    picture.write_bytes(as_png(draw("green", 5)))
    changed, result = split(zero_shot(run_folder, class_folders, tmp_path / "b", *flags))
    assert changed["prompts"]["from_cache"] and not changed["images"]["from_cache"]
    assert split(zero_shot(run_folder, class_folders, tmp_path / "c"))[1] == result
    picture.write_bytes(content)
    again, _ = split(zero_shot(run_folder, class_folders, tmp_path / "d", *flags))
    assert again["images"] == {**before["images"], "from_cache": True}
    in_bf16, _ = split(zero_shot(run_folder, class_folders, tmp_path / "e", *flags, "--precision", "bf16"))
    assert not in_bf16["images"]["from_cache"]
    other = tmp_path / "other"
    tiny_model.save(other)
    assert split(zero_shot(other, class_folders, tmp_path / "f", *flags))[0]["images"]["from_cache"]
    save_file({name: value + 0.01 for name, value in tiny_model.state_dict().items()}, other / "model.safetensors")
    assert not split(zero_shot(other, class_folders, tmp_path / "g", *flags))[0]["images"]["from_cache"]


def test_retrieval_takes_kept_features(run_folder, shards, tmp_path, no_encoding):
    flags = ("--cache", tmp_path / "kept")
    _, alone = split(retrieve(run_folder, shards, tmp_path / "a"))
    _, encoded = split(retrieve(run_folder, shards, tmp_path / "b", *flags))
    no_encoding()
    features, loaded = split(retrieve(run_folder, shards, tmp_path / "c", *flags))
    assert features["pairs"]["from_cache"] and alone == encoded == loaded
    tar = shards / "00001.tar"
    content = tar.read_bytes()
    tar.write_bytes(content.replace(b"number 8", b"number 7"))  # a caption, in a file of the same size
    with pytest.raises(AssertionError, match="a tower was called"):
        retrieve(run_folder, shards, tmp_path / "d", *flags)


def test_damaged_features_are_encoded_again(run_folder, class_folders, tmp_path, capfd):
    kept = tmp_path / "kept"
    _, first = split(zero_shot(run_folder, class_folders, tmp_path / "a", "--cache", kept))
    (path,) = kept.glob("images-*")
    whole = path.read_bytes()
    for damage in (whole[:-40] + bytes(40), whole[:100], b""):
        path.write_bytes(damage)
        capfd.readouterr()
        features, again = split(zero_shot(run_folder, class_folders, tmp_path / "b", "--cache", kept))
        errors = capfd.readouterr().err
        assert errors.count(f"{path}: damaged (") == 1 and not features["images"]["from_cache"]
        assert again == first and FeatureStore(str(kept)).load(path.stem) is not None


def test_a_store_without_room_does_no_harm(tmp_path, monkeypatch, capfd):
    store = FeatureStore(str(tmp_path / "kept"))
    entry = Entry({"features": torch.arange(6.0).view(2, 3).T}, {"captions": ["ä", "b"]})
    store.save("one", entry)
    loaded = store.load("one")
    assert torch.equal(loaded.tensors["features"], entry.tensors["features"]) and loaded.beside == entry.beside
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    store.save("two", entry)
    assert "the features are not kept" in capfd.readouterr().err
    assert [path.name for path in store.folder.iterdir()] == ["one.safetensors"]
    assert store.load("two") is None


def test_features_are_written_without_a_copy_and_a_file_that_cannot_grow_is_noted(tmp_path, capfd):
    store = FeatureStore(str(tmp_path / "kept"))
    entry = Entry({"features": torch.ones(1000, 500)})
    tracemalloc.start()
    store.save("one", entry)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < entry.tensors["features"].nbytes / 4
    (tmp_path / "usual").touch()
    assert store.path("one").stat().st_mode == (tmp_path / "usual").stat().st_mode  # others may read it, too
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        store.save("two", entry)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert f"the features are not kept: {store.path('two')}: " in capfd.readouterr().err
    assert [path.name for path in store.folder.iterdir()] == ["one.safetensors"]


def test_the_place_of_the_store(run_folder, class_folders, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert FeatureStore("auto").folder == tmp_path / "home" / "bimodal_cl" / "features"
    file = tmp_path / "file"
    file.write_text("")
    error = read_mistake(capsys, main, "zero-shot", run_folder, "--data", class_folders, "--cache", file)
    assert error == f"error: --cache {file}: cannot be made: File exists"
    settings = tmp_path / "eval.yaml"
    settings.write_text(json.dumps({"data": str(class_folders), "cache": str(file)}))
    flags = ("--config", settings, "--cache", "none", "--to", tmp_path / "out")
    assert main(["zero-shot", str(run_folder), *map(str, flags)]) == 0
