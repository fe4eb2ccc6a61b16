"""Copies changes of the catalog's tables to the registry within seconds, whichever process wrote them."""

from __future__ import annotations

from kalshi_platform.catalog.store import CatalogStore, Change
from kalshi_platform.gatherer.markets.registry import Registry


class CatalogPoller:
    """Reads the catalog, and keeps its position by the numbers of changes, because writers' clocks differ.

    Raises DatabaseUnavailable. For one thread.
    """

    def __init__(self, store: CatalogStore, registry: Registry, *, parents: bool) -> None:
        """Set up the poller; `parents` tells whether the filter uses series or categories, which are then read."""
        self._store = store
        self._registry = registry
        self._parents = parents
        self._read_to: Change | None = None

    def refresh(self) -> int:
        """Read every market that trades or will; return how many changed."""
        newest = self._store.newest_change()
        if self._parents:
            self._registry.set_parents(self._store.categories(), self._store.series_of_events())
        changed = self._registry.update(self._store.markets_to_subscribe())
        self._read_to = newest
        return changed

    def poll(self) -> int:
        """Read the markets that were written since the last call; return how many changed."""
        newest = self._store.newest_change()
        if newest == self._read_to:
            return 0
        if self._read_to is None or not self._store.contains_change(self._read_to):
            return self.refresh()
        changed = self._registry.update(self._store.changed_since(self._read_to))
        self._read_to = newest
        return changed
