"""Serves `/metrics` for Prometheus and `/healthz` for what restarts or pages.

Both are made of the service's status when they are requested. A request for a host name that is not ours is refused.
"""

from __future__ import annotations

import ipaddress
import json
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.monitoring.heartbeat import encode
from kalshi_platform.monitoring.metrics import MetricFamily
from kalshi_platform.monitoring.plain_text import plain
from kalshi_platform.monitoring.settings import EndpointSettings

_REQUEST_TIMEOUT_S = 10.0
_log = event_logger(__name__)


class Health(msgspec.Struct, kw_only=True):
    """What `/healthz` answers: 200 without `reasons`, else 503. `troubles` need attention and stop nothing."""

    service: str
    state: str
    health: str
    reasons: list[str] = []
    troubles: list[str] = []


class JudgedStatus(Protocol):
    """The part of a service's status that its health is."""

    state: str
    health: str
    reasons: list[str]
    troubles: list[str]


def health_of(service: str, status: JudgedStatus) -> Health:
    """Return what `/healthz` answers for a service of this status."""
    return Health(
        service=service,
        state=status.state,
        health=status.health,
        reasons=status.reasons,
        troubles=status.troubles,
    )


class Endpoint:
    """Serves one service's metrics and health from threads of its own. It never stops the service."""

    def __init__(
        self,
        settings: EndpointSettings,
        owner: str,
        metrics: Callable[[], Iterable[MetricFamily]],
        health: Callable[[], Health],
    ) -> None:
        """`metrics` and `health` are called from the endpoint's threads, once for each request."""
        self._settings = settings
        self._owner = owner
        self._health = health
        self._registry = CollectorRegistry()
        self._registry.register(_StatusCollector(metrics))
        ProcessCollector(registry=self._registry)
        self._server: _Server | None = None
        self._refusal: str | None = None

    @property
    def port(self) -> int | None:
        """Where it listens; None while it does not."""
        return None if self._server is None else int(self._server.server_address[1])

    def ensure(self) -> bool:
        """Listen, if that is configured and not so yet; return whether it listens. A taken port is logged once."""
        settings = self._settings
        if self._server is not None or settings.port == 0:
            return self._server is not None
        try:
            names = (settings.host, *settings.names)
            server = _Server((settings.host, settings.port), _handler(self._registry, self._health, names))
        except OSError as error:
            if str(error) != self._refusal:
                self._refusal = str(error)
                _log.warning(
                    "metrics_not_served", owner=self._owner, host=settings.host, port=settings.port,
                    error=error.strerror or error, consequence="no /metrics and no /healthz; everything else goes on",
                    remedy="choose another KALSHI_METRICS_PORT",
                )  # fmt: skip
            return False
        self._server = server
        threading.Thread(target=server.serve_forever, name=f"{self._owner} metrics", daemon=True).start()
        _log.info("metrics_served", owner=self._owner, url=f"http://{settings.host}:{settings.port}/metrics")
        return True

    def close(self) -> None:
        """Listen no more."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - socketserver's signature
        if isinstance(sys.exception(), OSError):
            _log.debug("metrics_client_went_away", address=str(client_address), exc_info=True)
        else:
            _log.warning("metrics_request_failed", exc_info=True)


class _StatusCollector(Collector):
    def __init__(self, metrics: Callable[[], Iterable[MetricFamily]]) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable[MetricFamily]:
        # Nothing is collected at registration: the service may not have a status yet.
        return ()

    def collect(self) -> Iterator[MetricFamily]:
        yield from self._metrics()


def _handler(
    registry: CollectorRegistry, health: Callable[[], Health], names: Collection[str]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _REQUEST_TIMEOUT_S

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            reasons = [found for host in self.headers.get_all("Host", []) if (found := _refusal(host, names))]
            if reasons:
                _log.debug("metrics_request_refused", reason=reasons[0])
                refused = json.dumps({"error": "misdirected request", "reason": plain(reasons[0])}).encode() + b"\n"
                self._answer(HTTPStatus.MISDIRECTED_REQUEST, "application/json", refused)
            elif path == "/metrics":
                exposition, content_type = choose_encoder(self.headers.get("Accept", ""))
                self._answer(HTTPStatus.OK, content_type, exposition(registry))
            elif path == "/healthz":
                answer = health()
                status = HTTPStatus.SERVICE_UNAVAILABLE if answer.reasons else HTTPStatus.OK
                self._answer(status, "application/json", encode(answer) + b"\n")
            else:
                self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"/metrics or /healthz\n")

        def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's signature
            """Scrapes are not worth a line."""

    return Handler


def _refusal(host: str | None, names: Collection[str]) -> str | None:
    """Why a request with this Host header is refused; None when it may pass. `names` are those that were configured.

    A foreign web page may make its own name point at this machine (DNS rebinding). Its requests carry that name, for
    rebinding changes the address and not the name: so an address is never such a page's, and a name counts only where
    it is ours. A request without a header is no browser's.
    """
    if host is None:
        return None
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        name = ""
    if _is_address(name) or name == "localhost" or name in {each.lower() for each in names}:
        return None
    return f"this service is not called {host!r}: use its address, or add the name to KALSHI_METRICS_NAMES"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
