"""Fixtures that every test can ask for."""

from __future__ import annotations

pytest_plugins = [
    "kalshi_platform_tests.fixtures.postgres",
]
