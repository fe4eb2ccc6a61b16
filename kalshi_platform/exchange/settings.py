"""Defines the settings of the Kalshi client."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from kalshi_platform.setting import setting

PRODUCTION_REST_URL = "https://external-api.kalshi.com/trade-api/v2"
PRODUCTION_WS_URL = "wss://external-api-ws.kalshi.com/trade-api/ws/v2"
DEMO_REST_URL = "https://external-api.demo.kalshi.co/trade-api/v2"
DEMO_WS_URL = "wss://external-api-ws.demo.kalshi.co/trade-api/ws/v2"


@dataclass(frozen=True, kw_only=True)
class ExchangeSettings:
    """Holds addresses, key and limits; environments differ by URL and key only."""

    rest_url: str = field(
        default=PRODUCTION_REST_URL,
        metadata=setting(
            "KALSHI_REST_URL",
            f"base of all REST paths of the exchange, with `/trade-api/v2`; of the demo exchange `{DEMO_REST_URL}`",
            kind="http_url",
            remedy=f"an address such as {PRODUCTION_REST_URL}",
        ),
    )
    ws_url: str = field(
        default=PRODUCTION_WS_URL,
        metadata=setting(
            "KALSHI_WS_URL",
            f"address of the exchange's WebSocket, with its path; of the demo exchange `{DEMO_WS_URL}`",
            kind="ws_url",
            remedy=f"an address such as {PRODUCTION_WS_URL}",
        ),
    )
    key_id: str | None = field(
        default=None,
        metadata=setting(
            "KALSHI_API_KEY_ID",
            "id of an API key of this environment; read scope suffices. Every WebSocket connection needs one",
            secret=True,
            required=True,
            remedy="the id of an API key with read scope (the WebSocket needs one)",
        ),
    )
    private_key_pem: bytes | None = field(
        default=None,
        repr=False,
        metadata=setting(
            "KALSHI_PRIVATE_KEY_PATH",
            "the private half of that key, RSA or Ed25519",
            kind="key_file",
            required=True,
            remedy="the path of that key's private half (a PEM file)",
        ),
    )
    sign_public_reads: bool = False
    """Market data needs no signature; unsigned reads do not draw on the account's budget."""
    request_timeout_s: float = 10.0
    """Longest silence of the other side within an answer."""
    connect_timeout_s: float = 10.0
    answer_deadline_s: float = 60.0
    """Longest time for a whole REST answer; one that drips never falls silent."""
    max_answer_bytes: int = 64 * 1024 * 1024
    """Most bytes of one REST answer, decompressed; a page of 1,000 markets has about 2 MiB.

    No environment variable: 30 times a page guards the memory against an answer without an end, and fits every machine.
    """
    max_pages: int = 20_000
    """Most pages of one listing: 20 million markets, which only a listing without an end reaches."""
    ca_file: Path | None = field(
        default=None,
        metadata=setting(
            "KALSHI_CA_FILE",
            "PEM file of the certificate authorities to trust, for REST, WebSocket and S3 alike: where a proxy inspects"
            " TLS, its own. Without it the first of the others that is set counts for all three",
            also=("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "WEBSOCKET_CLIENT_CA_BUNDLE"),
            kind="ca_file",
            default="the system's",
        ),
    )
    max_frame_bytes: int = 64 * 1024 * 1024
    """Most bytes of one frame: Kalshi's own limit, so no environment variable.

    An `ok` that lists all tickers of a large subscription has several MiB.
    """
    ping_timeout_s: float = 30.0
    """Longest time without ping or frame before a connection counts as dead (Kalshi pings every 10 s)."""
    reads_per_second: float = 20.0
    """REST requests per second before the account's limits are known (the Basic tier)."""
    rest_share: float = field(
        default=1.0,
        metadata=setting(
            "KALSHI_REST_SHARE",
            "share of the account's read budget that each gatherer may spend; gatherers that share a key split it",
            low=0.01,
            high=1,
            default="1 / number of gatherers",
        ),
    )
    max_attempts: int = 5
    """Attempts of one REST request, the first included."""
    retry_base_s: float = 0.5
    retry_cap_s: float = 20.0
    user_agent: str = "kalshi-platform/0.1"

    @property
    def has_key(self) -> bool:
        """Return whether requests can be signed."""
        return bool(self.key_id) and bool(self.private_key_pem)
