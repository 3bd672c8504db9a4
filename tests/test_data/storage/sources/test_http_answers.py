"""Answers and addresses that are wrong in ways that a retry does not mend, and whom an HTTP server must prove to be."""

from __future__ import annotations

import base64
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bimodal_cl.data.storage.sources.http import HttpSource
from bimodal_cl.data.storage.sources.source import SourceInfo, TransferError
from bimodal_cl.errors import UserError
from tests.test_data.shard_server import ShardServer, _Handler, serve

DATA = bytes(range(256)) * 40
SECRET = "signature=secret"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ShardServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    (tmp_path / "a.tar").write_bytes(DATA)
    with serve(tmp_path) as running:
        yield running


def read(url: str, start: int = 0, stop: int | None = None) -> bytes:
    return b"".join(HttpSource(url, 5.0).chunks(start, stop))


@pytest.mark.parametrize(
    ("status", "headers", "kind", "message"),
    [
        ("206", {"Content-Range": "bytes 0-99/10240"}, TransferError, "the connection ended after 0 of 100 bytes"),
        ("206", {}, TransferError, "answers a range without saying which"),
        ("200", {"Content-Encoding": "gzip"}, UserError, "the server compresses it"),
        ("302", {"Location": f"ftp://host/b?{SECRET}"}, UserError, "neither http:// nor https://"),
        ("302", {"Location": f"http://[::1/b?{SECRET}"}, UserError, "a redirection, .* is malformed"),
        ("200", {"Content-Length": "17"}, UserError, "an answer is malformed"),  # besides the right one
    ],
)
def test_what_an_answer_says_is_checked(
    server: ShardServer, status: str, headers: dict[str, str], kind: type[Exception], message: str
) -> None:
    server.fault, server.headers = lambda number: status, headers
    with pytest.raises(kind, match=message) as caught:
        read(f"{server.url}/a.tar?{SECRET}", 0, 100)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://me:secret@host:99999/a.tar", f"http:///a.tar?{SECRET}", "http://.a/a.tar"])
def test_what_is_not_a_url_is_the_users_mistake(url: str) -> None:
    with pytest.raises(UserError, match=r"^shard http://.*a\.tar.*: its URL, .* is malformed") as caught:
        HttpSource(url, 5.0)
    assert "secret" not in str(caught.value)


def test_no_answer_is_told_without_the_urls_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(TransferError, match=r"^no answer: \[Errno \d+\] Connection refused$"):
        read(f"http://127.0.0.1:1/a.tar?{SECRET}")


def test_a_password_goes_to_its_server_alone(server: ShardServer, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str | None] = []
    get = _Handler.do_GET

    def note(handler: _Handler) -> None:
        sent.append(handler.headers.get("Authorization"))
        get(handler)

    monkeypatch.setattr(_Handler, "do_GET", note)
    address = server.url.removeprefix("http://")
    assert read(f"http://me:w%C3%B6rd%40@{address}/moved/a.tar", 3, 9) == DATA[3:9]
    basic = "Basic " + base64.b64encode("me:wörd@".encode()).decode()
    assert sent == [basic, basic]
    server.headers = {"Location": f"http://localhost:{server.server_port}/a.tar"}
    server.fault = lambda number: "302" if number == 3 else ""
    assert read(f"http://me:word@{address}/b.tar", 3, 9) == DATA[3:9]
    assert sent[2] is not None and sent[3] is None


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs a certificate, which openssl makes")
def test_a_certificate_is_trusted_where_the_machine_trusts_it(
    server: ShardServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 3 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command.split(), *names], cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = f"https://localhost:{server.server_port}/a.tar"
    with pytest.raises(UserError, match=r"a\.tar: the server's certificate is not trusted: .*self.signed"):
        read(url)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "cert.pem"))
    assert read(url) == DATA
    assert HttpSource(url, 5.0).info() == SourceInfo(
        len(DATA), f'"{len(DATA)}-{(tmp_path / "a.tar").stat().st_mtime_ns}"'
    )
    with pytest.raises(UserError, match=r"a\.tar: the server's certificate is not trusted: .*mismatch"):
        read(url.replace("localhost", "127.0.0.1"))
