"""Loads the settings of each room from the environment.

Each loader reports everything wrong and missing in one ConfigurationError. With `environ` it reads that mapping and
nothing else; without it, the process's environment over `.env` in the working folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import urlsplit

from kalshi_platform.config import kinds
from kalshi_platform.config.deployment import DeploymentSettings, GathererLogins, ProductionLogins, Role
from kalshi_platform.config.environment import environment
from kalshi_platform.config.values import Values
from kalshi_platform.deduplicator.settings import DeduplicatorSettings, GathererSource
from kalshi_platform.errors import ConfigurationError
from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform.gatherer.settings import GathererSettings, MarketFilter
from kalshi_platform.lake.iceberg.settings import IcebergSettings
from kalshi_platform.lake.retention.settings import FEWEST_DAGSTER_DAYS, GathererDatabase, RetentionSettings
from kalshi_platform.lake.settings import LakeSettings
from kalshi_platform.market.times import hour_of
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.monitoring.settings import AlertSettings, EndpointSettings, LogSettings
from kalshi_platform.setting import declared_settings
from kalshi_platform.storage.settings import PartitionBounds
from kalshi_platform.storage.urls import TLS_REMEDY, may_be_unencrypted
from kalshi_platform.surroundings import is_loopback

if TYPE_CHECKING:
    from kalshi_platform.storage.migrate import DatabaseKind

Loaded = TypeVar("Loaded")

# Gatherers reconnect this much apart, so that they do not drop out together.
_STAGGER_S = 0.7
_GATHERER_DATABASES: tuple[Literal["timeseries", "catalog"], ...] = ("timeseries", "catalog")
_GATHERER = "gatherer/"
_DEDUPLICATOR = "deduplicator"
_log = event_logger(__name__)
_LOCAL_DATABASE = "postgresql://local@127.0.0.1/local"


@dataclass(frozen=True)
class ConfiguredDatabase:
    """A database and its address; `service`: the one whose switch and heartbeat it holds, if any."""

    name: str
    url: str = field(repr=False)
    kind: Literal["timeseries", "catalog", "production", "dagster"]
    service: str = ""


@dataclass(frozen=True)
class PlatformSettings:
    """Everything, for processes that host several rooms."""

    exchange: ExchangeSettings
    gatherers: Mapping[str, GathererSettings]
    deduplicator: DeduplicatorSettings
    lake: LakeSettings
    bounds: PartitionBounds


@dataclass(frozen=True)
class OwnedDatabase:
    """A database as `migrate` reaches it: by the login that owns its tables."""

    name: str
    kind: DatabaseKind
    url: str = field(repr=False)


def gatherer_names(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the names in KALSHI_GATHERERS, by default g1, g2, g3. Names that cannot be used are left out."""
    text = Values(environ).text("KALSHI_GATHERERS")
    return kinds.usable_gatherer_names(text) if kinds.words(text) else DeploymentSettings.gatherers


def role(environ: Mapping[str, str] | None = None) -> Role:
    """Load what a code location serves. Raises ConfigurationError."""
    return _load(environ, _role)


def partitions_start(environ: Mapping[str, str] | None = None) -> datetime:
    """Load the first hour that Dagster offers as a partition. Raises ConfigurationError."""
    return _load(environ, _partitions_start)


def close_buckets(environ: Mapping[str, str] | None = None) -> int:
    """Load into how many buckets of markets Dagster divides the close of an hour. Raises ConfigurationError."""
    return _load(environ, lambda values: values.fill(DeploymentSettings, "close_buckets").close_buckets)


def archives_frames(environ: Mapping[str, str] | None = None) -> bool:
    """Load whether frames are archived: by default where a lake is configured. Raises ConfigurationError."""
    return _load(environ, _archives_frames)


def state_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Load the folder of journals, locks and heartbeat files of this host's services."""
    return _load(environ, _state_dir)


def stop_limit_s(environ: Mapping[str, str] | None = None) -> float:
    """Load how long `up` waits at most for a service that writes what it holds before it ends."""
    return _load(environ, lambda values: values.fill(DeploymentSettings, "stop_limit_s").stop_limit_s)


def load_exchange(environ: Mapping[str, str] | None = None) -> ExchangeSettings:
    """Load the settings of the Kalshi client. Raises ConfigurationError."""
    return _load(environ, _exchange)


def load_public_reads(environ: Mapping[str, str] | None = None) -> ExchangeSettings:
    """Load the settings of a client that reads public market data over REST, which needs no key."""
    return _load(environ, lambda values: _exchange(values, "rest_url", "rest_share", "ca_file"))


def load_gatherer(name: str, environ: Mapping[str, str] | None = None) -> GathererSettings:
    """Load the settings of one gatherer. Raises ConfigurationError, also for a name that KALSHI_GATHERERS lacks."""
    values = Values(environ)
    if name not in values.gatherers:
        values.add_problem(f"gatherer {name!r} is not in KALSHI_GATHERERS, which names {', '.join(values.gatherers)}")
        values.check()
    settings = _gatherer(values, name)
    values.check()
    return settings


def load_deduplicator(environ: Mapping[str, str] | None = None) -> DeduplicatorSettings:
    """Load the settings of the merge. Raises ConfigurationError."""
    return _load(environ, _deduplicator)


def load_logs(environ: Mapping[str, str] | None = None) -> LogSettings:
    """Load how this process logs. Raises ConfigurationError."""
    return _load(environ, lambda values: values.fill(LogSettings))


def load_owned_databases(environ: Mapping[str, str] | None = None) -> list[OwnedDatabase]:
    """Load the addresses of all databases for who owns their tables. Raises ConfigurationError."""
    return _load(environ, _owned_databases)


def load_alerts(environ: Mapping[str, str] | None = None) -> AlertSettings:
    """Load where alerts go. Raises ConfigurationError."""
    return _load(environ, _alerts)


def load_production_url(environ: Mapping[str, str] | None = None) -> str:
    """Load the address of production, for what needs nothing else. Raises ConfigurationError."""
    return _load(environ, lambda values: str(values.read(DeduplicatorSettings, "production_url")["production_url"]))


def service_names(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the names of the long-running services: gatherer/NAME of each gatherer, and deduplicator."""
    return (*(f"{_GATHERER}{name}" for name in gatherer_names(environ)), _DEDUPLICATOR)


def find_service(text: str, environ: Mapping[str, str] | None = None) -> str:
    """Return the service that a person means: `g1` is gatherer/g1, `merge` is deduplicator.

    Raises ConfigurationError, with the names that there are.
    """
    names = service_names(environ)
    name = text.strip().lower()
    for each in (name, f"{_GATHERER}{name}", _DEDUPLICATOR if name in ("merge", "dedup") else ""):
        if each in names:
            return each
    raise ConfigurationError([f"no service is called {text!r}: there are {', '.join(names)} (KALSHI_GATHERERS)"])


def load_service_database(service: str, environ: Mapping[str, str] | None = None) -> str:
    """Load the address of the database that holds a service's switch and heartbeat. Raises ConfigurationError."""
    if service == _DEDUPLICATOR:
        return load_production_url(environ)
    name = service.removeprefix(_GATHERER)
    return _load(
        environ,
        lambda values: str(values.read(GathererSettings, "timeseries_url", gatherer=name).get("timeseries_url", "")),
    )


def list_databases(environ: Mapping[str, str] | None = None) -> list[ConfiguredDatabase]:
    """List the databases whose addresses are set and can be used, for what looks at each of them."""
    values = Values(environ)
    found: list[ConfiguredDatabase] = []
    for name in values.gatherers:
        urls = values.read(GathererSettings, "timeseries_url", "catalog_url", gatherer=name)
        read_urls = values.read(GathererLogins, "timeseries_read_url", "catalog_read_url", gatherer=name)
        service = f"{_GATHERER}{name}"
        for kind in _GATHERER_DATABASES:
            holds = service if kind == "timeseries" else ""
            found.append(ConfiguredDatabase(f"{name} {kind}", urls.get(f"{kind}_url", ""), kind, holds))
            found.append(ConfiguredDatabase(f"{name} {kind}, read", read_urls.get(f"{kind}_read_url", ""), kind))
    production = values.read(DeduplicatorSettings, "production_url").get("production_url", "")
    found.append(ConfiguredDatabase("production", production, "production", _DEDUPLICATOR))
    dagster = values.read(DeploymentSettings, "dagster_database_url").get("dagster_database_url", "")
    found.append(ConfiguredDatabase("dagster", dagster, "dagster"))
    return [each for each in found if each.url]


def load_lake(environ: Mapping[str, str] | None = None) -> LakeSettings:
    """Load the settings of the lake. Raises ConfigurationError."""
    return _load(environ, _lake)


def load_retention(environ: Mapping[str, str] | None = None) -> RetentionSettings:
    """Load what goes from which database, and after how many days. Raises ConfigurationError."""
    return _load(environ, _retention)


def load_iceberg(environ: Mapping[str, str] | None = None) -> IcebergSettings:
    """Load which table catalog the lake is registered in. Raises ConfigurationError."""
    return _load(environ, _iceberg)


def load_bounds(environ: Mapping[str, str] | None = None) -> PartitionBounds:
    """Load which exchange times are believable. Raises ConfigurationError."""
    return _load(environ, lambda values: values.fill(PartitionBounds))


def load_platform(environ: Mapping[str, str] | None = None) -> PlatformSettings:
    """Load all settings. Raises one ConfigurationError for everything that is wrong in any room."""
    return _load(environ, _platform)


def check_before_start(given: Mapping[str, str], *, exchange_is_ours: bool) -> None:
    """Check every setting of a local stack before anything starts. Raises one ConfigurationError.

    A database that may be reached without TLS across a network is logged.

    What the stack supplies itself (databases and lake that are not given; with `exchange_is_ours` the exchange, too)
    is taken as good. Variables that are given are checked as they stand.
    """
    supplied = {"KALSHI_PRODUCTION_DATABASE_URL": _LOCAL_DATABASE, "KALSHI_LAKE_ROOT": "file:///local"}
    for name in gatherer_names(given):
        supplied |= {timeseries_variable(name): _LOCAL_DATABASE, catalog_variable(name): _LOCAL_DATABASE}
    values = Values(supplied | {name: value for name, value in given.items() if value.strip()})
    _role(values)
    values.fill(DeploymentSettings)
    values.fill(LogSettings)
    _exchange(values, *(("rest_share", "ca_file") if exchange_is_ours else ()))
    for name in values.gatherers:
        _gatherer(values, name)
    _deduplicator(values)
    _retention(values)
    values.fill(PartitionBounds)
    values.check()
    if found := unencrypted_databases(given):
        _log.warning("database_without_tls", settings=found, remedy=TLS_REMEDY)


def unencrypted_databases(environ: Mapping[str, str] | None = None) -> list[str]:
    """Return the settings whose database may be reached in plain text across a network without saying that it shall.

    `storage.urls.TLS_REMEDY` is what to do.
    """
    given = environment() if environ is None else environ
    return [
        name for name, url in sorted(given.items())
        if name.startswith(("KALSHI_", "DAGSTER_")) and name.endswith("DATABASE_URL") and url.strip()
        and may_be_unencrypted(url, given.get("PGSSLMODE", ""))
    ]  # fmt: skip


def timeseries_variable(gatherer: str) -> str:
    """Return the variable that holds a gatherer's timeseries URL."""
    return declared_settings(GathererSettings)["timeseries_url"].name.format(GATHERER=gatherer.upper())


def catalog_variable(gatherer: str) -> str:
    """Return the variable that holds a gatherer's catalog URL."""
    return declared_settings(GathererSettings)["catalog_url"].name.format(GATHERER=gatherer.upper())


def metrics_port(service: str, base: int, names: tuple[str, ...]) -> int:
    """Return the port of a service's metrics: the base for `deduplicator`, the next ones for the gatherers in order."""
    return 0 if base == 0 else base if service == "deduplicator" else base + 1 + names.index(service)


def _load(environ: Mapping[str, str] | None, build: Callable[[Values], Loaded]) -> Loaded:
    values = Values(environ)
    loaded = build(values)
    values.check()
    return loaded


def _role(values: Values) -> Role:
    text, names = values.fill(DeploymentSettings, "role").role, values.gatherers
    kind, _, name = text.partition(":")
    if kind in ("all", "platform") and not name:
        return Role(kind)
    if kind == "gatherer" and name in names:
        return Role(kind, name)
    roles = ", ".join(f"gatherer:{each}" for each in names)
    values.add_problem(f"KALSHI_ROLE is {text!r}: set it to all, platform or one of {roles}")
    return Role()


def _partitions_start(values: Values) -> datetime:
    return hour_of(values.fill(DeploymentSettings, "partitions_start").partitions_start)


def _archives_frames(values: Values) -> bool:
    has_lake = bool(values.text(declared_settings(LakeSettings)["root"].name))
    return bool(values.read(GathererSettings, "archive_frames").get("archive_frames", has_lake))


def _state_dir(values: Values) -> Path:
    return values.fill(DeploymentSettings, "state_dir").state_dir.absolute()


def _exchange(values: Values, *only: str) -> ExchangeSettings:
    # The gatherers of one stack share a key unless a share is set, so they split its budget.
    settings = values.fill(ExchangeSettings, *only, rest_share=1.0 / len(values.gatherers))
    return replace(settings, rest_url=settings.rest_url.rstrip("/"))


def _gatherer(values: Values, name: str) -> GathererSettings:
    # What two connections record both must hold the margins of two claims, with some frames between them.
    margin = values.read(DeduplicatorSettings, "max_out_of_orderness_us")
    margin_s = margin.get("max_out_of_orderness_us", DeduplicatorSettings.max_out_of_orderness_us) / 1e6
    overlap_s = max(GathererSettings.handover_overlap_s, 2 * margin_s + 2)
    return values.fill(
        GathererSettings,
        gatherer=name,
        name=name,
        state_dir=_state_dir(values),
        market_filter=values.fill(MarketFilter, gatherer=name),
        handover_overlap_s=overlap_s,
        handover_patience_s=max(GathererSettings.handover_patience_s, 2 * overlap_s),
        stagger_s=_STAGGER_S * values.gatherers.index(name),
        endpoint=_endpoint(values, name),
        alerts=_alerts(values),
        archive_frames=_archives_frames(values),
        timeseries_setting=timeseries_variable(name),
        catalog_setting=catalog_variable(name),
    )


def _source(values: Values, name: str) -> GathererSource:
    return GathererSource(name, *(_gatherer_url(values, name, which, "read") for which in _GATHERER_DATABASES))


def _gatherer_url(values: Values, name: str, which: str, login: str) -> str:
    """Return the address of one of a gatherer's databases for a login: that of the gatherer itself by default."""
    own = values.read(GathererLogins, f"{which}_{login}_url", gatherer=name)
    return str(next(iter((own or values.read(GathererSettings, f"{which}_url", gatherer=name)).values()), ""))


def _owned_databases(values: Values) -> list[OwnedDatabase]:
    production = values.read(ProductionLogins) or values.read(DeduplicatorSettings, "production_url")
    found = [OwnedDatabase("production", "production", str(next(iter(production.values()), "")))]
    for name in values.gatherers:
        found += [
            OwnedDatabase(f"{name} {which}", which, _gatherer_url(values, name, which, "owner"))
            for which in _GATHERER_DATABASES
        ]
    return found


def _endpoint(values: Values, service: str) -> EndpointSettings:
    settings = values.fill(EndpointSettings)
    highest = 65_535 - len(values.gatherers)
    if settings.port > highest:
        values.add_problem(
            f"KALSHI_METRICS_PORT is {settings.port}: set it to a whole number from 0 to {highest}, the gatherers have"
            " the next ones"
        )
    return replace(settings, port=metrics_port(service, settings.port, values.gatherers))


def _alerts(values: Values) -> AlertSettings:
    settings = values.fill(AlertSettings, folder=_state_dir(values))
    return replace(settings, **values.read(ExchangeSettings, "ca_file")) if settings.webhook_url else settings


def _deduplicator(values: Values) -> DeduplicatorSettings:
    return values.fill(
        DeduplicatorSettings,
        sources=tuple(_source(values, name) for name in values.gatherers),
        endpoint=_endpoint(values, "deduplicator"),
        alerts=_alerts(values),
    )


def _retention(values: Values) -> RetentionSettings:
    sources = (_source(values, name) for name in values.gatherers)
    settings = values.fill(
        RetentionSettings,
        production_url=str(values.read(DeduplicatorSettings, "production_url").get("production_url", "")),
        gatherers=tuple(GathererDatabase(source.name, source.timeseries_url, source.catalog_url) for source in sources),
        lake=_lake(values),
    )
    if 0 < settings.dagster_days < FEWEST_DAGSTER_DAYS:
        values.add_problem(
            f"KALSHI_RETENTION_DAGSTER_DAYS is {settings.dagster_days:g}: set it to 0 (for ever) or to at least"
            f" {FEWEST_DAGSTER_DAYS}, Dagster's schedules look at the last week"
        )
    return settings


def _lake(values: Values) -> LakeSettings:
    settings = values.fill(LakeSettings, *(name for name in declared_settings(LakeSettings) if name != "ca_file"))
    if not values.text("KALSHI_LAKE_ROOT").startswith("s3://"):
        return settings
    endpoint = urlsplit(settings.endpoint_url or "")
    if endpoint.scheme == "http" and not is_loopback(endpoint.hostname) and not settings.allow_http:
        values.add_problem(
            f"KALSHI_S3_ENDPOINT_URL is http://{endpoint.hostname}: what is stored would cross the network in plain"
            " text; set it to an https:// address, or set KALSHI_S3_ALLOW_HTTP to yes where the network is private"
        )
    own = values.read(LakeSettings, "ca_file")
    shared = (
        {} if values.text(declared_settings(LakeSettings)["ca_file"].name) else values.read(ExchangeSettings, "ca_file")
    )
    return replace(settings, **(shared | own))


def _iceberg(values: Values) -> IcebergSettings:
    settings = values.fill(IcebergSettings)
    if not settings.catalog_uri:
        return replace(settings, **values.read(DeduplicatorSettings, "production_url"))
    if not settings.catalog_uri.startswith(("http://", "https://", "sqlite:///", "postgresql://", "postgres://")):
        values.add_problem(
            "KALSHI_ICEBERG_CATALOG_URI names no catalog: set it to https://… (REST), postgresql://… or sqlite:////file"
        )
    return settings


def _platform(values: Values) -> PlatformSettings:
    _role(values)
    _partitions_start(values)
    values.fill(LogSettings)
    return PlatformSettings(
        exchange=_exchange(values),
        gatherers={name: _gatherer(values, name) for name in values.gatherers},
        deduplicator=_deduplicator(values),
        lake=_lake(values),
        bounds=values.fill(PartitionBounds),
    )
