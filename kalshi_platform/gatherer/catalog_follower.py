"""The catalog's tables → the registry, within seconds, whoever wrote them."""

from __future__ import annotations

from datetime import datetime, timedelta

from kalshi_platform.catalog.store import CatalogStore
from kalshi_platform.clock import Clock
from kalshi_platform.gatherer.registry import Registry

_OVERLAP = timedelta(seconds=60)
"""A version is dated when it was asked for and becomes visible when it is committed: look this far back again."""


class CatalogFollower:
    """Reads the catalog; remembers how far. Raises DatabaseUnavailable. For one thread."""

    def __init__(self, store: CatalogStore, registry: Registry, clock: Clock, *, parents: bool) -> None:
        """`parents`: whether the filter asks for series or categories; else series and events are not read."""
        self._store = store
        self._registry = registry
        self._clock = clock
        self._parents = parents
        self._read_at: datetime | None = None

    def refresh(self) -> int:
        """Read every living market anew; return how many differ in what matters."""
        started_at = self._clock.now()
        if self._parents:
            self._registry.learn(self._store.categories(), self._store.series_of_events())
        changed = self._registry.update(self._store.markets_to_subscribe())
        self._read_at = started_at
        return changed

    def follow(self) -> int:
        """Read the versions that began since the last call; return how many markets differ in what matters."""
        if self._read_at is None:
            return self.refresh()
        started_at = self._clock.now()
        changed = self._registry.update(self._store.changed_since(self._read_at - _OVERLAP))
        self._read_at = started_at
        return changed
