"""A finished proof for people, as JSON, and as rows of the timeline. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kalshi_platform.lab.proof.examine import Findings
from kalshi_platform.lab.proof.faults import expected_alarms as alarms
from kalshi_platform.lab.proof.verdict import MOST_EXCESS_US, RunRecord
from kalshi_platform.market.intervals import Interval, union
from kalshi_platform.plots.timeline import Mark


def as_json(record: RunRecord, found: Findings, failures: Sequence[str]) -> dict[str, Any]:
    """The content of `--json`. Counts of rows; a table's missing, doubled and wrong are the worse of its two stores."""
    return {
        "proven": not failures,
        "failures": list(failures),
        "missing": sum(table.missing for table in found.tables),
        "doubled": sum(table.doubled for table in found.tables),
        "wrong": sum(table.wrong for table in found.tables),
        "published": record.published,
        "published_share": round(record.published_share, 4),
        "seconds": round(record.seconds, 1),
        "gatherers": list(record.gatherers),
        "rate": record.rate,
        "tables": {
            table.name: {
                "truth": table.truth,
                "production": table.production.found,
                "lake": None if table.lake is None else table.lake.found,
                "missing": table.missing,
                "doubled": table.doubled,
                "wrong": table.wrong,
            }
            for table in found.tables
        },
        "books": {
            "right": found.books.right,
            "wrong": len(found.books.wrong),
            "open": len(found.books.open),
            "lake_right": found.lake_books.right,
            "lake_wrong": len(found.lake_books.wrong),
        },
        "coverage": {
            "stated_s": round(found.coverage.stated_us / 1e6, 6),
            "beyond_s": round(found.coverage.beyond_us / 1e6, 6),
            "short_s": round(found.coverage.short_us / 1e6, 6),
        },
        "checkpoints": {
            "compared": found.checkpoints.compared,
            "wrong": len(found.checkpoints.wrong),
            "lake_compared": found.lake_checkpoints.compared,
            "lake_wrong": len(found.lake_checkpoints.wrong),
        },
        "holes": {
            "true": found.holes.true,
            "declared": found.holes.declared_count,
            "undeclared": found.holes.undeclared,
            "undeclared_messages": found.undeclared_messages,
            "unexplained": len(found.unexplained),
            "unexplained_of": {name: len(lost) for name, lost in found.unexplained_of.items()},
            "excess_hole_s": round(found.holes.worst_excess_us / 1e6, 6),
            "excess_total_s": round(found.holes.total_excess_us / 1e6, 3),
        },
        "merge_lost": found.merge_lost,
        "false_claims": {name: rows for name, (rows, _) in found.false_claims.items()},
        "sent": {
            "frames": found.sent.sent,
            "journaled": found.sent.journaled,
            "undelivered": found.sent.undelivered,
            "unread": found.sent.unread,
            "connections": len(found.sent.lines),
            "problems": len(found.sent.problems),
        },
        "rebuilt": {
            "rows": found.rebuilt.rows,
            "missing": sum(table.missing for table in found.rebuilt.tables),
            "extra": sum(table.extra for table in found.rebuilt.tables),
        },
        "proven_books": {"compared": found.told.compared, "wrong": len(found.told.wrong)},
        "unexpected_alarms": alarms.unexpected(record.faults, record.sightings, record.gatherers),
        "faults": [
            {
                "kind": fault.kind,
                "gatherer": fault.gatherer,
                "at": fault.at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "effect": fault.effect,
                "broken": list(fault.broken),
            }
            for fault in record.faults
        ],
    }


def as_text(record: RunRecord, found: Findings, failures: Sequence[str]) -> str:
    """What is printed at the end."""
    heads = ("table", "published", "production", "lake", "missing", "doubled", "wrong")
    rows = [
        (
            table.name,
            f"{table.truth:,}",
            f"{table.production.found:,}",
            "–" if table.lake is None else f"{table.lake.found:,}",
            f"{table.missing:,}",
            f"{table.doubled:,}",
            f"{table.wrong:,}",
        )
        for table in found.tables
    ]
    lines = ["", *_aligned([heads, *rows]), ""]
    lines.append(
        f"Published: {record.published:,} messages in {record.seconds:.0f} s,"
        f" {record.published_share:.1%} of the rate asked."
        " Stored rows may be more: what came before the run is not asked for."
    )
    books = found.books
    lines.append(
        f"Books at the end: {books.right:,} right, {len(books.wrong):,} wrong, {len(books.open):,} open in production;"
        f" {found.lake_books.right:,} right, {len(found.lake_books.wrong):,} wrong in the lake."
    )
    lines.append(
        f"Checkpoints: {found.checkpoints.compared:,} in production, {len(found.checkpoints.wrong):,} wrong;"
        f" {found.lake_checkpoints.compared:,} in the lake, {len(found.lake_checkpoints.wrong):,} wrong."
    )
    stated, beyond, short = (
        each / 1e6 for each in (found.coverage.stated_us, found.coverage.beyond_us, found.coverage.short_us)
    )
    lines.append(
        f"Coverage: {stated:,.0f} market-seconds stated by production, {beyond:.3f} of them claimed by no ledger,"
        f" {short:.3f} claimed by a ledger and not stated."
    )
    holes = found.holes
    lines.append(
        f"Holes: {holes.true:,} true ones (deltas of a market that nobody recorded), {holes.declared_count:,} declared"
        f" by production's coverage, {holes.undeclared:,} of the true ones undeclared."
    )
    if record.may_lose:
        lines.append(
            "Missing trades, tickers and lifecycle events have no holes by market in the ledger: they are judged by the"
            " faults' times and by when a connection lived."
        )
    lines.append(
        f"Declared without need: at most {holes.worst_excess_us / 1e6:.3f} s at one place of a market"
        f" ({MOST_EXCESS_US / 1e6:g} s are allowed)."
    )
    lines.append(
        f"Books called proven by production: {found.told.compared:,} asked for, {len(found.told.wrong):,} wrong."
        f" Deltas that a gatherer's ledger claims and its database lacks:"
        f" {sum(rows for rows, _ in found.false_claims.values()):,}."
    )
    sent = found.sent
    lines.append(
        f"Journals: {sent.journaled:,} of {sent.sent:,} frames that the exchange sent on {len(sent.lines):,}"
        f" connections, byte for byte in order; {sent.undelivered:,} were not delivered, {sent.unread:,} lay in sockets"
        " that a gatherer closed or died with."
    )
    lines += [f"  {line}" for line in _cut_short(found)]
    lines.append(
        f"Rebuilt from the journals: {found.rebuilt.rows:,} rows of gatherers, their ledgers and production;"
        f" {sum(each.missing for each in found.rebuilt.tables):,} missing,"
        f" {sum(each.extra for each in found.rebuilt.tables):,} other ones."
    )
    strange = alarms.unexpected(record.faults, record.sightings, record.gatherers)
    if strange:
        lines += ["Alarms of something that was not done:", *(f"  {each}" for each in strange)]
    if record.faults:
        lines.append("Faults:")
        faults = [(f"{fault.at:%H:%M:%S}", fault.name, fault.effect or "NO EFFECT OBSERVED") for fault in record.faults]
        lines += [f"  {line}" for line in _aligned(faults, right=False)]
    lines += ["", verdict_line(record, found, failures)]
    lines += [f"  - {failure}" for failure in failures]
    return "\n".join(lines)


def _cut_short(found: Findings) -> list[str]:
    """Return a line for each connection whose last frames are not in the journal."""
    return [
        f"{line.gatherer} {line.connection} (connection {line.number}, {line.ending}): {line.journaled:,} of"
        f" {line.sent:,}, {line.undelivered:,} not delivered, {line.unread:,} not read"
        for line in found.sent.lines
        if line.journaled < line.sent
    ]


def verdict_line(record: RunRecord, found: Findings, failures: Sequence[str]) -> str:
    """One line that says it all."""
    if failures:
        return f"NOT PROVEN, for {len(failures)} reason{'s' if len(failures) > 1 else ''}:"
    missing = sum(table.missing for table in found.tables)
    if missing:
        return (
            f"PROVEN: one gatherer, {len(record.faults)} faults: {missing:,} rows could not be recorded,"
            " all near faults; deltas in holes that the ledger names; nothing doubled, nothing wrong."
        )
    faults = f"{len(record.faults)} faults" if record.faults else "no faults"
    who = "one gatherer" if len(record.gatherers) == 1 else f"{len(record.gatherers)} gatherers"
    return f"PROVEN: {who}, {faults}: nothing missing, nothing doubled, nothing wrong."


def plot_title(record: RunRecord, found: Findings, failures: Sequence[str]) -> str:
    """The conclusion, for the figure."""
    line = verdict_line(record, found, failures).rstrip(":")
    return line if len(line) < 110 else line.replace(": nothing", ":\nnothing").replace(", each", ",\neach")


def marks(record: RunRecord) -> list[Mark]:
    """Faults as marks of the timeline."""
    return [Mark(fault.at_us, fault.kind.replace("_", " "), fault.gatherer) for fault in record.faults]


def hole_spans(record: RunRecord, found: Findings, margin_us: int) -> list[Interval]:
    """When at least one market's record is open, without the ends of the run."""
    start, end = record.run[0] + margin_us, record.run[1] - margin_us
    inside = union(each.hole for each in found.holes.excesses)
    return [(max(low, start), min(high, end)) for low, high in inside if low < end and high > start]


def _aligned(rows: Sequence[Sequence[str]], *, right: bool = True) -> list[str]:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if place == 0 or not right else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
