"""Declares environment variables beside the fields that they fill.

The settings of a room are a frozen dataclass. A field that an operator may set carries its declaration in its metadata:

    interval_s: float = field(
        default=5.0,
        metadata=setting("KALSHI_MERGE_INTERVAL_S", "seconds between merges", unit="s", low=0.1, high=3600),
    )

`kalshi_platform.config` reads the environment by these declarations, and docs/settings.md is generated from them. A
field without one is no setting: code and tests choose it. Nothing here reads the environment.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Kind: TypeAlias = Literal[
    "plain", "gatherers", "http_url", "ws_url", "database_url", "ca_file", "key_file", "lake_root", "market_part"
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One environment variable, and how its text becomes the value of a field."""

    variables: tuple[str, ...]
    """The variable; after it others that count, in this order, where it is not set. `{GATHERER}` in it stands for the
    name of a gatherer in capitals."""
    meaning: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    """Bounds of the number in the variable, both included."""
    scale: float | timedelta = 1
    """What one unit of the variable is in the unit of the field (GiB to bytes: 1024**3)."""
    kind: Kind = "plain"
    """How the text is checked. `plain`: as the type of the field says."""
    remedy: str = ""
    """Completes "set it to …" in messages, where the type or kind does not say enough."""
    secret: bool = False
    """Whether the value must never be shown."""
    required: bool = False
    """Whether the variable must be set although the field has a default."""
    default: str = ""
    """Describes a default that is no constant."""
    replaces: str = ""
    """A variable of earlier versions in whose place this one is; one that sets it is told."""

    @property
    def name(self) -> str:
        """The variable that is documented."""
        return self.variables[0]


def setting(
    variable: str,
    meaning: str,
    *,
    also: tuple[str, ...] = (),
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    scale: float | timedelta = 1,
    kind: Kind = "plain",
    remedy: str = "",
    secret: bool = False,
    required: bool = False,
    default: str = "",
    replaces: str = "",
) -> dict[str, Setting]:
    """Return the metadata of a dataclass field that `variable` fills; `also`: other variables, see Setting."""
    declared = Setting(
        variables=(variable, *also),
        meaning=meaning,
        unit=unit,
        low=low,
        high=high,
        scale=scale,
        kind=kind,
        remedy=remedy,
        secret=secret,
        required=required,
        default=default,
        replaces=replaces,
    )
    return {"setting": declared}


def declared_settings(settings: type[DataclassInstance]) -> dict[str, Setting]:
    """Field name → declaration, for the fields of a dataclass that have one."""
    return {each.name: each.metadata["setting"] for each in fields(settings) if "setting" in each.metadata}
