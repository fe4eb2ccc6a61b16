"""Decides under which host names a local HTTP service answers, against DNS rebinding. Pure.

A foreign web page may make its own name point at this machine. Its requests carry that name (rebinding changes the
address, not the name), so an address is never such a page's, and a name counts only where it is ours.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit


def refusal(host: str | None, names: Collection[str]) -> str | None:
    """Why a request with this Host header is refused; None when it may pass. `names` are those that were configured.

    Without a header it is no browser's.
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
