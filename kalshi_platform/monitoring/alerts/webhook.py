"""Posts messages to a webhook of Slack's form. Errors say whether another attempt makes sense, and never the URL."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.message import Message
from typing import IO, Any

from kalshi_platform.errors import ConnectionLost, RequestRejected
from kalshi_platform.monitoring.plain_text import plain
from kalshi_platform.monitoring.settings import AlertSettings

_TIMEOUT_S = 10.0
_ANSWER_BYTES = 200
_REFUSED = frozenset({400, 413})
"""Answers that speak of the message (Slack's `invalid_payload`); all others speak of the webhook, or pass."""
_LONGEST_PAUSE_S = 3_600.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would send the message, and the secret path with it, elsewhere."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        """Follow none."""


class Webhook:
    """Posts messages, one at a time."""

    def __init__(self, settings: AlertSettings) -> None:
        self._url = settings.webhook_url or ""
        context = ssl.create_default_context(cafile=None if settings.ca_file is None else str(settings.ca_file))
        self._opener = urllib.request.build_opener(_NoRedirect(), urllib.request.HTTPSHandler(context=context))

    def post(self, message: Mapping[str, Any]) -> None:
        """Post one message.

        Raises ConnectionLost where a later attempt may succeed (`retry_after_s`: not before that), RequestRejected
        where the receiver refuses this message.
        """
        try:
            request = urllib.request.Request(  # noqa: S310 - the settings admit http and https alone
                self._url,
                data=json.dumps(message).encode(),
                headers={"Content-Type": "application/json; charset=utf-8", "User-Agent": "kalshi-platform"},
            )
            with self._opener.open(request, timeout=_TIMEOUT_S) as response:
                response.read(_ANSWER_BYTES)
        except urllib.error.HTTPError as error:
            raise _refusal(error) from None
        except urllib.error.URLError as error:
            raise ConnectionLost(f"the webhook is not reached: {plain(str(error.reason), _ANSWER_BYTES)}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            # Texts of http.client may quote the address.
            reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            raise ConnectionLost(f"the webhook is not reached: {reason}") from None


def _refusal(error: urllib.error.HTTPError) -> ConnectionLost | RequestRejected:
    with error:
        try:
            body = error.read(_ANSWER_BYTES).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException):
            body = ""
    text = f"the webhook answers HTTP {error.code}: {plain(body, _ANSWER_BYTES)}"
    if error.code in _REFUSED:
        return RequestRejected(text, status=error.code)
    lost = ConnectionLost(text)
    lost.retry_after_s = _retry_after_s(error.headers.get("Retry-After", ""))
    return lost


def _retry_after_s(text: str) -> float | None:
    return min(float(text), _LONGEST_PAUSE_S) if text.isdecimal() else None
