"""Lists every declared setting, in the order and under the headings of the documentation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, get_type_hints

from kalshi_platform.config import kinds
from kalshi_platform.config.deployment import DeploymentSettings
from kalshi_platform.deduplicator.settings import DeduplicatorSettings
from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform.gatherer.settings import GathererSettings, MarketFilter
from kalshi_platform.lake.settings import LakeSettings
from kalshi_platform.monitoring.settings import EndpointSettings, LogSettings
from kalshi_platform.setting import Setting, declared_settings
from kalshi_platform.storage.settings import PartitionBounds

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True)
class Section:
    """Settings that are read together: heading, who reads them, the dataclass that declares them."""

    title: str
    readers: str
    settings: type[DataclassInstance]


SECTIONS = (
    Section(
        "The exchange",
        "gatherers; the close of an hour and `backfill-trades`, which need no key",
        ExchangeSettings,
    ),
    Section("The deployment", "every process", DeploymentSettings),
    Section("Which markets are recorded", "gatherers", MarketFilter),
    Section("A gatherer", "gatherers; the merge reads from the two databases", GathererSettings),
    Section("Merge and production", "the merge, the close of hours, exports", DeduplicatorSettings),
    Section("Believable times", "gatherers, the merge", PartitionBounds),
    Section("The lake", "exports, readers of the lake", LakeSettings),
    Section("Metrics and health", "gatherers, the merge", EndpointSettings),
    Section("Logs", "every command", LogSettings),
)


@dataclass(frozen=True)
class Documented:
    """One setting as the documentation shows it."""

    setting: Setting
    type_label: str
    bounds: str
    """Such as `0.1 … 3600`, with the unit; empty without bounds and unit."""
    default: str
    """Such as `5`, or words where it is no constant."""
    example: str
    """The default as it would be written in a `.env` file; empty where there is none."""


def documented(section: Section) -> Iterator[Documented]:
    """Yield the settings of a section in the order of their declaration."""
    hints = get_type_hints(section.settings)
    defaults = {each.name: each.default for each in fields(section.settings)}
    for name, setting in declared_settings(section.settings).items():
        example = _as_text(defaults[name], setting)
        if setting.default:
            default = setting.default
        elif setting.required or defaults[name] is MISSING:
            default = "required"
        else:
            default = f"`{example}`" if example else "none"
        yield Documented(
            setting=setting,
            type_label=kinds.type_label(hints[name], setting),
            bounds=_bounds(setting),
            default=default,
            example=example,
        )


def _bounds(setting: Setting) -> str:
    bounds = "" if setting.low is None or setting.high is None else f"{setting.low:,.15g} … {setting.high:,.15g}"
    return f"{bounds} {setting.unit}".strip()


def _as_text(value: Any, setting: Setting) -> str:
    if value is None or value is MISSING:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d}"
    return str(value) if isinstance(value, str) or not kinds.is_number(type(value)) else f"{value / setting.scale:.15g}"
