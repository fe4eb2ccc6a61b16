"""Definitions are read inside an instance of their own.

Dagster keeps the storage of the last entered instance in a context variable; one that an earlier test left behind there
would be asked, and fail, when definitions are resolved.
"""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest


@pytest.fixture(autouse=True)
def _instance() -> Iterator[None]:
    with dg.DagsterInstance.ephemeral():
        yield
