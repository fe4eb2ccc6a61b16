"""Sends HTTP GET requests within bounds of time and size. The only module that uses `requests`.

The bounds are enforced here because an answer that drips byte by byte renews every timeout of a socket, and half a MiB
of gzip can expand to more than a GiB.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from kalshi_platform.errors import ConnectionLost, ExchangeUnavailable, RequestRejected
from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform.surroundings import LOOPBACK

_CHUNK_BYTES = 16 * 1024
"""Bytes read of the compressed body at a time; in memory is what they expand to, a thousandfold at most."""


class HttpAnswer(NamedTuple):
    """Carries one answer with its body decompressed."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class HttpClient:
    """Sends GET requests from many threads, each with its own session (`requests` does not promise to share one)."""

    def __init__(self, settings: ExchangeSettings) -> None:
        self._settings = settings
        self._host = urlsplit(settings.rest_url).hostname or ""
        self._local = threading.local()

    def get(self, url: str, params: Sequence[tuple[str, str]], headers: Mapping[str, str]) -> HttpAnswer:
        """Return the whole answer, whatever its status; redirects are not followed.

        Raises ConnectionLost (no connection, cut off, silent or not whole in time, undecodable), ExchangeUnavailable
        (larger than allowed), RequestRejected (the request could not be sent).
        """
        what = f"GET {urlsplit(url).path}"
        settings, session = self._settings, self._session()
        overdue = threading.Event()
        watch = threading.Timer(settings.answer_deadline_s, session.cut, [overdue])
        watch.daemon = True
        watch.start()
        try:
            with session.get(
                url,
                params=list(params),
                headers=headers,
                timeout=(settings.connect_timeout_s, settings.request_timeout_s),
                allow_redirects=False,
                stream=True,
            ) as answer:
                content = self._content(answer, what)
                status, answered = answer.status_code, answer.headers
        except requests.exceptions.SSLError as error:
            raise ConnectionLost(f"{what}: {tls_problem(error)}") from error
        except (requests.ConnectionError, requests.Timeout) as error:
            raise ConnectionLost(f"{what}: {self._late(overdue) or type(error).__name__}") from error
        except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError) as error:
            reason = self._late(overdue) or f"the answer arrived broken ({type(error).__name__})"
            raise ConnectionLost(f"{what}: {reason}") from error
        except requests.RequestException as error:
            raise RequestRejected(f"{what}: {type(error).__name__}", status=0) from error
        finally:
            watch.cancel()
        if overdue.is_set():  # an answer whose length is the end of the connection looks whole
            raise ConnectionLost(f"{what}: {self._late(overdue)}")
        return HttpAnswer(status, answered, content)

    def _content(self, answer: requests.Response, what: str) -> bytes:
        limit, parts, size = self._settings.max_answer_bytes, [], 0
        for part in answer.iter_content(_CHUNK_BYTES):
            size += len(part)
            if size > limit:
                answer.raw.close()
                raise ExchangeUnavailable(
                    f"{what}: the answer is larger than {limit} bytes, decompressed; it was not read to its end"
                )
            parts.append(part)
        return b"".join(parts)

    def _late(self, overdue: threading.Event) -> str:
        return f"no whole answer within {self._settings.answer_deadline_s:g} s" if overdue.is_set() else ""

    def _session(self) -> _Session:
        session: _Session | None = getattr(self._local, "session", None)
        if session is None:
            session = _Session()
            session.headers.update({"User-Agent": self._settings.user_agent, "Accept": "application/json"})
            # Proxies of the environment are for the world outside, not for an exchange on this machine.
            session.trust_env = self._host not in LOOPBACK
            if self._settings.ca_file is not None:
                session.trust_env_certificates = False
                session.verify = str(self._settings.ca_file)
            self._local.session = session
        return session


def tls_problem(error: BaseException) -> str:
    """Return the reason of a failed TLS handshake; OpenSSL's own words lie some causes deep."""
    cause: BaseException | None = error
    words = ""
    while cause is not None:
        if "certificate" in str(cause).lower():
            words = str(getattr(cause, "verify_message", "")) or str(cause)
        inner = cause.__cause__ or cause.__context__
        cause = inner if inner is not cause else None
    if not words:
        return f"TLS: {type(error).__name__}: {str(error)[:200]}"
    return (
        f"TLS: the certificate of the other side is not trusted ({words[:200]}). Where a proxy inspects TLS, set"
        " KALSHI_CA_FILE to the PEM file of its certificate authority"
    )


class _Session(requests.Session):
    """Extends a session of one thread so that another thread can shut down its sockets."""

    trust_env_certificates = True

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[socket.socket] = []
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter(self.opened))

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """Merge as the library does, but keep a configured certificate authority in spite of REQUESTS_CA_BUNDLE."""
        merged = super().merge_environment_settings(url, proxies, stream, verify, cert)
        if not self.trust_env_certificates:
            merged["verify"] = self.verify
        return merged

    def cut(self, overdue: threading.Event) -> None:
        """Shut down every socket of this session, which ends all its waits."""
        overdue.set()
        for each in list(self.opened):
            with contextlib.suppress(OSError):
                # Not SSLSocket's own method, which removes the TLS layer under its reader.
                socket.socket.shutdown(each, socket.SHUT_RDWR)


class _Adapter(HTTPAdapter):
    """Records the sockets that its connections open: shutting them down wakes a thread that waits in them."""

    def __init__(self, opened: list[socket.socket]) -> None:
        self._classes = _pools(opened)
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._classes

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = self._classes
        return manager


def _pools(opened: list[socket.socket]) -> dict[str, type[HTTPConnectionPool]]:
    def record(connected: socket.socket | None) -> None:
        opened[:] = [each for each in opened if each.fileno() >= 0]
        if connected is not None:
            opened.append(connected)

    class Plain(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            record(self.sock)

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            connected = super()._new_conn()
            record(connected)  # a handshake, too, may never end
            return connected

        def connect(self) -> None:
            super().connect()
            record(self.sock)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}
