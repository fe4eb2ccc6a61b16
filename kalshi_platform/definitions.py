"""Dagster's entry point. It decides nothing: the role of this code location does (KALSHI_ROLE)."""

from __future__ import annotations

from kalshi_platform import config
from kalshi_platform.orchestration.build import build

defs = build(config.role())
