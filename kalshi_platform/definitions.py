"""Dagster loads the code location from here: `defs` is called when a code server or a run worker starts, not at import.

A setting that is missing or wrong ends that call with one ConfigurationError, which Dagster shows as the error of the
code location.
"""

from __future__ import annotations

import dagster as dg

from kalshi_platform.orchestration.build import build, load_code_location


@dg.definitions
def defs() -> dg.Definitions:
    """Return the definitions of the role that this code location has (KALSHI_ROLE)."""
    return build(load_code_location())
