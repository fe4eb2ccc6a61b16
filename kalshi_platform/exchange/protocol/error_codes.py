"""Maps the exchange's WebSocket error codes to the actions that they require. Pure.

Source: docs.kalshi.com, asyncapi.yaml, section "Error codes" (read 2026-11-22).
"""

from __future__ import annotations

from enum import Enum


class ErrorAction(Enum):
    """Names the action that an error requires."""

    RESUBSCRIBE = "resubscribe"
    """Subscribe again: the subscription is dead, the connection is not."""
    HALVE_BATCH = "halve the batch"
    """Send the markets again in smaller parts: one command or subscription had too many."""
    HALVE_PACE = "halve the pace"
    """Send the command again later, and fewer at a time: there were too many."""
    RETRY_LATER = "retry later"
    """Send the command again later: the server did not process it in time."""
    RETRY_RARELY = "retry rarely"
    """Send the command again after the longest delay: key or account lack a right that an operator must grant."""
    REPORT = "report"
    """Report the error: the command itself is wrong."""


_ACTIONS = {
    7: ErrorAction.RESUBSCRIBE,  # unknown sid
    9: ErrorAction.RETRY_RARELY,  # authentication or channel access missing
    10: ErrorAction.RESUBSCRIBE,  # channel error, terminal
    18: ErrorAction.RETRY_LATER,  # the command timed out on the server
    25: ErrorAction.RESUBSCRIBE,  # subscription buffer overflow, terminal
    26: ErrorAction.HALVE_BATCH,  # market limit of a subscription
    27: ErrorAction.HALVE_PACE,  # command rate of a subscription
}


def action_for(code: int) -> ErrorAction:
    """Return the action for a code; codes that are not in the table, new ones included, are reported."""
    return _ACTIONS.get(code, ErrorAction.REPORT)
