"""Dagster: what exists (assets), what keeps running (jobs, sensors) and what happens when (schedules).

The rooms below do the work; here each asset body takes its settings from a resource, calls one function of its room and
returns metadata. Importing these modules reads no environment; loading the definitions reads no secret and opens no
socket.
"""

from __future__ import annotations

import warnings

import dagster as dg

# Versions are pinned to one minor release; what is beta there (backfill policies) is used knowingly.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
