"""Turns the addresses of a local stack into the settings that make every command use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import kalshi_platform
from kalshi_platform.config.loaders import catalog_variable, timeseries_variable
from kalshi_platform.storage.urls import sqlalchemy_url


@dataclass(frozen=True)
class StackAddresses:
    """Where the parts of one stack are; written to `local.json` and, as settings, to `.env`."""

    gatherers: Mapping[str, tuple[str, str]]
    """Name → (timeseries URL, catalog URL)."""
    production_url: str
    dagster_url: str
    lake_root: str
    state_dir: Path
    dagster_home: Path
    rest_url: str | None = None
    ws_url: str | None = None
    key_id: str | None = None
    key_file: Path | None = None
    metrics_port: int = 0
    """The deduplicator's; the gatherers have the next ones. 0: no metrics."""


def settings_of(stack: StackAddresses) -> dict[str, str]:
    """Return the variables that make every command, and `dagster dev`, use this stack."""
    values = {
        "KALSHI_GATHERERS": ",".join(stack.gatherers),
        "KALSHI_PRODUCTION_DATABASE_URL": stack.production_url,
        "DAGSTER_DATABASE_URL": sqlalchemy_url(stack.dagster_url),
        "DAGSTER_HOME": str(stack.dagster_home),
        "KALSHI_LAKE_ROOT": stack.lake_root,
        "KALSHI_STATE_DIR": str(stack.state_dir),
    }
    for name, (timeseries, catalog) in stack.gatherers.items():
        values[timeseries_variable(name)] = timeseries
        values[catalog_variable(name)] = catalog
    optional = {
        "KALSHI_REST_URL": stack.rest_url,
        "KALSHI_WS_URL": stack.ws_url,
        "KALSHI_API_KEY_ID": stack.key_id,
        "KALSHI_PRIVATE_KEY_PATH": None if stack.key_file is None else str(stack.key_file),
        "KALSHI_METRICS_PORT": str(stack.metrics_port) if stack.metrics_port else None,
    }
    return values | {key: value for key, value in optional.items() if value is not None}


def deployment_file(name: str) -> Path:
    """Return `dagster.yaml` or `workspace.yaml`: of this installation, or of the checkout."""
    package = Path(kalshi_platform.__file__).parent
    inside = package / "deployment" / name
    return inside if inside.exists() else package.parent / name
