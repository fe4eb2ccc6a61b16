"""Keeps a simulated run apart from what the user's settings name for the real exchange. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from kalshi_platform.errors import ConfigurationError

LEFT_ASIDE = (
    # The exchange is our own.
    "KALSHI_REST_URL", "KALSHI_WS_URL", "KALSHI_API_KEY_ID", "KALSHI_PRIVATE_KEY_PATH",
    # Its markets have other names, and all gatherers follow all of them, in a location that has every asset.
    "KALSHI_SERIES", "KALSHI_CATEGORIES", "KALSHI_TICKERS", "KALSHI_MARKET_SHARD", "KALSHI_ROLE",
    # Nothing invented goes where people read what was recorded.
    "KALSHI_ALERT_WEBHOOK_URL", "KALSHI_LAKE_ROOT", "KALSHI_ICEBERG_CATALOG_URI", "KALSHI_ICEBERG_WAREHOUSE",
    "KALSHI_ICEBERG_TOKEN", "KALSHI_ICEBERG_CREDENTIAL", "KALSHI_ICEBERG_SIGV4", "KALSHI_ICEBERG_NAMESPACE_PREFIX",
)  # fmt: skip
"""Settings of which a simulated run takes its own or the default; each gatherer's market shard is one, too."""


def names_left_aside(given: Mapping[str, str]) -> list[str]:
    """Return the settings among `given` that a simulated run leaves aside. Raises ConfigurationError.

    A database that is given is refused and not replaced: who names one expects to find rows there.
    """
    set_ones = [name for name, value in sorted(given.items()) if value.strip()]
    ours = [name for name in set_ones if name.startswith(("KALSHI_", "DAGSTER_"))]
    if databases := [name for name in ours if name.endswith("DATABASE_URL")]:
        raise ConfigurationError(
            [
                f"{', '.join(databases)}: with --simulate invented rows would go into a database that is named here:"
                " take it out of the environment and .env, or start in a folder and shell without it; `up` starts"
                " databases of its own"
            ]
        )
    return [name for name in ours if name in LEFT_ASIDE or name.endswith("_MARKET_SHARD")]
