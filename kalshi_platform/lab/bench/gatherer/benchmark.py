"""`bench gatherer`: socket → committed rows, beside the naive way.

First at full speed, the two in turns: rate, CPU and memory. Then the platform alone at given rates: how long a record
is in memory only. Every run has databases of its own on one server, and counts at its end what is stored.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kalshi_platform.clock import Clock
from kalshi_platform.lab.bench.gatherer.capture import make_capture
from kalshi_platform.lab.bench.gatherer.measured_run import NAIVE, PLATFORM, Run, run
from kalshi_platform.lab.bench.gatherer.stages import stage_costs
from kalshi_platform.lab.bench.result import machine, rounded, table
from kalshi_platform.lab.bench.stack import SERVER, BenchStack

# Slow consumers make the naive run long; its rate does not depend on how much it is sent.
_NAIVE_SHARE = 4
_RECORDED_RATE = 20_000.0


@dataclass(frozen=True, kw_only=True)
class GathererBench:
    """`messages` at full speed in each of `rounds`; `seconds` at each of `rates` (messages a second)."""

    folder: Path
    messages: int = 400_000
    rounds: int = 3
    markets: int = 500
    seconds: float = 20.0
    rates: tuple[int, ...] = (2_000, 20_000)


def bench_gatherer(options: GathererBench, say: Callable[[str], None], clock: Clock) -> dict[str, Any]:
    """Run it; return the findings, with what was lost under `lost` (empty when all is well)."""
    with BenchStack(options.folder, clock) as stack:
        naive_messages = max(1, options.messages // _NAIVE_SHARE)
        say(f"recording a venue of {options.markets} markets: {options.messages:,} messages")
        start_us = clock.now_ns() // 1_000

        def capture(name: str, messages: int, rate: float) -> Any:
            return make_capture(
                options.folder / f"{name}.jsonl", markets=options.markets, messages=messages, rate=rate,
                start_us=start_us,
            )  # fmt: skip

        full = capture("full", options.messages, _RECORDED_RATE)
        short = capture("short", naive_messages, _RECORDED_RATE)
        runs: dict[str, list[Run]] = {PLATFORM: [], NAIVE: []}
        for number in range(1, options.rounds + 1):
            for who, stream in ((PLATFORM, full), (NAIVE, short)):
                found = run(stack, who, f"{who}_{number}", stream, "max")
                runs[who].append(found)
                say(f"round {number} of {options.rounds}, {who}: {_told(found)}")
        paced: dict[int, Run] = {}
        for rate in options.rates:
            stream = capture(f"rate_{rate}", max(1, round(rate * options.seconds)), float(rate))
            paced[rate] = run(stack, PLATFORM, f"rate_{rate}", stream, "1")
            say(f"{rate:,} messages/s: {_told(paced[rate])}")
        say("stage by stage, one thread")
        stages = stage_costs(full, stack.database("stages", "timeseries"), clock)
    return _findings(options, runs, paced, stages)


def shown(findings: Mapping[str, Any]) -> str:
    """The findings as tables for people."""
    head = ("", "msg/s", "ratio", "p50 ms", "p99 ms", "client µs", "server µs", "source µs", "peak MiB")
    rows: list[tuple[object, ...]] = []
    for who, ratio in ((NAIVE, 1.0), (PLATFORM, findings["ratio"])):
        full = findings["full_speed"][who]
        cpu = full["cpu_us"]
        rows.append(
            (
                f"{who}, full speed", full["rate_per_s"], ratio, full["p50_ms"], full["p99_ms"], cpu["process"],
                cpu["server"], cpu["exchange"], full["peak_rss_mib"],
            )
        )  # fmt: skip
    for rate, each in findings["latency"].items():
        cpu = each["cpu_us"]
        rows.append(
            (
                f"{PLATFORM}, {int(rate):,}/s offered", each["rate_per_s"], None, each["p50_ms"], each["p99_ms"],
                cpu["process"], cpu["server"], cpu["exchange"], each["peak_rss_mib"],
            )
        )  # fmt: skip
    threads = [
        (name.removeprefix("thread "), value)
        for name, value in findings["full_speed"][PLATFORM]["cpu_us"].items()
        if name.startswith("thread ") and value is not None and value >= 0.05
    ]
    stages = [(name, cost["cpu_us"], cost["wall_us"]) for name, cost in findings["stages"].items()]
    return "\n\n".join(
        (
            table(head, rows),
            table(("threads of the platform's process, full speed, start included", "CPU µs/msg"), threads),
            table(("stages, one after the other", "client CPU µs/msg", "wall µs/msg"), stages),
        )
    )


def _findings(
    options: GathererBench,
    runs: Mapping[str, Sequence[Run]],
    paced: Mapping[int, Run],
    stages: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    ours, naive = (_median(runs[who]) for who in (PLATFORM, NAIVE))
    everything = [*runs[PLATFORM], *runs[NAIVE], *paced.values()]
    first = next(iter(paced.values()), None)
    rate, naive_rate = ours["rate_per_s"], naive["rate_per_s"]
    return {
        "benchmark": "gatherer",
        "rate_per_s": rate,
        "naive_rate_per_s": naive_rate,
        "ratio": rounded(rate / naive_rate, 2) if naive_rate else 0.0,
        "p50_ms": None if first is None else rounded(first.p50_ms),
        "p99_ms": None if first is None else rounded(first.p99_ms),
        "peak_rss_mib": rounded(max(each.peak_rss_mib for each in (*runs[PLATFORM], *paced.values()))),
        "sent": sum(each.messages for each in everything),
        "lost": [f"{each.who}: {what}" for each in everything for what in each.lost],
        "full_speed": {PLATFORM: ours, NAIVE: naive},
        "latency": {str(offered): _described(each) for offered, each in paced.items()},
        "stages": stages,
        "rounds": [_described(each) for who in (PLATFORM, NAIVE) for each in runs[who]],
        "messages": options.messages,
        "markets": options.markets,
        "machine": machine(),
        "database": list(SERVER.options()),
    }


def _median(runs: Sequence[Run]) -> dict[str, Any]:
    """Each figure's median over the rounds; the largest memory."""
    described = [_described(each) for each in runs]
    names = ("messages", "rate_per_s", "p50_ms", "p99_ms", "max_ms", "commits")
    content: dict[str, Any] = {name: statistics.median(each[name] for each in described) for name in names}
    cpus = [each["cpu_us"] for each in described]
    cpu = {}
    for name in cpus[0]:
        known = [each[name] for each in cpus if each.get(name) is not None]
        cpu[name] = rounded(statistics.median(known), 2) if known else None
    return {**content, "peak_rss_mib": max(each["peak_rss_mib"] for each in described), "cpu_us": cpu}


def _described(one: Run) -> dict[str, Any]:
    return {
        "who": one.who,
        "messages": one.messages,
        "committed": one.committed,
        "rate_per_s": rounded(one.rate_per_s, 0),
        "p50_ms": rounded(one.p50_ms),
        "p99_ms": rounded(one.p99_ms),
        "max_ms": rounded(one.max_ms),
        "commits": one.commits,
        "peak_rss_mib": rounded(one.peak_rss_mib),
        "cpu_us": {name: rounded(value, 2) for name, value in one.cpu_us.items()},
        "lost": list(one.lost),
    }


def _told(one: Run) -> str:
    if one.lost:
        return "LOST: " + "; ".join(one.lost)
    cpu = one.cpu_us["process"]
    return (
        f"{one.rate_per_s:,.0f} messages/s committed, receive to commit p50 {one.p50_ms:.0f} ms,"
        f" p99 {one.p99_ms:.0f} ms, worst {one.max_ms:.0f} ms"
        + ("" if cpu is None else f", {cpu:.1f} µs of CPU a message")
    )
