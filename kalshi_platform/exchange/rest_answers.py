"""HTTP answers of Kalshi's REST API: their JSON, their lists, and one error out of three shapes. Pure."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec

from kalshi_platform.errors import (
    AuthenticationFailed,
    ExchangeUnavailable,
    KalshiPlatformError,
    RateLimited,
    RequestRejected,
    UnparsableMessage,
)
from kalshi_platform.exchange.dates import suspects
from kalshi_platform.market.clock_offset import Offset

_PASSING = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY})


def decoded(content: bytes) -> Any:
    """The JSON of a body, None when it is none."""
    try:
        return msgspec.json.decode(content)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None


def items(answer: object, member: str) -> list[object]:
    """The list under `member`; null is an empty one. Raises UnparsableMessage."""
    value = answer.get(member) if isinstance(answer, dict) else None
    if value is None and isinstance(answer, dict) and member in answer:
        return []
    if not isinstance(value, list):
        raise UnparsableMessage("shape", f"the answer has no list of {member}")
    return value


def member_of(answer: object, member: str) -> object:
    """What stands under `member`. Raises UnparsableMessage."""
    if not isinstance(answer, dict) or member not in answer:
        raise UnparsableMessage("shape", f"the answer has no {member}")
    return answer[member]


def error_of(path: str, status: int, body: object, offset: Offset | None = None) -> KalshiPlatformError:
    """One error out of the three shapes of error bodies: flat, wrapped under `error`, or a bare text there.

    `offset`: our clock against the exchange's, where it is known; a refused signature may be due to it.

    This is the one place that decides whether a refusal is transient: 429, 408, 425 and 5xx are, all else is not.
    """
    code: str | None = None
    message = ""
    if isinstance(body, dict):
        inner = body.get("error", body)
        if isinstance(inner, dict):
            code = str(inner["code"])[:100] if inner.get("code") is not None else None
            message = str(inner.get("message") or inner.get("details") or "")
        else:
            message = str(inner or "")
    text = f"GET {path}: HTTP {status}" + (f" {code}" if code else "") + (f": {message[:200]}" if message else "")
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return AuthenticationFailed(f"{text}. {suspects(offset)}", status=status)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RateLimited(text)
    if status >= 500 or status in _PASSING:
        return ExchangeUnavailable(text, status=status)
    return RequestRejected(text, status=status, code=code)
