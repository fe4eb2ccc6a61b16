"""Production → partitions of the lake."""

from kalshi_platform.lake.export.partition import export_daily, export_partition, export_raw

__all__ = ["export_daily", "export_partition", "export_raw"]
