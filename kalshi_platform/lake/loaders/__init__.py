"""Writes ranges of the lake in the files that backtesters load: nautilus_trader's catalog, hftbacktest's arrays."""

from kalshi_platform.lake.loaders.hftbacktest import to_hftbacktest
from kalshi_platform.lake.loaders.nautilus import to_nautilus

__all__ = ["to_hftbacktest", "to_nautilus"]
