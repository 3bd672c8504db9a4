"""Read a file from an HTTP server, whole or by range requests. Status, range and length of every answer are checked.

This uses ``requests`` instead of fsspec's client, which needs aiohttp, takes a whole file for the range if a server
ignores the header, and ends every transfer after five minutes.
"""

from __future__ import annotations

import functools
import os
import re
import ssl
from collections.abc import Generator
from contextlib import contextmanager
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import get_auth_from_url

from bimodal_cl.data.storage.locations import redact
from bimodal_cl.data.storage.sources.source import TRANSIENT_STATUS, SourceInfo, TransferError, WholeOnly
from bimodal_cl.errors import UserError

_BLOCK = 2**20
_MAX_REDIRECTS = 10
_MAX_SERVERS = 32  # servers whose connections are kept open
_MAX_IDLE = 256  # connections per server that are kept open: more than there are threads
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)$")
_LIBRARY_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError)  # requests passes some of the latter on


class HttpSource:
    """A file on an HTTP server. Connections stay open between requests.

    Args:
        url: of the file; may hold a user name and a password.
        timeout: seconds without a byte after which an attempt has failed.

    Raises:
        UserError: the URL is malformed.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self.name = redact(url)
        self.latest = SourceInfo()
        self._timeout = timeout
        session = _session(os.getpid())
        with self._errors():
            user, password = get_auth_from_url(url)
            # Passed here, they take precedence over ~/.netrc; as bytes, because text would be sent as Latin-1.
            auth = (user.encode(), password.encode()) if user else None
            # Prepared once: preparing a request takes as long as sending it.
            self._request = session.prepare_request(requests.Request("GET", url, auth=auth))
            self._settings = session.merge_environment_settings(self._request.url or url, {}, True, None, None)
            # requests refuses a proxy that is given as user:password@host, without a scheme.
            proxies = self._settings["proxies"].items()
            self._settings["proxies"] = {kind: at if "://" in at else f"http://{at}" for kind, at in proxies}

    def info(self) -> SourceInfo:
        """Ask for size and version by a request for the first byte: not every server of signed URLs answers HEAD."""
        for _ in self.chunks(0, 1):
            pass
        return self.latest

    def chunks(self, start: int, stop: int | None) -> Generator[bytes, None, None]:
        """Yield the bytes from ``start`` to ``stop`` (None: to the end), in one attempt."""
        request = self._request.copy()  # threads share the original
        if start or stop is not None:
            request.headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        with self._errors():
            response = _session(os.getpid()).send(request, timeout=self._timeout, **self._settings)
        with response:  # closes the connection unless the whole answer was read
            first, length = self._read_head(response, start)
            if first != start:
                raise WholeOnly("the server sends whole files only")
            wanted = [size for size in (length, None if stop is None else stop - start) if size is not None]
            yield from _read_body(response, min(wanted, default=None))

    def _read_head(self, response: requests.Response, start: int) -> tuple[int, int | None]:
        """Return the offset in the file at which the body begins, and the body's length if the server announces it."""
        status, headers = response.status_code, response.headers
        length: int | None = response.raw.length_remaining
        found = _CONTENT_RANGE.match(headers.get("Content-Range", ""))
        total = int(found[3]) if found and found[3] != "*" else None
        first = 0
        if status == 206:
            if not found or found[1] is None:
                raise TransferError("answers a range without saying which")
            first, length = int(found[1]), int(found[2]) + 1 - int(found[1])
        elif status == 200:
            total = length
            if total is None and not response.raw.chunked:
                raise UserError(f"shard {self.name}: the server does not say how long it is")
        elif status == 416 and total is not None:
            first, length = start, 0
        else:
            reason = f"the server answers {status} {response.reason or ''}".rstrip()
            if status in TRANSIENT_STATUS or status >= 500:
                raise TransferError(reason, _seconds_to_wait(headers.get("Retry-After", "")))
            raise UserError(f"shard {self.name}: {reason}")
        if headers.get("Content-Encoding", "identity").lower() != "identity":
            raise UserError(f"shard {self.name}: the server compresses it, so its bytes are not those of the shard")
        self.latest = SourceInfo(total, headers.get("ETag", "") or headers.get("Last-Modified", ""))
        return first, length

    @contextmanager
    def _errors(self) -> Generator[None, None, None]:
        """Turn the libraries' exceptions into ``TransferError`` or, for mistakes that remain, ``UserError``."""
        try:
            yield
            return
        except requests.TooManyRedirects:
            mistake = f"more than {_MAX_REDIRECTS} redirections"
        except requests.exceptions.InvalidSchema:
            mistake = "a redirection or a proxy is neither http:// nor https://"
        except ValueError as error:  # the libraries' and urllib's; their texts repeat URLs with their secrets
            mistake = f"its URL, a redirection, a proxy or an answer is malformed ({type(error).__name__})"
        except _LIBRARY_ERRORS as error:
            cause = _cause(error)
            if not isinstance(cause, ssl.SSLCertVerificationError):
                raise TransferError(f"no answer: {_describe(cause)}") from None
            mistake = f"the server's certificate is not trusted: {_describe(cause)}"
        raise UserError(f"shard {self.name}: {mistake}")


def _read_body(response: requests.Response, expected: int | None) -> Generator[bytes, None, None]:
    got = 0
    while expected is None or got < expected:
        try:
            data = response.raw.read(_BLOCK if expected is None else min(_BLOCK, expected - got), decode_content=False)
        except _LIBRARY_ERRORS as error:
            raise TransferError(f"the connection broke: {_describe(_cause(error))}") from None
        if not data:
            break
        got += len(data)
        yield data
    # urllib3 checks the length of the body, which may be right and still not be that of the range.
    if expected is not None and got < expected:
        raise TransferError(f"the connection ended after {got} of {expected} bytes")


class _Adapter(HTTPAdapter):
    """Trust the machine's certificates (``SSL_CERT_FILE`` included) in addition to those that requests ships."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        self._trust = ssl.create_default_context()
        super().init_poolmanager(*args, **options, ssl_context=self._trust)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, **options, ssl_context=self._trust)


@functools.cache
def _session(process: int) -> requests.Session:
    """Return the session of a process. A forked process makes its own, since two must not share a connection.

    The parent's session stays in the cache: dropping it would take locks that another thread may have held at the fork.
    """
    session = requests.Session()
    session.headers.clear()
    session.headers.update({"Accept-Encoding": "identity", "User-Agent": "bimodal_cl"})
    session.max_redirects = _MAX_REDIRECTS
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))  # threads share it, so it is stateless
    adapter = _Adapter(_MAX_SERVERS, _MAX_IDLE)
    for scheme in ("http://", "https://"):
        session.mount(scheme, adapter)
    return session


def _seconds_to_wait(value: str) -> float:
    """Parse ``Retry-After``, seconds or a date; 0 if it is neither."""
    try:
        return urllib3.Retry().parse_retry_after(value)
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        return 0.0


def _cause(error: BaseException) -> BaseException:
    """Return the standard library's exception below the libraries' own, whose texts repeat URLs with their secrets."""
    while isinstance(error, _LIBRARY_ERRORS) and error.__context__ is not None:
        error = error.__context__
    return error


def _describe(error: BaseException) -> str:
    text = "" if isinstance(error, _LIBRARY_ERRORS) else " ".join(str(error).split())
    return text or type(error).__name__
