"""The only reader of the environment: variables (and `.env` in the working folder) → frozen settings per room.

Every loader reports all wrong and missing settings in one ConfigurationError. Nothing is read at import. A loader that
is given `environ` reads that mapping and nothing else; without it, the process's environment wins over `.env`.
"""

from __future__ import annotations

import io
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

from dotenv import dotenv_values

import kalshi_platform
from kalshi_platform.deduplicator.settings import DeduplicatorSettings, GathererSource
from kalshi_platform.errors import ConfigurationError
from kalshi_platform.exchange.protocol.dead_letter_limit import DEAD_LETTERS_PER_MINUTE
from kalshi_platform.exchange.settings import PRODUCTION_REST_URL, PRODUCTION_WS_URL, ExchangeSettings
from kalshi_platform.exchange.signing import Signer
from kalshi_platform.gatherer.settings import GathererSettings, MarketFilter
from kalshi_platform.lake.settings import LakeSettings
from kalshi_platform.market.times import hour_of
from kalshi_platform.monitoring.settings import EndpointSettings, LogFormat, LogLevel, LogSettings
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform.storage.urls import libpq_url, sqlalchemy_url

DEFAULT_GATHERERS = ("g1", "g2", "g3")
DEFAULT_PARTITIONS_START = datetime(2026, 1, 1, tzinfo=UTC)
# Gatherers reconnect this much apart, so that they do not drop out together.
_STAGGER_S = 0.7
# One answer for all clients: by themselves each looks at another of these.
_CA_VARIABLES = ("KALSHI_CA_FILE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "WEBSOCKET_CLIENT_CA_BUNDLE")
_GATHERER_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")


@dataclass(frozen=True)
class Role:
    """What a code location serves: everything, one gatherer (`gatherer` is its name), or all but the gatherers."""

    kind: str = "all"
    gatherer: str | None = None

    def serves_gatherer(self, name: str) -> bool:
        return self.kind == "all" or self.gatherer == name

    def serves_platform(self) -> bool:
        return self.kind in ("all", "platform")


@dataclass(frozen=True)
class PlatformSettings:
    """Everything, for processes that host several rooms."""

    exchange: ExchangeSettings
    gatherers: Mapping[str, GathererSettings]
    deduplicator: DeduplicatorSettings
    lake: LakeSettings
    bounds: PartitionBounds


def environment() -> dict[str, str]:
    """The process's environment over the values of `.env` in the working folder. Raises ConfigurationError."""
    return environment_with(env_file_text(Path.cwd() / ".env"))


def process_environment() -> dict[str, str]:
    """The process's environment alone, for the children of this process."""
    return dict(os.environ)


def environment_with(env_text: str) -> dict[str, str]:
    """The process's environment over the values of `env_text`, which has the form of a `.env` file."""
    from_text = {key: value for key, value in dotenv_values(stream=io.StringIO(env_text)).items() if value is not None}
    return {**from_text, **os.environ}


def env_file_text(path: Path) -> str:
    """The text of a `.env` file as it stands, line ends included; empty without one. Raises ConfigurationError."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return ""
    except OSError as error:
        is_folder = isinstance(error, IsADirectoryError)
        remedy = "give the folder another name" if is_folder else "make it readable for this user, or remove it"
        raise ConfigurationError(
            [f"{path} cannot be read as a file of settings ({error.strerror}): {remedy}"]
        ) from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(
            [f"{path}, line {line} is not UTF-8 (byte 0x{raw[error.start]:02x}): save the file in UTF-8"]
        ) from error


class _Reader:
    """Reads values, remembers every problem, and raises them together."""

    def __init__(self, environ: Mapping[str, str] | None) -> None:
        self._values = environment() if environ is None else environ
        self._problems: list[str] = []

    def text(self, name: str, default: str | None = None, *, wanted: str = "") -> str:
        value = self._values.get(name, "").strip()
        if value:
            return value
        if default is None:
            self._problems.append(f"{name} is missing: set it to {wanted}")
            return ""
        return default

    def optional(self, name: str) -> str | None:
        return self._values.get(name, "").strip() or None

    def number(self, name: str, default: float, *, low: float, high: float) -> float:
        text = self.optional(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            self.problem(f"{name} is {text!r}: set it to a number from {low:g} to {high:g}")
            return default
        if not low <= value <= high:
            self.problem(f"{name} is {text}: set it to a number from {low:g} to {high:g}")
            return default
        return value

    def whole(self, name: str, default: int, *, low: int, high: int) -> int:
        value = self.number(name, default, low=low, high=high)
        if value != int(value):
            self.problem(f"{name} is {value:g}: set it to a whole number from {low} to {high}")
            return default
        return int(value)

    def flag(self, name: str, default: str = "no") -> bool:
        text = (self.optional(name) or default).lower()
        if text not in ("yes", "no", "true", "false", "1", "0"):
            self.problem(f"{name} is {text!r}: set it to yes or no")
        return text in ("yes", "true", "1")

    def choice(self, name: str, default: str, allowed: tuple[str, ...]) -> Any:
        text = (self.optional(name) or default).lower()
        if text not in allowed:
            self.problem(f"{name} is {text!r}: set it to {' or '.join(allowed)}")
            return default
        return text

    def words(self, name: str) -> tuple[str, ...]:
        return tuple(word.strip() for word in (self.optional(name) or "").split(",") if word.strip())

    def url(self, name: str, default: str | None, schemes: tuple[str, ...], *, wanted: str) -> str:
        value = self.text(name, default, wanted=wanted)
        if value and not self._is_url(value, schemes):
            self.problem(f"{name} is not a usable address: set it to {wanted}")
        elif "?" in value or "#" in value:  # what follows them would be cut off, or moved behind every path
            self.problem(f"{name} holds a ? or #, which no address here has: write ? as %3F and # as %23 in a path")
        return value

    def database(self, name: str) -> str:
        value = self.text(
            name, wanted="postgresql://user:password@host:port/database (kalshi-platform up makes its own)"
        )
        if not value:
            return ""
        try:
            return libpq_url(value)
        except ConfigurationError as error:
            for problem in error.problems:
                self.problem(f"{name}: {problem}")
            return ""

    def moment(self, name: str, default: datetime) -> datetime:
        text = self.optional(name)
        if text is None:
            return default
        try:
            value = datetime.fromisoformat(text)
        except ValueError:
            self.problem(f"{name} is {text!r}: set it to a date such as 2026-01-01")
            return default
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    def problem(self, text: str) -> None:
        self._problems.append(text)

    def done(self) -> None:
        if self._problems:
            raise ConfigurationError(list(dict.fromkeys(self._problems)))

    @staticmethod
    def _is_url(value: str, schemes: tuple[str, ...]) -> bool:
        try:
            parts = urlsplit(value)
            _ = parts.port
        except ValueError:
            return False
        return parts.scheme in schemes and bool(parts.hostname)


def gatherer_names(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Names from KALSHI_GATHERERS, default g1,g2,g3. Never fails: names that cannot be used are left out here."""
    words = _Reader(environ).words("KALSHI_GATHERERS")
    if not words:
        return DEFAULT_GATHERERS
    return tuple(dict.fromkeys(word for word in words if _GATHERER_NAME.fullmatch(word)))


def deployment_file(name: str) -> Path:
    """`dagster.yaml` or `workspace.yaml`: of this installation, or of the checkout."""
    package = Path(kalshi_platform.__file__).parent
    inside = package / "deployment" / name
    return inside if inside.exists() else package.parent / name


def role(environ: Mapping[str, str] | None = None) -> Role:
    """KALSHI_ROLE: `all` (default), `platform`, or `gatherer:NAME`."""
    reader = _Reader(environ)
    value = _role(reader)
    reader.done()
    return value


def partitions_start(environ: Mapping[str, str] | None = None) -> datetime:
    """KALSHI_PARTITIONS_START: the first hour that Dagster offers as a partition."""
    reader = _Reader(environ)
    value = _partitions_start(reader)
    reader.done()
    return value


def state_dir(environ: Mapping[str, str] | None = None) -> Path:
    """KALSHI_STATE_DIR: spools, locks and heartbeat files of this host's services."""
    return Path(_Reader(environ).text("KALSHI_STATE_DIR", "data/state")).absolute()


def stop_limit_s(environ: Mapping[str, str] | None = None) -> float:
    """KALSHI_STOP_LIMIT_S: how long `up` waits at most for a service that writes what it holds before it ends."""
    reader = _Reader(environ)
    value = _stop_limit_s(reader)
    reader.done()
    return value


def load_exchange(environ: Mapping[str, str] | None = None) -> ExchangeSettings:
    """Settings of the Kalshi client. Raises ConfigurationError."""
    reader = _Reader(environ)
    settings = _exchange(reader)
    reader.done()
    return settings


def load_public_reads(environ: Mapping[str, str] | None = None) -> ExchangeSettings:
    """Settings of a client that reads public market data over REST, which needs no key. Raises ConfigurationError."""
    reader = _Reader(environ)
    settings = ExchangeSettings(rest_url=_rest_url(reader), rest_share=_rest_share(reader), ca_file=_ca_file(reader))
    reader.done()
    return settings


def load_gatherer(name: str, environ: Mapping[str, str] | None = None) -> GathererSettings:
    """Settings of one gatherer. Raises ConfigurationError, also for a name that is not in KALSHI_GATHERERS."""
    reader = _Reader(environ)
    names = _names(reader)
    if name not in names:
        reader.problem(f"gatherer {name!r} is not in KALSHI_GATHERERS, which names {', '.join(names)}")
        reader.done()
    settings = _gatherer(reader, name)
    reader.done()
    return settings


def load_deduplicator(environ: Mapping[str, str] | None = None) -> DeduplicatorSettings:
    """Settings of the merge. Raises ConfigurationError."""
    reader = _Reader(environ)
    settings = _deduplicator(reader)
    reader.done()
    return settings


def load_logs(environ: Mapping[str, str] | None = None) -> LogSettings:
    """How this process logs. Raises ConfigurationError."""
    reader = _Reader(environ)
    settings = _logs(reader)
    reader.done()
    return settings


def metrics_port(service: str, base: int, names: tuple[str, ...]) -> int:
    """The port of a service's metrics: the base for `deduplicator`, the next ones for the gatherers in their order."""
    return 0 if base == 0 else base if service == "deduplicator" else base + 1 + names.index(service)


def load_production_url(environ: Mapping[str, str] | None = None) -> str:
    """Where production is, for what needs nothing else. Raises ConfigurationError."""
    reader = _Reader(environ)
    url = reader.database("KALSHI_PRODUCTION_DATABASE_URL")
    reader.done()
    return url


def load_lake(environ: Mapping[str, str] | None = None) -> LakeSettings:
    """Settings of the lake. Raises ConfigurationError."""
    reader = _Reader(environ)
    settings = _lake(reader)
    reader.done()
    return settings


def load_bounds(environ: Mapping[str, str] | None = None) -> PartitionBounds:
    """Which exchange times are believable. Raises ConfigurationError."""
    reader = _Reader(environ)
    bounds = _bounds(reader)
    reader.done()
    return bounds


def load_platform(environ: Mapping[str, str] | None = None) -> PlatformSettings:
    """All settings at once. Raises one ConfigurationError for everything that is wrong in any room."""
    reader = _Reader(environ)
    _role(reader)
    _partitions_start(reader)
    _logs(reader)
    settings = PlatformSettings(
        exchange=_exchange(reader),
        gatherers={name: _gatherer(reader, name) for name in _names(reader)},
        deduplicator=_deduplicator(reader),
        lake=_lake(reader),
        bounds=_bounds(reader),
    )
    reader.done()
    return settings


def check_before_start(given: Mapping[str, str], *, exchange_is_ours: bool) -> None:
    """Check everything that a local stack will be told, before anything starts. Raises one ConfigurationError.

    What the stack supplies itself (databases and lake that are not given; with `exchange_is_ours` the exchange, too)
    is taken as good. Variables that are given are checked as they stand.
    """
    names = gatherer_names(given)
    variables = [variable(name) for name in names for variable in (timeseries_variable, catalog_variable)]
    supplied = dict.fromkeys([*variables, "KALSHI_PRODUCTION_DATABASE_URL"], "postgresql://local@127.0.0.1/local")
    supplied["KALSHI_LAKE_ROOT"] = "file:///local"
    known = {name: value for name, value in given.items() if value.strip()}
    environ = {**supplied, **known}
    reader = _Reader(environ)
    _role(reader)
    _partitions_start(reader)
    _logs(reader)
    _stop_limit_s(reader)
    if not exchange_is_ours:
        _exchange(reader)
    _rest_share(reader)
    _ca_file(reader)
    for name in _names(reader):
        _gatherer(reader, name)
    _deduplicator(reader)
    if known.get("DAGSTER_DATABASE_URL"):
        reader.database("DAGSTER_DATABASE_URL")
    _lake(reader)
    _bounds(reader)
    reader.done()


def timeseries_variable(gatherer: str) -> str:
    """The variable that holds a gatherer's timeseries URL."""
    return f"KALSHI_{gatherer.upper()}_TIMESERIES_DATABASE_URL"


def catalog_variable(gatherer: str) -> str:
    """The variable that holds a gatherer's catalog URL."""
    return f"KALSHI_{gatherer.upper()}_CATALOG_DATABASE_URL"


def _names(reader: _Reader) -> tuple[str, ...]:
    words = reader.words("KALSHI_GATHERERS")
    for word in words:
        if not _GATHERER_NAME.fullmatch(word):
            reader.problem(
                f"KALSHI_GATHERERS names {word!r}: use a small letter, then small letters, digits or _ (31 at most)"
            )
    if len(set(words)) != len(words):
        reader.problem("KALSHI_GATHERERS names a gatherer twice")
    usable = (word for word in words if _GATHERER_NAME.fullmatch(word))
    return tuple(dict.fromkeys(usable)) or DEFAULT_GATHERERS


def _role(reader: _Reader) -> Role:
    text = reader.optional("KALSHI_ROLE") or "all"
    kind, _, name = text.partition(":")
    names = _names(reader)
    if kind in ("all", "platform") and not name:
        return Role(kind)
    if kind == "gatherer" and name in names:
        return Role(kind, name)
    roles = ", ".join(f"gatherer:{each}" for each in names)
    reader.problem(f"KALSHI_ROLE is {text!r}: set it to all, platform or one of {roles}")
    return Role()


def _partitions_start(reader: _Reader) -> datetime:
    return hour_of(reader.moment("KALSHI_PARTITIONS_START", DEFAULT_PARTITIONS_START))


def _rest_share(reader: _Reader) -> float:
    # The gatherers of one stack share a key unless told otherwise, so they split its budget.
    return reader.number("KALSHI_REST_SHARE", 1.0 / len(_names(reader)), low=0.01, high=1.0)


def _exchange(reader: _Reader) -> ExchangeSettings:
    ws_url = reader.url(
        "KALSHI_WS_URL", PRODUCTION_WS_URL, ("wss", "ws"), wanted=f"an address such as {PRODUCTION_WS_URL}"
    )
    key_id = reader.text("KALSHI_API_KEY_ID", wanted="the id of an API key with read scope (the WebSocket needs one)")
    return ExchangeSettings(
        rest_url=_rest_url(reader),
        ws_url=ws_url,
        key_id=key_id,
        private_key_pem=_private_key(reader, key_id),
        rest_share=_rest_share(reader),
        ca_file=_ca_file(reader),
    )


def _ca_file(reader: _Reader, *first: str) -> Path | None:
    """The file of certificate authorities that every client trusts: of `first` and _CA_VARIABLES the first that is set.

    None: those of the system.
    """
    name = next((each for each in (*first, *_CA_VARIABLES) if reader.optional(each)), None)
    if name is None:
        return None
    text = reader.text(name, "")
    try:
        path = Path(text).expanduser()
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        problem = "which holds no certificate"
    except (OSError, RuntimeError, ValueError) as error:  # no such home, a zero byte in the name
        problem = f"which cannot be read: {getattr(error, 'strerror', None) or error}"
    else:
        return path.absolute()
    reader.problem(f"{name} names {text}, {problem}; set it to a PEM file of certificate authorities, or unset it")
    return None


def _rest_url(reader: _Reader) -> str:
    wanted = f"an address such as {PRODUCTION_REST_URL}"
    return reader.url("KALSHI_REST_URL", PRODUCTION_REST_URL, ("https", "http"), wanted=wanted).rstrip("/")


def _private_key(reader: _Reader, key_id: str) -> bytes:
    path_text = reader.text("KALSHI_PRIVATE_KEY_PATH", wanted="the path of that key's private half (a PEM file)")
    if not path_text:
        return b""
    try:
        pem = Path(path_text).expanduser().read_bytes()
    except (OSError, RuntimeError, ValueError) as error:  # no such home, a zero byte in the name
        why = getattr(error, "strerror", None) or error
        reader.problem(f"KALSHI_PRIVATE_KEY_PATH names {path_text}, which cannot be read: {why}")
        return b""
    try:
        Signer(key_id or "checked apart", pem)
    except ConfigurationError as error:
        for problem in error.problems:
            reader.problem(f"KALSHI_PRIVATE_KEY_PATH names {path_text}: {problem}")
    return pem


def _gatherer(reader: _Reader, name: str) -> GathererSettings:
    # What two connections record both must hold the margins of two claims, with some frames between them.
    overlap_s = max(GathererSettings.handover_overlap_s, 2 * _margin_s(reader) + 2)
    return GathererSettings(
        name=name,
        timeseries_url=reader.database(timeseries_variable(name)),
        catalog_url=reader.database(catalog_variable(name)),
        state_dir=Path(reader.text("KALSHI_STATE_DIR", "data/state")).absolute(),
        market_filter=MarketFilter(
            series=reader.words("KALSHI_SERIES"),
            categories=reader.words("KALSHI_CATEGORIES"),
            tickers=reader.words("KALSHI_TICKERS"),
            include_combos=reader.flag("KALSHI_COMBOS"),
        ),
        connections=reader.whole("KALSHI_BOOK_CONNECTIONS", 1, low=1, high=100),
        markets_per_connection=reader.whole("KALSHI_MARKETS_PER_CONNECTION", 10_000, low=1, high=500_000),
        rotate_connections_s=3600.0 * reader.number("KALSHI_ROTATE_HOURS", 12.0, low=0.0, high=24.0 * 365),
        handover_overlap_s=overlap_s,
        handover_patience_s=max(GathererSettings.handover_patience_s, 2 * overlap_s),
        spool_max_bytes=int(reader.number("KALSHI_SPOOL_MAX_GIB", 20, low=0.01, high=100_000) * 1024**3),
        spool_min_free_bytes=int(reader.number("KALSHI_SPOOL_MIN_FREE_GIB", 1, low=0, high=100_000) * 1024**3),
        dead_letters_per_minute=reader.whole(
            "KALSHI_DEAD_LETTERS_PER_MINUTE", DEAD_LETTERS_PER_MINUTE, low=1, high=10**6
        ),
        dead_letter_days=reader.number("KALSHI_DEAD_LETTER_DAYS", 30, low=1, high=36_600),
        stagger_s=_STAGGER_S * _names(reader).index(name),
        endpoint=_endpoint(reader, name),
        timeseries_setting=timeseries_variable(name),
        catalog_setting=catalog_variable(name),
    )


def _stop_limit_s(reader: _Reader) -> float:
    return reader.number("KALSHI_STOP_LIMIT_S", 180.0, low=15.0, high=3600.0)


def _endpoint(reader: _Reader, service: str) -> EndpointSettings:
    names = _names(reader)
    base = reader.whole("KALSHI_METRICS_PORT", 0, low=0, high=65_535 - len(names))
    host = reader.text("KALSHI_METRICS_HOST", EndpointSettings.host)
    return EndpointSettings(
        host=host, port=metrics_port(service, base, names), names=reader.words("KALSHI_METRICS_NAMES")
    )


def _logs(reader: _Reader) -> LogSettings:
    return LogSettings(
        format=reader.choice("KALSHI_LOG_FORMAT", "console", get_args(LogFormat)),
        level=reader.choice("KALSHI_LOG_LEVEL", "info", get_args(LogLevel)),
    )


def _deduplicator(reader: _Reader) -> DeduplicatorSettings:
    return DeduplicatorSettings(
        production_url=reader.database("KALSHI_PRODUCTION_DATABASE_URL"),
        sources=tuple(
            GathererSource(
                name=name,
                timeseries_url=reader.database(timeseries_variable(name)),
                catalog_url=reader.database(catalog_variable(name)),
            )
            for name in _names(reader)
        ),
        interval_s=reader.number("KALSHI_MERGE_INTERVAL_S", 5.0, low=0.1, high=3600.0),
        check_trades=reader.flag("KALSHI_CHECK_TRADES", "yes"),
        endpoint=_endpoint(reader, "deduplicator"),
        margin_us=_microseconds(_margin_s(reader)),
        least_agreement=reader.number("KALSHI_LEAST_AGREEMENT", 0.9, low=0.0, high=1.0),
        rest_age_us=_microseconds(reader.number("KALSHI_REST_AGE_S", 5.0, low=0.0, high=60.0)),
        clock_skew_us=_microseconds(reader.number("KALSHI_CLOCK_SKEW_S", 2.0, low=0.0, high=60.0)),
    )


def _margin_s(reader: _Reader) -> float:
    return reader.number("KALSHI_TIME_MARGIN_S", 1.0, low=0.001, high=60.0)


def _microseconds(seconds: float) -> int:
    return round(seconds * 1_000_000)


def _lake(reader: _Reader) -> LakeSettings:
    root = reader.text("KALSHI_LAKE_ROOT", wanted="file:///path/of/a/folder or s3://bucket/prefix")
    if root and not re.fullmatch(r"file:///.+|s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?", root):
        reader.problem("KALSHI_LAKE_ROOT is not a lake: set it to file:///path/of/a/folder or s3://bucket/prefix")
    endpoint_url = None
    if reader.optional("KALSHI_S3_ENDPOINT_URL"):
        endpoint_url = reader.url(
            "KALSHI_S3_ENDPOINT_URL", None, ("https", "http"), wanted="an address such as https://s3.example.com"
        )
    return LakeSettings(
        root=root,
        endpoint_url=endpoint_url,
        region=reader.optional("AWS_REGION") or reader.optional("AWS_DEFAULT_REGION") or "us-east-1",
        # Given here because the AWS client does not see what stands only in `.env`.
        access_key_id=reader.optional("AWS_ACCESS_KEY_ID"),
        secret_access_key=reader.optional("AWS_SECRET_ACCESS_KEY"),
        session_token=reader.optional("AWS_SESSION_TOKEN"),
        ca_file=_ca_file(reader, "AWS_CA_BUNDLE") if root.startswith("s3://") else None,
    )


def _bounds(reader: _Reader) -> PartitionBounds:
    default = PartitionBounds()
    return PartitionBounds(
        earliest=reader.moment("KALSHI_EARLIEST_TIME", default.earliest),
        ahead=timedelta(hours=reader.number("KALSHI_HOURS_AHEAD", 48, low=1, high=24 * 366)),
        behind=timedelta(hours=reader.number("KALSHI_HOURS_BEHIND", 48, low=1, high=24 * 366 * 100)),
    )


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
    """The variables that make every command, and `dagster dev`, use this stack."""
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
