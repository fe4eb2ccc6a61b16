"""Resources of asset bodies: settings, databases and services, made when a run starts and not before."""

from __future__ import annotations

from kalshi_platform.orchestration.resources.ingestor import WebSocketIngestor
from kalshi_platform.orchestration.resources.platform import LakeResource, PlatformResource, ProductionDatabase

RESOURCES: dict[str, object] = {
    "platform": PlatformResource(),
    "production_database": ProductionDatabase(),
    "lake": LakeResource(),
    "ingestor": WebSocketIngestor(),
}
"""Resources of every code location, by the name of the parameter that takes them."""

__all__ = ["RESOURCES", "LakeResource", "PlatformResource", "ProductionDatabase", "WebSocketIngestor"]
