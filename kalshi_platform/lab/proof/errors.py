"""Why a proof came to no verdict."""

from __future__ import annotations

from kalshi_platform.errors import TransientError


class Interrupted(TransientError):
    """The run was stopped before its end."""


class ProofFailed(TransientError):
    """The run itself did not work: it says nothing about the platform's record."""
