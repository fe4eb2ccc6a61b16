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
    "kalshi_platform_tests.fixtures.role_logins",
]


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    """Restores levels, and removes handlers, that a test or a command which it ran in this process has set.

    A handler that stays would write to a stream that is closed by then.
    """
    loggers = [logging.getLogger(), logging.getLogger("kalshi_platform")]
    levels = [logger.level for logger in loggers]
    handlers = [list(logger.handlers) for logger in loggers]
    yield
    for logger, level, before in zip(loggers, levels, handlers, strict=True):
        logger.setLevel(level)
        for each in list(logger.handlers):
            if each not in before and not type(each).__module__.startswith("_pytest."):
                logger.removeHandler(each)
