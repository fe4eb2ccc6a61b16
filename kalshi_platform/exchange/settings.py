"""Everything the Kalshi client can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

PRODUCTION_REST_URL = "https://external-api.kalshi.com/trade-api/v2"
PRODUCTION_WS_URL = "wss://external-api-ws.kalshi.com/trade-api/ws/v2"
DEMO_REST_URL = "https://external-api.demo.kalshi.co/trade-api/v2"
DEMO_WS_URL = "wss://external-api-ws.demo.kalshi.co/trade-api/ws/v2"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
"""Hosts that no proxy is asked for."""


@dataclass(frozen=True, kw_only=True)
class ExchangeSettings:
    """Addresses, key and limits. Environments differ by URL and key only."""

    rest_url: str = PRODUCTION_REST_URL
    """Base of all REST paths, with `/trade-api/v2`."""
    ws_url: str = PRODUCTION_WS_URL
    """Address of the WebSocket, with its path (the path is signed)."""
    key_id: str | None = None
    """UUID of an API key of this environment; a read-only key suffices. Every WebSocket connection needs one."""
    private_key_pem: bytes | None = field(default=None, repr=False)
    """The key's private half (RSA or Ed25519), PEM."""
    sign_public_reads: bool = False
    """Market data needs no signature; unsigned reads do not draw on the account's budget."""
    request_timeout_s: float = 10.0
    """How long the other side may be silent."""
    connect_timeout_s: float = 10.0
    answer_deadline_s: float = 60.0
    """A REST answer must be there as a whole by then; one that drips never falls silent."""
    max_answer_bytes: int = 64 * 1024 * 1024
    """Of one REST answer, decompressed. A page of 1,000 markets has about 2 MiB."""
    max_pages: int = 20_000
    """Of one listing: 20 million markets, so that only a listing without an end meets it."""
    ca_file: Path | None = None
    """PEM file of the certificate authorities to trust, for REST and WebSocket; None: those of the system."""
    max_frame_bytes: int = 64 * 1024 * 1024
    """Kalshi's own limit; an `ok` that lists all tickers of a large subscription is several MiB."""
    ping_timeout_s: float = 30.0
    """Neither ping nor frame for that long: the line is dead (Kalshi pings every 10 s)."""
    reads_per_second: float = 20.0
    """REST requests per second before the account's limits are known (the Basic tier)."""
    rest_share: float = 1.0
    """Fraction of the account's limits that this process may spend; processes that share a key split it."""
    max_attempts: int = 5
    """Tries of one REST request, the first included."""
    retry_base_s: float = 0.5
    retry_cap_s: float = 20.0
    user_agent: str = "kalshi-platform/0.1"

    @property
    def has_key(self) -> bool:
        """Whether requests can be signed."""
        return bool(self.key_id) and bool(self.private_key_pem)
