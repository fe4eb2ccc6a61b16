"""Makes partitions of the lake from its own closed raw hours, market by market, in bounded memory."""

from kalshi_platform.lake.derive.day import derive_day
from kalshi_platform.lake.derive.raw_hours import RawHours, find_raw_hours

__all__ = ["RawHours", "derive_day", "find_raw_hours"]
