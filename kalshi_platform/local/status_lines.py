"""The details of a gatherer's heartbeat in a few lines for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def gatherer_lines(details: Mapping[str, Any]) -> list[str]:
    """What it follows, how fast, how late; then what is wrong, each with a `!`. Details may be of an older version."""
    lines = []
    if details.get("wanted") is not None:
        lines.append(_following(details))
    if details.get("writer"):
        lines.append(_writing(details["writer"]))
    if details.get("process"):
        lines.append(_using(details["process"], details.get("books") or {}))
    if details.get("note") and not details.get("reasons"):
        lines.append(str(details["note"]))
    return [*lines, *wrong_lines(details)]


def wrong_lines(details: Mapping[str, Any]) -> list[str]:
    """What is wrong with a service, a line each."""
    return [f"! {text}" for text in (*(details.get("reasons") or ()), *(details.get("troubles") or ()))]


def byte_text(count: float | None) -> str:
    """A size for people."""
    if count is None:
        return "?"
    step = 0
    while count >= 1024 and step < len(_UNITS) - 1:
        count, step = count / 1024, step + 1
    return f"{count:.0f} {_UNITS[step]}" if step == 0 or count >= 10 else f"{count:.1f} {_UNITS[step]}"


def _following(details: Mapping[str, Any]) -> str:
    suspects = f", {details['suspects']:,} wait for a snapshot" if details.get("suspects") else ""
    rates = {name: each["per_s"] for name, each in (details.get("channels") or {}).items() if each["per_s"]}
    shown = ", ".join(f"{name} {rate:,.0f}" for name, rate in sorted(rates.items(), key=lambda each: -each[1]))
    messages = f"; {sum(rates.values()):,.0f} messages/s ({shown})" if rates else ""
    connections = (details.get("connections") or {}).values()
    gaps = sum(each["gaps"] for each in connections)
    reconnects = sum(each["reconnects"] for each in connections)
    ledger = details.get("ledger") or {}
    in_ledger = f" ({ledger['subscriptions']:,} in the ledger)" if ledger.get("subscriptions") is not None else ""
    return (
        f"follows {details['followed']:,} of {details['wanted']:,} books{in_ledger}{suspects}{messages};"
        f" gaps {gaps:,}, reconnects {reconnects:,}"
    )


def _writing(writer: Mapping[str, Any]) -> str:
    rows = f"{writer['rows_per_s']:,.0f} rows/s" if writer.get("rows_per_s") is not None else "rows/s not known yet"
    lag = "" if writer.get("lag_p99_ms") is None else (
        f", receipt to commit {writer['lag_p50_ms']:,.0f} ms (p99 {writer['lag_p99_ms']:,.0f},"
        f" most {writer.get('lag_max_ms') or 0:,.0f})"
    )  # fmt: skip
    limit = writer.get("spool_limit_bytes")
    spool = byte_text(writer["spool_bytes"]) + (f" of {byte_text(limit)}" if limit else "")
    return f"{rows}{lag}; {writer['queued']:,} records in memory, spool {spool}"


def _using(process: Mapping[str, Any], books: Mapping[str, Any]) -> str:
    used = (
        f"{byte_text(process['rss_bytes'])} of memory, {process['threads']} threads, {process['open_files']} open files"
    )
    oldest = books.get("oldest_age_s")
    if oldest is None:
        return used
    skipped = f", {books['skipped']:,} not asked" if books.get("skipped") else ""
    return f"{used}; oldest REST book {oldest:.0f} s{skipped}"
