"""Turns the declaration of a setting into the pydantic type that checks and converts its text.

A validator refuses a text with `_refused`, whose problems continue a sentence that begins with the variable's name, and
which never hold a secret.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, FiniteFloat
from pydantic_core import PydanticCustomError
from pydantic_settings import NoDecode

from kalshi_platform.errors import ConfigurationError
from kalshi_platform.exchange.signing import Signer
from kalshi_platform.market.parts import MarketPart
from kalshi_platform.setting import Kind, Setting
from kalshi_platform.storage.urls import libpq_url

REFUSED = "refused"
"""The type of error that carries finished problems in `ctx["problems"]`."""

_GATHERER_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
_LAKE_ROOT = re.compile(r"file:///.+|s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?")
_DATABASE_REMEDY = "postgresql://user:password@host:port/database (kalshi-platform up makes its own)"
_LAKE_REMEDY = "file:///path/of/a/folder or s3://bucket/prefix"
_PART_REMEDY = "i/n, such as 1/4, with i from 1 to n and n at most 64"
_MOST_PARTS = 64
_REMEDIES: dict[Kind, str] = {
    "database_url": _DATABASE_REMEDY, "lake_root": _LAKE_REMEDY, "market_part": _PART_REMEDY,
}  # fmt: skip
_LABELS: dict[Kind, str] = {
    "gatherers": "names, comma-separated",
    "http_url": "http(s) address",
    "ws_url": "ws(s) address",
    "database_url": "PostgreSQL URL",
    "ca_file": "path of a PEM file",
    "key_file": "path of a PEM file",
    "lake_root": "`file:///folder` or `s3://bucket/prefix`",
    "market_part": "`i/n`, n up to 64",
}


def value_type(hint: Any, setting: Setting) -> Any:
    """Return the pydantic type for a field of the type `hint`."""
    match setting.kind:
        case "plain":
            return _plain_type(without_none(hint), setting)
        case "gatherers":
            return Annotated[tuple[str, ...], NoDecode, BeforeValidator(_gatherer_names)]
        case "http_url":
            return Annotated[str, AfterValidator(partial(_address, ("https", "http"), setting.remedy))]
        case "ws_url":
            return Annotated[str, AfterValidator(partial(_address, ("wss", "ws"), setting.remedy))]
        case "database_url":
            return Annotated[str, AfterValidator(_database_url)]
        case "ca_file":
            return Annotated[Path, BeforeValidator(_ca_file)]
        case "key_file":
            return Annotated[bytes, BeforeValidator(_key_file)]
        case "lake_root":
            return Annotated[str, AfterValidator(_lake_root)]
        case "market_part":
            return Annotated[MarketPart, NoDecode, BeforeValidator(_market_part)]


def remedy(hint: Any, setting: Setting) -> str:
    """Say what the variable may be set to."""
    if setting.remedy or setting.kind in _REMEDIES:
        return setting.remedy or _REMEDIES[setting.kind]
    base = without_none(hint)
    if base is bool:
        return "yes or no"
    if get_origin(base) is Literal:
        return " or ".join(get_args(base))
    if base is datetime:
        return "a date such as 2026-01-01"
    if is_number(base):
        number = "a whole number" if _is_whole(base, setting) else "a number"
        low = "" if setting.low is None else f" from {setting.low:.15g}"
        high = "" if setting.high is None else f" to {setting.high:.15g}"
        return f"{number}{low}{high}"
    return "another value"


def type_label(hint: Any, setting: Setting) -> str:
    """Name the type for the documentation, in Markdown."""
    if setting.kind in _LABELS:
        return _LABELS[setting.kind]
    base = without_none(hint)
    if get_origin(base) is Literal:
        return ", ".join(f"`{each}`" for each in get_args(base))
    if is_number(base):
        return "whole number" if _is_whole(base, setting) else "number"
    names = {bool: "`yes` or `no`", datetime: "time (RFC 3339)", Path: "path of a folder"}
    return "list, comma-separated" if get_origin(base) is tuple else names.get(base, "text")


def without_none(hint: Any) -> Any:
    """Return T for `T | None`, everything else as it is."""
    kept = [each for each in get_args(hint) if each is not NoneType]
    return kept[0] if NoneType in get_args(hint) else hint


def is_number(base: Any) -> bool:
    """Whether a field of this type is filled with a number and a scale."""
    return base in (int, float, timedelta)


def words(text: str) -> tuple[str, ...]:
    """Split a comma-separated list; empty words are left out."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def usable_gatherer_names(text: str) -> tuple[str, ...]:
    """Return the names of a list that can be used, each once."""
    return tuple(dict.fromkeys(word for word in words(text) if _GATHERER_NAME.fullmatch(word)))


def _is_whole(base: Any, setting: Setting) -> bool:
    return base is int and setting.scale == 1


def _plain_type(base: Any, setting: Setting) -> Any:
    if is_number(base):
        bounds = Field(ge=setting.low, le=setting.high)
        if _is_whole(base, setting):
            return Annotated[int, BeforeValidator(_number), bounds]
        return Annotated[FiniteFloat, bounds, AfterValidator(_scaled(base, setting))]
    if get_origin(base) is Literal:
        return Annotated[base, BeforeValidator(str.lower)]
    if get_origin(base) is tuple:
        return Annotated[tuple[str, ...], NoDecode, BeforeValidator(words)]
    if base is datetime:
        return Annotated[datetime, BeforeValidator(_moment)]
    if base is Path:
        return Annotated[Path, AfterValidator(Path.absolute)]
    return base


def _scaled(base: Any, setting: Setting) -> Callable[[float], Any]:
    def convert(number: float) -> Any:
        value = number * setting.scale
        return round(value) if base is int and not isinstance(value, timedelta) else value

    return convert


def _number(text: str) -> float:
    return float(text)  # 1e4 is a whole number, too


def _moment(text: str) -> datetime:
    value = datetime.fromisoformat(text)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _refused(*problems: str) -> PydanticCustomError:
    return PydanticCustomError(REFUSED, "refused", {"problems": problems})


def _gatherer_names(text: str) -> tuple[str, ...]:
    names = words(text)
    rule = "use a small letter, then small letters, digits or _ (31 at most)"
    problems = [f" names {name!r}: {rule}" for name in names if not _GATHERER_NAME.fullmatch(name)]
    if len(set(names)) != len(names):
        problems.append(" names a gatherer twice")
    if problems:
        raise _refused(*problems)
    return names


def _address(schemes: tuple[str, ...], wanted: str, value: str) -> str:
    try:
        parts = urlsplit(value)
        _ = parts.port
        usable = parts.scheme in schemes and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable:
        raise _refused(f" is not a usable address: set it to {wanted}")
    if "?" in value or "#" in value:  # what follows them would be cut off, or moved behind every path
        raise _refused(" holds a ? or #, which no address here has: write ? as %3F and # as %23 in a path")
    return value


def _database_url(value: str) -> str:
    try:
        return libpq_url(value)
    except ConfigurationError as error:
        raise _refused(*(f": {problem}" for problem in error.problems)) from None


def _ca_file(text: str) -> Path:
    try:
        path = Path(text).expanduser()
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        problem = "which holds no certificate"
    except (OSError, RuntimeError, ValueError) as error:  # no such home, a zero byte in the name
        problem = f"which cannot be read: {getattr(error, 'strerror', None) or error}"
    else:
        return path.absolute()
    raise _refused(f" names {text}, {problem}; set it to a PEM file of certificate authorities, or unset it")


def _key_file(text: str) -> bytes:
    try:
        pem = Path(text).expanduser().read_bytes()
    except (OSError, RuntimeError, ValueError) as error:  # no such home, a zero byte in the name
        raise _refused(f" names {text}, which cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        Signer("checked apart", pem)
    except ConfigurationError as error:
        raise _refused(*(f" names {text}: {problem}" for problem in error.problems)) from None
    return pem


def _lake_root(value: str) -> str:
    if not _LAKE_ROOT.fullmatch(value):
        raise _refused(f" is not a lake: set it to {_LAKE_REMEDY}")
    return value


def _market_part(text: str) -> MarketPart:
    try:
        part = MarketPart.parse(text)
    except ValueError:
        part = MarketPart(0, 0)
    if not 1 <= part.total <= _MOST_PARTS:
        raise _refused(f" is {text!r}: set it to {_PART_REMEDY}")
    return part
