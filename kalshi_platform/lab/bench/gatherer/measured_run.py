"""One run of one gatherer: exchange → sockets → recording process → committed rows; and what is read off it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kalshi_platform.errors import ExchangeUnavailable
from kalshi_platform.lab.bench import host
from kalshi_platform.lab.bench.gatherer import gatherer_host, naive_gatherer
from kalshi_platform.lab.bench.gatherer.capture import Capture
from kalshi_platform.lab.bench.host import HostResult, HostSpec
from kalshi_platform.lab.bench.measure import cpu_s, per_message_us, weighted_quantiles
from kalshi_platform.lab.bench.stack import BenchStack
from kalshi_platform.lab.simulator_client import SimulatorClient
from kalshi_platform.local.simulator_process import SimulatorAddresses
from kalshi_platform.storage.pool import Database, Transaction

PLATFORM, NAIVE = "platform", "naive"
_MODULES = {PLATFORM: gatherer_host.__name__, NAIVE: naive_gatherer.__name__}
_START_S = 120.0
_PATIENCE_S = 30.0
"""So long nothing more is committed: then what is missing is lost."""
_NUMBERED = frozenset({"orderbook_delta", "trade"})
_COMMITTED = "SELECT batch_no, (extract(epoch FROM received_at) * 1e6)::bigint, count(*) FROM {} GROUP BY 1, 2"
_ALL_RECEIVED = """
SELECT range_agg(int8range(seq_from, seq_to, '[]')) = int8multirange(int8range(1, %(last)s, '[]'))
FROM stream_segments JOIN streams USING (stream_id) WHERE channel = %(channel)s
"""


@dataclass(frozen=True)
class Run:
    """What one run gave.

    Latencies: from the socket read that brought a record to the return of the commit that stored it, over all records.
    CPU in µs per message; None where the machine does not tell.
    """

    who: str
    messages: int
    committed: int
    rate_per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    commits: int
    peak_rss_mib: float
    cpu_us: Mapping[str, float | None]
    lost: tuple[str, ...]


def run(stack: BenchStack, who: str, label: str, capture: Capture, speed: str) -> Run:
    """Send `capture` at `speed` (a multiple of the recorded pace, or `max`) to one gatherer with new databases."""
    url = stack.database(f"{label}_timeseries", "timeseries")
    catalog_url = stack.database(f"{label}_catalog", "catalog")
    database = Database(url, name=label)
    folder = stack.folder / label
    try:
        with database.transaction() as transaction:
            transaction.execute("CHECKPOINT")
        addresses = stack.replay(capture.path, speed)
        try:
            spec = HostSpec(
                folder=str(folder),
                rest_url=addresses.rest_url,
                ws_url=addresses.ws_url,
                key_id=addresses.key_id,
                key_file=addresses.key_file,
                timeseries_url=url,
                catalog_url=catalog_url,
                tickers=capture.tickers,
            )
            pid = stack.start(label, _MODULES[who], str(spec.write()))
            used, last_seqs = _watch(stack, label, capture, addresses, folder, pid)
        finally:
            stack.group.stop("exchange")
        return _read_off(database, who, capture, HostResult.read(folder), used, last_seqs)
    finally:
        database.dispose()


def _watch(
    stack: BenchStack, label: str, capture: Capture, addresses: SimulatorAddresses, folder: Path, pid: int
) -> tuple[dict[str, float | None], dict[str, int]]:
    """Wait until everything is committed, or nothing more is; stop the child; return CPU used and last numbers sent."""

    def used() -> dict[str, float | None]:
        return {
            "process": cpu_s([pid]),
            "server": cpu_s(stack.server_pids(), with_collected=True),
            "exchange": cpu_s([addresses.pid]),
        }

    venue = SimulatorClient(addresses.control_url)
    before = used()

    def started() -> bool:
        nonlocal before
        now = used()
        if venue.state()["replay"]["started"]:
            return True
        before = now
        return not stack.is_running(label)

    stack.wait(started, _START_S, interval_s=0.02)
    if not stack.is_running(label):
        raise ExchangeUnavailable(f"the measured process {label} ended at once:\n{stack.log_of(label)}")
    best, seen_at = -1, 0.0
    now_s: Callable[[], float] = stack.monotonic

    def done() -> bool:
        nonlocal best, seen_at
        rows = host.progress(folder)
        if all(rows.get(table, 0) >= count for table, count in capture.rows.items()) or not stack.is_running(label):
            return True
        total = sum(rows.values())
        if total > best or not venue.state()["replay"]["finished"]:
            best, seen_at = total, now_s()
        return now_s() - seen_at > _PATIENCE_S

    stack.wait(done, float("inf"), interval_s=0.1)
    after = used()
    last_seqs = {
        each["channel"]: int(each["seq"])
        for connection in venue.state()["connections"]
        for each in connection["subscriptions"]
        if each["channel"] in _NUMBERED
    }
    stack.group.stop(label)
    spent = {name: _difference(before[name], after[name]) for name in before}
    return spent, last_seqs


def _read_off(
    database: Database,
    who: str,
    capture: Capture,
    result: HostResult,
    used: Mapping[str, float | None],
    last_seqs: Mapping[str, int],
) -> Run:
    with database.transaction() as transaction:
        lost = losses(transaction, capture.rows, last_seqs)
        groups = {table: transaction.fetch_all(_COMMITTED.format(table)) for table in capture.rows}
    found = np.array([row for rows in groups.values() for row in rows], dtype=np.int64).reshape(-1, 3)
    committed_us = np.array([result.commits.get(int(number), 0) // 1_000 for number in found[:, 0]], dtype=np.int64)
    p50, p99, most = weighted_quantiles((committed_us - found[:, 1]) / 1_000, found[:, 2], (0.5, 0.99, 1.0))
    span_s = (int(committed_us.max()) - int(found[:, 1].min())) / 1e6 if len(found) else 0.0
    threads = {f"thread {name}": per_message_us(cpu, capture.messages) for name, cpu in result.threads_cpu_s.items()}
    return Run(
        who=who,
        messages=capture.messages,
        committed=int(found[:, 2].sum()),
        rate_per_s=capture.messages / span_s if span_s > 0 and not lost else 0.0,
        p50_ms=p50,
        p99_ms=p99,
        max_ms=most,
        commits=len(set(found[:, 0].tolist())),
        peak_rss_mib=result.peak_rss_mib,
        cpu_us={**{name: per_message_us(cpu, capture.messages) for name, cpu in used.items()}, **threads},
        lost=tuple(lost),
    )


def losses(transaction: Transaction, rows: Mapping[str, int], last_seqs: Mapping[str, int]) -> list[str]:
    """Return what is missing; empty when all is there.

    Of `rows` (by table), and of the ledger's claim that every number up to the last one sent on a channel was received.
    """
    lost = []
    for table, count in rows.items():
        counted = transaction.fetch_one(f"SELECT count(*) FROM {table}")  # noqa: S608 - our own names
        stored = 0 if counted is None else int(counted[0])
        if stored != count:
            lost.append(f"{table}: {count:,} rows were sent, {stored:,} are committed")
    for channel, last in last_seqs.items():
        row = transaction.fetch_one(_ALL_RECEIVED, {"channel": channel, "last": last})
        if row is None or not row[0]:
            lost.append(f"the ledger does not say that all {last:,} frames of {channel} were received")
    return lost


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before
