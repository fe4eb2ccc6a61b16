"""Fixtures that every test can ask for."""

from __future__ import annotations

pytest_plugins = [
    # First: other plugins import it, and pytest must see it before they do.
    "kalshi_platform_tests.fixtures.postgres",
    "kalshi_platform_tests.fixtures.gatherer_databases",
    "kalshi_platform_tests.fixtures.exchange",
    "kalshi_platform_tests.fixtures.storage",
    "kalshi_platform_tests.fixtures.merge_world",
    "kalshi_platform_tests.fixtures.many_partitions",
]
