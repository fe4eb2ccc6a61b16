"""Looks at the settings: everything that is missing or wrong in any room, each with its remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from kalshi_platform import config
from kalshi_platform.cli.doctor.findings import Finding, finding_of_problem
from kalshi_platform.errors import ConfigurationError
from kalshi_platform.storage.urls import TLS_REMEDY


def check_settings() -> Iterator[Finding]:
    """Load the settings of every room."""
    loaders: list[Callable[[], object]] = [
        config.role,
        config.partitions_start,
        config.load_logs,
        config.load_alerts,
        config.load_exchange,
        *(partial(config.load_gatherer, name) for name in config.gatherer_names()),
        config.load_deduplicator,
        config.load_lake,
        config.load_iceberg,
        config.load_retention,
        config.load_bounds,
    ]
    problems: dict[str, None] = {}
    for load in loaders:
        try:
            load()
        except ConfigurationError as error:
            problems |= dict.fromkeys(error.problems)
    yield from (finding_of_problem("settings", problem) for problem in problems)
    if not problems:
        names = ", ".join(config.gatherer_names())
        yield Finding("settings", "ok", f"complete; gatherers {names}; role {config.role().kind}")
    for name in config.unencrypted_databases():
        yield Finding("settings", "warn", f"{name} may be reached in plain text", TLS_REMEDY)
