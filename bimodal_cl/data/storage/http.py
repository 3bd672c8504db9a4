"""A file on an HTTP server, whole or by byte ranges. Status, range and length of every answer are checked.

``requests`` and not fsspec's client: that one needs aiohttp, takes a whole file for a range where a server ignores the
header, and ends every transfer after five minutes.
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

from bimodal_cl.data.storage.locations import name_of
from bimodal_cl.data.storage.remote import TRANSIENT_STATUS, SourceInfo, TransferError, WholeOnly
from bimodal_cl.errors import UserError

_BLOCK = 2**20
_MAX_REDIRECTS = 10
_MAX_SERVERS = 32  # whose connections are kept
_MAX_IDLE = 256  # connections kept open a server: more than there are threads
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)$")
_LIBRARY_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError)  # requests lets some of the latter through


class HttpSource:
    """A file on an HTTP server. Connections stay open between requests.

    Args:
        url: of it; may hold a name and a password.
        timeout: seconds without a byte after which a try has failed.

    Raises:
        UserError: that is not a URL.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self.name = name_of(url)
        self.latest = SourceInfo()
        self._timeout = timeout
        session = _session(os.getpid())
        with self._errors():
            user, password = get_auth_from_url(url)
            # Named here they come before ~/.netrc; in bytes because text is sent as Latin-1.
            auth = (user.encode(), password.encode()) if user else None
            # Made once: to make a request takes as long as to send it.
            self._request = session.prepare_request(requests.Request("GET", url, auth=auth))
            self._settings = session.merge_environment_settings(self._request.url or url, {}, True, None, None)
            # requests itself refuses a proxy that is named as user:password@host.
            proxies = self._settings["proxies"].items()
            self._settings["proxies"] = {kind: at if "://" in at else f"http://{at}" for kind, at in proxies}

    def info(self) -> SourceInfo:
        """Ask for size and version by the first byte alone: not every server that signs its URLs answers HEAD."""
        for _ in self.chunks(0, 1):
            pass
        return self.latest

    def chunks(self, start: int, stop: int | None) -> Generator[bytes, None, None]:
        """Give out the bytes from ``start`` to ``stop`` (None: the end): one try."""
        request = self._request.copy()  # threads share the other one
        if start or stop is not None:
            request.headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        with self._errors():
            response = _session(os.getpid()).send(request, timeout=self._timeout, **self._settings)
        with response:  # closes the connection unless the answer was read whole
            first, length = self._read_head(response, start)
            if first != start:
                raise WholeOnly("the server sends whole files only")
            wanted = [size for size in (length, None if stop is None else stop - start) if size is not None]
            yield from _read_body(response, min(wanted, default=None))

    def _read_head(self, response: requests.Response, start: int) -> tuple[int, int | None]:
        """Return the byte of the file that the body begins with, and the body's length if it is announced."""
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
            raise UserError(f"shard {self.name}: the server compresses it, which makes its bytes not the shard's")
        self.latest = SourceInfo(total, headers.get("ETag", "") or headers.get("Last-Modified", ""))
        return first, length

    @contextmanager
    def _errors(self) -> Generator[None, None, None]:
        """Sort what the libraries raise: what may go away, and the user's or the server's mistakes."""
        try:
            yield
            return
        except requests.TooManyRedirects:
            mistake = f"more than {_MAX_REDIRECTS} redirections"
        except requests.exceptions.InvalidSchema:
            mistake = "a redirection or a proxy is neither http:// nor https://"
        except ValueError as error:  # the libraries' own, and urllib's; the texts repeat URLs and their secrets
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
    # urllib3 checks the body's length, which may be right and yet not the range's.
    if expected is not None and got < expected:
        raise TransferError(f"the connection ended after {got} of {expected} bytes")


class _Adapter(HTTPAdapter):
    """Trusts what this machine trusts (``SSL_CERT_FILE`` too), besides the certificates that requests brings along."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        self._trust = ssl.create_default_context()
        super().init_poolmanager(*args, **options, ssl_context=self._trust)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, **options, ssl_context=self._trust)


@functools.cache
def _session(process: int) -> requests.Session:
    """The connections of a process. A forked one makes its own: two must not talk on one connection.

    Its parent's stay in the cache: dropping them would take locks that another thread may have held at the fork.
    """
    session = requests.Session()
    session.headers.clear()
    session.headers.update({"Accept-Encoding": "identity", "User-Agent": "bimodal_cl"})
    session.max_redirects = _MAX_REDIRECTS
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))  # threads share it: it keeps no state
    adapter = _Adapter(_MAX_SERVERS, _MAX_IDLE)
    for scheme in ("http://", "https://"):
        session.mount(scheme, adapter)
    return session


def _seconds_to_wait(value: str) -> float:
    """Read ``Retry-After``: seconds or a date; 0 where there is none."""
    try:
        return urllib3.Retry().parse_retry_after(value)
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        return 0.0


def _cause(error: BaseException) -> BaseException:
    """The standard library's exception below those of the libraries, whose texts repeat URLs and their secrets."""
    while isinstance(error, _LIBRARY_ERRORS) and error.__context__ is not None:
        error = error.__context__
    return error


def _describe(error: BaseException) -> str:
    text = "" if isinstance(error, _LIBRARY_ERRORS) else " ".join(str(error).split())
    return text or type(error).__name__
