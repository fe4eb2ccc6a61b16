"""Fixtures that every test can ask for."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from kalshi_platform import surroundings

# As every process of ours does: the suite passes whatever the shell says, and so do the processes that it starts.
surroundings.settle_environment(os.environ)
for name in [name for name in os.environ if name.startswith("PG")]:
    del os.environ[name]  # the databases of fixtures are ours; TEST_TIMESCALE_DSN says all of its own

# How long an example takes says more about the machine than about the code.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

pytest_plugins = [
    # First: other plugins import them, and pytest must see them before that.
    "kalshi_platform_tests.fixtures.postgres",
    "kalshi_platform_tests.fixtures.storage",
    "kalshi_platform_tests.fixtures.gatherer_databases",
    "kalshi_platform_tests.fixtures.exchange",
    "kalshi_platform_tests.fixtures.merge_world",
    "kalshi_platform_tests.fixtures.many_partitions",
]


@pytest.fixture(autouse=True)
def levels_of_loggers() -> Iterator[None]:
    """Puts the levels back that a test, or a command which it ran in this process, has set."""
    loggers = [logging.getLogger(), logging.getLogger("kalshi_platform")]
    before = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)
