"""Reads HTTP answers of Kalshi's REST API: lists, fields, and one error out of three shapes. Pure."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from http import HTTPStatus

from kalshi_platform.errors import (
    AuthenticationFailed,
    ExchangeUnavailable,
    KalshiPlatformError,
    RateLimited,
    RequestRejected,
    TransientError,
    UnparsableMessage,
)
from kalshi_platform.exchange.server_clock import auth_failure_hints
from kalshi_platform.market.clock_offset import Offset

_PASSING = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY})


_LONGEST_REFUSAL_S = 300.0


def retry_after_s(header: str | None, now_s: float) -> float | None:
    """Return the seconds to wait by a Retry-After header (RFC 9110, 10.2.3: seconds or a date); None without one.

    `now_s`: the Unix time of the answer. Waits are cut to five minutes.
    """
    if not header:
        return None
    try:
        seconds = float(header) if header.strip().isdigit() else parsedate_to_datetime(header).timestamp() - now_s
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(0.0, seconds), _LONGEST_REFUSAL_S)


def get_list(answer: object, member: str) -> list[object]:
    """Return the list under `member`, an empty one for null. Raises UnparsableMessage."""
    value = answer.get(member) if isinstance(answer, dict) else None
    if value is None and isinstance(answer, dict) and member in answer:
        return []
    if not isinstance(value, list):
        raise UnparsableMessage("shape", f"the answer has no list of {member}")
    return value


def get_field(answer: object, member: str) -> object:
    """Return the value under `member`. Raises UnparsableMessage."""
    if not isinstance(answer, dict) or member not in answer:
        raise UnparsableMessage("shape", f"the answer has no {member}")
    return answer[member]


def error_from_response(
    path: str, status: int, body: object, offset: Offset | None = None, wait_s: float | None = None
) -> KalshiPlatformError:
    """Return the error of an answer, whose body is flat, wrapped under `error`, or a bare text there.

    `offset`: our clock against the exchange's, where it is known; a refused signature may be due to it. `wait_s`: the
    wait that the exchange demands, in seconds.

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
        return AuthenticationFailed(f"{text}. {auth_failure_hints(offset)}", status=status)
    passing: TransientError | None = None
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        passing = RateLimited(text)
    elif status >= 500 or status in _PASSING:
        passing = ExchangeUnavailable(text, status=status)
    if passing is not None:
        passing.retry_after_s = wait_s
        return passing
    return RequestRejected(text, status=status, code=code)
