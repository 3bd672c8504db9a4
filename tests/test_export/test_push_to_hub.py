"""``--push-to-hub`` against a local stand-in for the hub's HTTP API."""

from __future__ import annotations

import json

import pytest
import torch

from bimodal_cl.models import load_model
from eval.cli import main
from tests.refusals import read_mistake
from tests.test_export.conftest import CAPTIONS
from tests.test_export.hub_server import Hub


@pytest.fixture
def hub(monkeypatch):
    server = Hub()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def saved(make, tmp_path):
    make("timm_bert").save(tmp_path / "saved")
    return tmp_path / "saved"


def test_an_export_is_uploaded_in_one_commit(saved, hub, tmp_path, capsys):
    words = [str(saved), "--to", str(tmp_path / "out"), "--push-to-hub", "team/tiny", "--private"]
    assert main(["export", *words]) == 0, capsys.readouterr()
    assert capsys.readouterr().out.splitlines()[-1] == f"{hub.address}/team/tiny"
    files = hub.files["team/tiny"]
    assert hub.private == {"team/tiny": True} and hub.commits == {"team/tiny": 1}
    local = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert set(files) == local
    # The hub's copy names the repository where the local one names the folder, and no path of this machine.
    text = json.loads(files["open_clip_config.json"])["model_cfg"]["text_cfg"]
    assert (text["hf_model_name"], text["hf_tokenizer_name"]) == ("team/tiny", "team/tiny")
    assert str(tmp_path / "out") in (tmp_path / "out" / "open_clip_config.json").read_text()
    assert [name for name, content in files.items() if str(tmp_path).encode() in content] == []
    assert b"hf-hub:team/tiny" in files["README.md"]
    copy = tmp_path / "downloaded"
    for name, content in files.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(content)
    expected = load_model(saved).encode_text(CAPTIONS)
    assert torch.equal(load_model(copy).encode_text(CAPTIONS), expected)
    # A second upload of the same name is another commit.
    assert main(["export", *words, "--overwrite"]) == 0
    assert hub.commits == {"team/tiny": 2}


@pytest.mark.parametrize(
    ("token", "failing", "status", "message"),
    [
        ("hf_wrong", 0, 2, "--push-to-hub team/tiny: the hub refused it (401, Invalid credentials); "),
        ("hf_good", 500, 1, "--push-to-hub team/tiny: the hub failed (500, down); "),
    ],
)
def test_failures_are_one_line(token, failing, status, message, hub, tmp_path, monkeypatch, capsys):
    from bimodal_cl.cli.exit_status import with_exit_status
    from eval.export.hub import push_folder

    monkeypatch.setenv("HF_TOKEN", token)
    hub.failing = failing
    (tmp_path / "README.md").write_text("---\nlicense: other\n---\n")
    assert with_exit_status(lambda argv: print(push_folder(tmp_path, "team/tiny", {})))([]) == status
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error and token not in error


def test_mistakes_are_found_before_the_model_is_loaded(tmp_path, monkeypatch, capsys):
    words = ("export", "no/such/run", "--to", tmp_path / "out", "--push-to-hub")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_x")
    assert "a repository is OWNER/NAME, got 'tiny'" in read_mistake(capsys, main, *words, "tiny")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert "no token of the hub: run 'hf auth login', or set HF_TOKEN" in read_mistake(capsys, main, *words, "me/tiny")
