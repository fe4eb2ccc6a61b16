"""What the exchange's WebSocket error codes ask of a client. Pure."""

from __future__ import annotations

from enum import Enum


class ErrorAction(Enum):
    """What to do about an error."""

    SUBSCRIBE_AFRESH = "subscribe afresh"
    """The subscription is dead; the connection lives on."""
    HALVE_BATCH = "halve the batch"
    """Too many markets in one command or subscription: the same again in smaller parts."""
    HALVE_PACE = "halve the pace"
    """Too many commands: the same again later, fewer of them at a time."""
    RETRY_LATER = "retry later"
    """The server did not get to it."""
    RETRY_RARELY = "retry rarely"
    """Key or account may not have this; only a person can change that, so it is asked again now and then."""
    REPORT = "report"
    """The command is wrong as it stands."""


_REACTIONS = {
    7: ErrorAction.SUBSCRIBE_AFRESH,  # unknown sid
    9: ErrorAction.RETRY_RARELY,  # authentication or channel access missing
    10: ErrorAction.SUBSCRIBE_AFRESH,  # channel error, terminal
    18: ErrorAction.RETRY_LATER,  # the command timed out on the server
    25: ErrorAction.SUBSCRIBE_AFRESH,  # subscription buffer overflow, terminal
    26: ErrorAction.HALVE_BATCH,  # market limit of a subscription
    27: ErrorAction.HALVE_PACE,  # command rate of a subscription
}


def action_for(code: int) -> ErrorAction:
    """Every code that is not in the table is reported; that includes codes that do not exist yet."""
    return _REACTIONS.get(code, ErrorAction.REPORT)
