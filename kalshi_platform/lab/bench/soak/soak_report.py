"""A finished soak: what speaks against it, for people, as JSON, as a picture. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kalshi_platform.lab.bench.soak.flatness import Flatness, Sample, judged
from kalshi_platform.plots.soak import SoakPoint, soak
from kalshi_platform.plots.timeline import png

LEAST_PUBLISHED = 0.95
EXACT = ("trade",)
"""Kinds of which every published message reaches every gatherer. Deltas of a market that has just been made may be in
its first book already: of these the ledger is asked whether everything that was sent is committed. Tickers that equal
another of their millisecond are one row: they are told, not judged."""


@dataclass(frozen=True)
class SoakRun:
    """What was seen at `rate` messages per second.

    `published` by kind, when trading had stopped; `at_most`: when the gatherers had stopped, too; `committed`: gatherer
    → kind → rows. `missed`: gatherer → what its ledger lacks of what it was sent. `own_mib`: the watcher's own memory,
    before and after.
    """

    rate: float
    seconds: float
    samples: Mapping[str, Sequence[Sample]]
    published: Mapping[str, int]
    at_most: Mapping[str, int]
    committed: Mapping[str, Mapping[str, int]]
    missed: Mapping[str, Sequence[str]]
    peak_rss_mib: Mapping[str, float]
    own_mib: tuple[float, float]


def failures(ran: SoakRun, verdicts: Mapping[str, Flatness]) -> list[str]:
    """Return what grew or was lost; empty when nothing did. Pure."""
    said = [f"{name}: {each}" for name, verdict in verdicts.items() for each in verdict.failures]
    for name, committed in ran.committed.items():
        said += [
            f"{name}: {ran.published[kind]:,} messages of kind {kind} were published, {count:,} are committed"
            for kind, count in committed.items()
            if count > ran.at_most[kind] or (kind in EXACT and count < ran.published[kind])
        ]
        said += [f"{name}: {each}" for each in ran.missed[name]]
    share = sum(ran.published.values()) / (ran.rate * ran.seconds)
    if share < LEAST_PUBLISHED:
        said.append(f"only {share:.0%} of {ran.rate:g} messages/s were published; the machine is too slow")
    return said


def as_json(ran: SoakRun, verdicts: Mapping[str, Flatness], against: Sequence[str]) -> dict[str, Any]:
    """The content of `--json`. Pure."""
    published = sum(ran.published.values())
    gatherers = {
        name: {
            "memory_mib": _rounded(asdict(verdict.memory)),
            "peak_rss_mib": round(ran.peak_rss_mib[name], 1),
            "lag_p99_ms": _rounded(asdict(verdict.lag)),
            "lag_p50_ms": _lag_p50(ran, name),
            "threads": list(verdict.threads),
            "handles": list(verdict.handles),
            "markets": [each.followed for each in ran.samples[name][:: max(1, len(ran.samples[name]) - 1)]],
            "cpu_us_per_message": round(_cpu_us(ran.samples[name]) / (published / ran.seconds), 2)
            if published
            else 0.0,
            "committed": dict(ran.committed[name]),
        }
        for name, verdict in verdicts.items()
    }
    lags = [verdict.lag.median for verdict in verdicts.values()]
    return {
        "flat": not against,
        "failures": list(against),
        "seconds": round(ran.seconds, 1),
        "rate_per_s": round(published / ran.seconds, 1),
        "published": dict(ran.published),
        "p50_ms": max((_lag_p50(ran, name) for name in verdicts), default=0.0),
        "p99_ms": round(max(lags, default=0.0), 1),
        "peak_rss_mib": round(max(ran.peak_rss_mib.values(), default=0.0), 1),
        "watcher_mib": [round(each, 1) for each in ran.own_mib],
        "gatherers": gatherers,
        "samples": {name: [_rounded(asdict(each)) for each in samples] for name, samples in ran.samples.items()},
    }


def as_text(content: Mapping[str, Any]) -> str:
    """What is printed at the end."""
    lines = [""]
    for name, each in content["gatherers"].items():
        memory, lag = each["memory_mib"], each["lag_p99_ms"]
        threads, handles = ("{} → {}".format(*each[key]) for key in ("threads", "handles"))
        lines.append(
            f"{name}: memory {memory['median']:.0f} MiB (peak {each['peak_rss_mib']:.0f}), {memory['growth']:+.1f} MiB"
            f" in the time judged; lag p50 {each['lag_p50_ms']:.0f} ms, p99 {lag['median']:.0f} ms"
            f" ({lag['growth']:+.0f}); threads {threads}, handles {handles}; CPU {each['cpu_us_per_message']:.1f} µs"
            " per message"
        )
        kinds = ", ".join(
            f"{kind} {count:,} of {content['published'][kind]:,}" for kind, count in each["committed"].items()
        )
        lines.append(f"{name}: committed {kinds}")
    lines.append("")
    lines.append("FLAT: nothing grew, everything is committed." if content["flat"] else "NOT FLAT:")
    lines += [f"  - {each}" for each in content["failures"]]
    return "\n".join(lines)


def picture(ran: SoakRun, against: Sequence[str]) -> bytes:
    """Draw the run's series over time; `against` lists why it is not flat. Returns a PNG."""
    title = f"{ran.rate:,.0f} messages/s for {ran.seconds / 60:.0f} minutes: {'flat' if not against else 'NOT flat'}"
    series = {
        name: [
            SoakPoint(
                each.at_s, each.rss_mib, each.lag_p50_ms, each.lag_p99_ms, each.threads, each.handles,
                each.behind_mib,
            )
            for each in samples
        ]
        for name, samples in ran.samples.items()
    }  # fmt: skip
    rests = [judged(samples) for samples in ran.samples.values()]
    return png(soak(title, series, min((rest[0].at_s for rest in rests if rest), default=0.0)))


def _cpu_us(samples: Sequence[Sample]) -> float:
    """CPU microseconds per second over the time judged."""
    rest = judged(samples)
    if len(rest) < 2:
        return 0.0
    return 1e6 * (rest[-1].cpu_s - rest[0].cpu_s) / (rest[-1].at_s - rest[0].at_s)


def _lag_p50(ran: SoakRun, name: str) -> float:
    known = sorted(each.lag_p50_ms for each in judged(ran.samples[name]) if each.lag_p50_ms is not None)
    return round(known[len(known) // 2], 1) if known else 0.0


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in values.items()}
