"""A file on an HTTP server, whole or by byte ranges. Status, range and length of every answer are checked.

The standard library's client, and not fsspec's: that one needs aiohttp, takes a whole file for a range where a server
ignores the header, and ends every transfer after five minutes.
"""

from __future__ import annotations

import base64
import functools
import http.client
import os
import re
import ssl
import threading
from collections.abc import Generator
from email.utils import parsedate_to_datetime
from time import time
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from bimodal_cl.data.remote import TRANSIENT_STATUS, SourceInfo, TransferError, WholeOnly, name_of
from bimodal_cl.errors import UserError

_BLOCK = 2**20
_MAX_REDIRECTS = 10
_MAX_IDLE = 32  # connections kept open a server
_URL_CHARACTERS = "%/:=&?~#+!$,;'@()*[]"  # not to be quoted (again)
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)$")


class HttpSource:
    """A file on an HTTP server. Connections stay open between requests.

    Args:
        url: of it.
        timeout: seconds without a byte after which a try has failed.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self.name = name_of(url)
        self.latest = SourceInfo()
        self._url, self._timeout = url, timeout

    def info(self) -> SourceInfo:
        """Ask for size and version by the first byte alone: not every server that signs its URLs answers HEAD."""
        with _Answer(self._url, 0, 1, self.name, self._timeout) as answer:
            self.latest = answer.info
            for _ in answer.body():
                pass
        return self.latest

    def chunks(self, start: int, stop: int | None) -> Generator[bytes, None, None]:
        """Give out the bytes from ``start`` to ``stop`` (None: the end): one try."""
        with _Answer(self._url, start, stop, self.name, self._timeout) as answer:
            self.latest = answer.info
            if answer.first != start:
                raise WholeOnly("the server sends whole files only")
            yield from answer.body()


class _Answer:
    """The answer to one request for bytes, redirections followed; closes its connection unless it was read whole."""

    first: int  # byte of the file that the body begins with
    info: SourceInfo
    _expected: int | None  # bytes of the body that are wanted

    def __init__(self, url: str, start: int, stop: int | None, name: str, timeout: float) -> None:
        self._name = name
        headers = {"Accept-Encoding": "identity", "User-Agent": "bimodal_cl"}
        if start or stop is not None:
            headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        for _ in range(_MAX_REDIRECTS):
            self._key, self._connection, self._response = _send(url, headers, timeout)
            target = self._response.getheader("Location")
            if self._response.status not in (301, 302, 303, 307, 308) or not target:
                break
            self.close(drain=True)
            url = urljoin(url, target)
            if urlsplit(url).scheme not in ("http", "https"):
                raise UserError(f"shard {name}: the server sends us to {name_of(url)}, which is not HTTP")
        else:
            raise UserError(f"shard {name}: more than {_MAX_REDIRECTS} redirections")
        try:
            self._read_head(start)
        except BaseException:
            self.close()
            raise
        if stop is not None and self.first == start:
            wanted = stop - start
            self._expected = wanted if self._expected is None else min(self._expected, wanted)

    def _read_head(self, start: int) -> None:
        response = self._response
        status = response.status
        total: int | None = None
        self.first = 0
        self._expected = response.length
        found = _CONTENT_RANGE.match(response.getheader("Content-Range", ""))
        if found and found[3] != "*":
            total = int(found[3])
        if status == 206:
            if not found or found[1] is None:
                raise TransferError("answers a range without saying which")
            self.first, self._expected = int(found[1]), int(found[2]) + 1 - int(found[1])
        elif status == 200:
            total = response.length
            if total is None and not response.chunked:
                raise UserError(f"shard {self._name}: the server does not say how long it is")
        elif status == 416 and total is not None:
            self.first, self._expected = start, 0
        else:
            self._refuse(status)
        if response.getheader("Content-Encoding", "identity").lower() != "identity":
            raise UserError(f"shard {self._name}: the server compresses it, which makes its bytes not the shard's")
        tag = response.getheader("ETag", "") or response.getheader("Last-Modified", "")
        self.info = SourceInfo(total, tag)

    def _refuse(self, status: int) -> None:
        reason = f"the server answers {status} {self._response.reason}".rstrip()
        if status in TRANSIENT_STATUS or status >= 500:
            raise TransferError(reason, _seconds_to_wait(self._response.getheader("Retry-After", "")))
        raise UserError(f"shard {self._name}: {reason}")

    def body(self) -> Generator[bytes, None, None]:
        """Give out the bytes, as many as were announced.

        Raises:
            TransferError: fewer came.
        """
        got = 0
        while self._expected is None or got < self._expected:
            size = _BLOCK if self._expected is None else min(_BLOCK, self._expected - got)
            try:
                data = self._response.read(size)
            except (http.client.HTTPException, OSError) as error:
                raise TransferError(f"the connection broke: {_describe(error)}") from None
            if not data:
                break
            got += len(data)
            yield data
        # What a proxy or a dying server cuts off arrives without an error; only the length tells.
        if self._expected is not None and got < self._expected:
            raise TransferError(f"the connection ended after {got} of {self._expected} bytes")

    def close(self, drain: bool = False) -> None:
        """Keep the connection for the next request if nothing is left in it (or little, and ``drain``)."""
        try:
            if drain and self._response.length is not None and self._response.length <= _BLOCK:
                self._response.read()
            if self._response.isclosed() and not self._response.will_close:
                _IDLE.put(self._key, self._connection)
                return
        except (http.client.HTTPException, OSError):
            pass
        self._response.close()
        self._connection.close()

    def __enter__(self) -> _Answer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _IdleConnections:
    """Open connections by server. A forked process begins without: two must not talk on one connection."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._lock = threading.Lock()
        self._by_server: dict[str, list[http.client.HTTPConnection]] = {}

    def take(self, key: str) -> http.client.HTTPConnection | None:
        with self._lock:
            idle = self._by_server.get(key)
            return idle.pop() if idle else None

    def put(self, key: str, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            idle = self._by_server.setdefault(key, [])
            if len(idle) < _MAX_IDLE:
                idle.append(connection)
                return
        connection.close()


_IDLE = _IdleConnections()
os.register_at_fork(after_in_child=_IDLE.forget)


def _send(
    url: str, headers: dict[str, str], timeout: float
) -> tuple[str, http.client.HTTPConnection, http.client.HTTPResponse]:
    parts = urlsplit(url)
    proxy = _find_proxy(parts)
    target = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
    if proxy and parts.scheme == "http":
        target = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
    if parts.username:
        headers = {**headers, "Authorization": _basic(parts)}
    if proxy and parts.scheme == "http" and proxy.username:
        headers = {**headers, "Proxy-Authorization": _basic(proxy)}
    key = f"{parts.scheme}://{parts.netloc} {proxy.netloc if proxy else ''}"
    while True:
        connection = _IDLE.take(key)
        kept = connection is not None
        if connection is None:
            connection = _connect(parts, proxy, timeout)
        try:
            connection.request("GET", quote(target, safe=_URL_CHARACTERS), headers=headers)
            return key, connection, connection.getresponse()
        except http.client.InvalidURL as error:
            raise UserError(f"{name_of(url)}: is not a URL: {error}") from None
        except ssl.SSLCertVerificationError as error:
            connection.close()
            raise UserError(f"{parts.scheme}://{parts.hostname}: its certificate is not trusted: {error}") from None
        except (http.client.HTTPException, OSError) as error:
            connection.close()
            if not kept:  # a kept one the server may have closed meanwhile: that is no failure
                raise TransferError(f"no answer: {_describe(error)}") from None


def _connect(parts: SplitResult, proxy: SplitResult | None, timeout: float) -> http.client.HTTPConnection:
    try:
        host, port = parts.hostname or "", parts.port
        via = (proxy.hostname or "", proxy.port) if proxy else (host, port)
    except ValueError as error:
        raise UserError(f"{parts.scheme}://{parts.netloc}: {error}") from None
    if parts.scheme == "http":
        return http.client.HTTPConnection(*via, timeout=timeout)
    connection = http.client.HTTPSConnection(*via, timeout=timeout, context=_trust())
    if proxy:
        authorization = {"Proxy-Authorization": _basic(proxy)} if proxy.username else {}
        connection.set_tunnel(host, port, authorization)
    return connection


@functools.cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()


def _find_proxy(parts: SplitResult) -> SplitResult | None:
    """The proxy that the environment names for a URL (``http_proxy``, ``https_proxy``, ``no_proxy``)."""
    proxy = getproxies().get(parts.scheme)
    if not proxy or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return urlsplit(proxy if "://" in proxy else f"http://{proxy}")


def _basic(parts: SplitResult) -> str:
    pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def _seconds_to_wait(value: str) -> float:
    """Read ``Retry-After``: seconds or a date; 0 where there is none."""
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(value).timestamp() - time(), 0.0)
    except (TypeError, ValueError):
        return 0.0


def _describe(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
