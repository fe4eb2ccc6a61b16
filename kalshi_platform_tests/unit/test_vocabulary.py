"""Identifiers use the terms of docs/glossary.md: names that a standard term has replaced do not come back.

Left: a replaced name, as an identifier of the rooms named by the heading. Right: the term that is used.
"""

from __future__ import annotations

import io
import keyword
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import kalshi_platform

PACKAGE = Path(kalshi_platform.__file__).parent
TESTS = Path(__file__).parents[1]

REPLACED: dict[str, dict[str, str]] = {
    "": {
        "Burial": "DeadLetterSink",
        "bury": "add to the dead letters, or write_tombstone",
        "Outbox": "SessionOutput",
        "SnapshotWaits": "PendingSnapshots",
        "HeldFrames": "UnacknowledgedFrames",
        "end_memberships": "end_book_subscriptions",
        "membership": "book subscription",
        "memberships": "book_subscriptions",
        "after_cap": "schedule",
        "row_of": "to_record",
        "pump": "flush_pending",
        "want_books": "subscribe",
        "unwant_books": "unsubscribe",
        "may_follow": "accepts_snapshot",
        "ask_what_is_open": "list_subscriptions",
        "salvage": "parse_partial",
        "Remains": "PartialFrame",
        "Deframer": "FrameDecoder",
        "reaction_to": "action_for",
        "ScaleWatch": "PriceScaleMonitor",
        "SeenDates": "ServerClock",
        "take_due": "pop_ready",
        "HistoryReads": "HistoricalEndpoints",
        "error_of": "error_from_response",
        "member_of": "get_field",
        "Pulse": "StatusReporter",
        "Fleet": "ConnectionPool",
        "HandshakeTurns": "ConnectThrottle",
        "RotationClock": "RotationSchedule",
        "Shards": "ShardAssignment",
        "run_while_wanted": "run_while_enabled",
        "CatalogKeeper": "CatalogSyncLoop",
        "CatalogFollower": "CatalogPoller",
        "MarketFetcher": "MarketRefresher",
        "_unburied": "_pending_tombstones",
        "_bury": "_write_tombstone",
        "hurry": "request_sync",
        "_owed": "_full_sync_pending",
        "to_confirm": "due_for_refresh",
        "put_when_room": "put_blocking",
        "put_feed": "on_feed_batch",
        "watch_feed": "start_overlap_tracking",
        "_apply_wishes": "_apply_desired_state",
        "_hand_out": "_distribute",
        "_heed_refusals": "_process_refusals",
        "_untold": "_pending_slots",
        "bury_the_ended": "reap_closed",
        "_room_beside": "_room_elsewhere",
        "Committer": "BatchWriter",
        "divert": "split_out_of_range",
        "declare_lost": "record_spool_corruption",
        "_put_aside": "_quarantine",
        "witness": "observer",
        "witnesses": "observers",
        "first_witness": "first_observer",
        "Judgement": "Verification",
        "judgement": "verification",
        "condemned": "failed",
        "sums_of_books": "book_hashes",
        "summed_up": "running_sums",
        "Settled": "a checkpoint's location",
        "derived_anchors": "hour_end_checkpoints",
        "hour_proof": "verify_hour",
        "proof_books": "check_books",
        "proof_runs": "check_snapshots",
        "_numbers_anew": "_was_renumbered",
        "Arrivals": "RowsByHour",
        "MISSED_FOR": "RETRY_MISSING_GATHERER_FOR",
        "anchor": "checkpoint",
        "anchors": "checkpoints",
        "anchor_ts": "checkpoint_ts",
        "orderbook_anchors": "book_checkpoints",
        "desired_services": "service_switches",
        "Testimony": "ProbeResult",
        "Witnesses": "LivenessProbe",
        "heard_of": "latest_heartbeats",
        "attentive_since": "supervising_since",
        "farewell_s": "final_heartbeat_grace_s",
        "being_made": "in_progress",
        "another_records": "another_gatherer_is_recording",
        "strays": "orphans",
        "guardian": "orphan_reaper",
        "GatheringStack": "RecordingStack",
        "last_words": "log_tail",
        "Lease": "AdvisoryLock",
        "LeaseHeld": "LockHeld",
        "LakeHole": "MissingPartition",
        "NaturalTable": "ComparableTable",
        "Excess": "OverDeclared",
        "Walked": "ComparedAll",
        "objections": "failures",
        "strangers": "out_of_range, unexpected",
        "stranger": "out_of_range, unexpected",
        "wish": "pending refresh, desired state",
        "wishes": "pending refreshes, desired state",
    },
    "exchange": {
        "Answers": "ResponseHandler",
        "Received": "SessionOutput",
        "mute": "unresponsive",
        "Verdict": "SequenceStatus",
        "judge": "classify",
        "took": "advance",
        "Streams": "StreamRegistry",
        "Retries": "RetryQueue",
        "Reaction": "ErrorAction",
        "suspects": "out_of_sync, auth_failure_hints",
        "queries": "request_params",
        "Reads": "PublicEndpoints",
        "left_out": "on_skipped (counts: left_out of AnswerFaults)",
    },
    "gatherer": {
        "Figures": "status",
        "Slot": "ConnectionSlot",
        "Lags": "LatencyHistogram",
        "Rates": "RateMeter",
        "Traffic": "ChannelCounters",
        "Clocks": "ClockSkewMonitor",
        "Threads": "ThreadGroup",
        "Line": "ConnectionView",
        "begun": "resubscribed",
        "retire": "close_after_handover",
        "renew": "resubscribe",
        "restore": "resubscribe_missing",
        "alarmed": "on_alarm",
        "_dated": "_clamp_time",
        "Fill": "SpoolUsage",
    },
    "deduplicator": {
        "thin": "deduplicate",
        "rounds": "insert_rounds",
        "judge": "verify_claims",
        "CLAIM": "a named constant of claims",
        "steps_back": "time_regressions",
        "settle": "locate",
        "Readers": "ParallelReader",
        "Reading": "PendingRead",
        "Pass": "ReadPlan",
        "NewRows": "ReadResult",
        "unsettled": "may_grow",
        "twins": "gatherers of one database",
    },
    "orchestration": {
        "Facts": "ServiceState",
        "Act": "ActionKind",
        "Step": "Action",
        "Rules": "Policy",
        "carry_out": "apply",
        "Memory": "SensorCursor",
        "answer": "evaluate_or_skip",
        "lacking": "missing_partitions",
        "host": "run_service",
    },
    "local": {
        "Family": "ProcessTree",
        "families": "process_tree",
        "give": "chown",
        "Venue": "SimulatorClient",
        "Finished": "FinalExport",
    },
    "storage": {"Switch": "ServiceSwitch", "texts": "strip_nul", "translated": "translate_error"},
    "lake": {"in_order": "external_sort", "Hole": "MissingPartition"},
    "monitoring": {"repeats": "log_rate_limit"},
    "lab/proof": {"Ran": "RunRecord", "walk": "compare_all", "missed": "lost_rows", "windows": "fault_windows"},
}


@cache
def identifiers(path: Path) -> frozenset[str]:
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
    return frozenset(
        each.string for each in tokens if each.type == tokenize.NAME and not keyword.iskeyword(each.string)
    )


def modules_of(room: str) -> Iterator[Path]:
    yield from (PACKAGE / room).rglob("*.py")
    if not room:
        yield from (path for path in TESTS.rglob("*.py") if path.name != "test_readme.py")


@pytest.mark.parametrize("room", REPLACED)
def test_identifiers_of_a_room_use_the_terms_of_the_glossary(room: str) -> None:
    found = [
        f"{path.relative_to(TESTS.parent) if path.is_relative_to(TESTS.parent) else path}: {name} → {term}"
        for path in modules_of(room)
        for name, term in REPLACED[room].items()
        if name in identifiers(path) or path.stem == name
    ]
    assert not found, "\n".join(found)
