"""Long-running runs rotate one after the other, and a gatherer only while another one records."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kalshi_platform import config
from kalshi_platform.errors import ConfigurationError
from kalshi_platform.gatherer.status.status import GathererStatus
from kalshi_platform.monitoring.heartbeat import Heartbeat, write_file
from kalshi_platform.orchestration.jobs.rotation import (
    another_gatherer_is_recording,
    gatherer_timing,
    merge_timing,
    seconds_to_slot,
)
from kalshi_platform.orchestration.services import load_gatherer_service
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.keys import key_file

NOW = datetime(2026, 11, 20, 9, 17, tzinfo=UTC)
NAMES = ("g1", "g2", "g3")
MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize("hour", range(24))
def test_services_started_together_rotate_hours_apart_and_at_other_minutes(hour: int) -> None:
    now = NOW.replace(hour=hour)
    moments = [now + timedelta(seconds=seconds_to_slot(now, index, 4)) for index in range(4)]
    assert all(timedelta(hours=12) <= moment - now <= timedelta(hours=36) for moment in moments)
    of_the_day = sorted(timedelta(hours=moment.hour, minutes=moment.minute) for moment in moments)
    assert all(later - earlier >= timedelta(hours=1) for earlier, later in itertools.pairwise(of_the_day))
    assert len({moment.minute for moment in moments}) == 4


def test_a_service_started_again_keeps_its_minute_of_the_day() -> None:
    starts = [NOW, NOW + timedelta(days=3, minutes=7), NOW + timedelta(days=40, hours=5)]
    moments = {(start + timedelta(seconds=seconds_to_slot(start, 1, 4))).time() for start in starts}
    assert len(moments) == 1


def test_all_runs_of_the_platform_have_different_rotation_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KALSHI_GATHERERS", ",".join(NAMES))
    clock = FakeClock(NOW)
    timings = [*(gatherer_timing(name, NAMES, clock) for name in NAMES), merge_timing(clock)]
    assert len({timing.rotate_after_s for timing in timings}) == 4


@pytest.fixture
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three configured gatherers whose databases are away: they are heard of by their files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KALSHI_GATHERERS", ",".join(NAMES))
    monkeypatch.setenv("KALSHI_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("KALSHI_API_KEY_ID", "a-key")
    monkeypatch.setenv("KALSHI_PRIVATE_KEY_PATH", str(key_file(tmp_path)))
    for name in NAMES:
        monkeypatch.setenv(config.timeseries_variable(name), "postgresql://u@127.0.0.1:1/t")
        monkeypatch.setenv(config.catalog_variable(name), "postgresql://u@127.0.0.1:1/c")
    return tmp_path / "state"


@pytest.mark.parametrize(
    ("who", "state", "age", "expected"),
    [
        ("g2", "running", 5, True),
        ("g3", "running", 44, True),
        ("g2", "running", 120, False),
        ("g2", "waiting_for_exchange", 5, False),
        ("g2", "stopped", 5, False),
        ("g1", "running", 5, False),
    ],
)
def test_a_gatherer_rotates_only_while_another_one_records(
    state_dir: Path, who: str, state: str, age: int, expected: bool
) -> None:
    at = NOW - timedelta(seconds=age)
    assert all(load_gatherer_service(name) for name in NAMES), "all are configured"
    write_file(state_dir / who / "heartbeat.json", Heartbeat(f"gatherer/{who}", at, at, state, GathererStatus()))
    assert another_gatherer_is_recording("g1", NAMES, FakeClock(NOW)) is expected


def test_the_only_gatherer_is_never_rotated(state_dir: Path) -> None:
    assert another_gatherer_is_recording("g1", ("g1",), FakeClock(NOW)) is False


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [
        ("1/2", {"g2": "2/2"}, False),
        ("1/2", {"g2": "1/2"}, True),
        ("1/1", {"g2": "1/2"}, False),
        ("1/1", {"g2": "1/2", "g3": "2/2"}, True),
        ("2/4", {"g2": "2/2"}, True),
        ("2/4", {"g2": "1/2", "g3": "1/1"}, True),
    ],
)
def test_a_gatherer_of_a_shard_rotates_only_while_others_record_all_its_markets(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, own: str, others: dict[str, str], expected: bool
) -> None:
    monkeypatch.setenv("KALSHI_G1_MARKET_SHARD", own)
    for name, shard in others.items():
        beat = Heartbeat(f"gatherer/{name}", NOW, NOW, "running", GathererStatus(market_shard=shard))
        write_file(state_dir / name / "heartbeat.json", beat)
    assert another_gatherer_is_recording("g1", NAMES, FakeClock(NOW)) is expected


def test_whether_others_record_is_not_known_without_their_databases(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(config.timeseries_variable("g2"))
    with pytest.raises(ConfigurationError, match="g2 is not configured here"):
        another_gatherer_is_recording("g1", NAMES, FakeClock(NOW))
    write_file(state_dir / "g3" / "heartbeat.json", Heartbeat("gatherer/g3", NOW, NOW, "running", GathererStatus()))
    assert another_gatherer_is_recording("g1", NAMES, FakeClock(NOW))


def test_shard_of_a_gatherer_on_another_host_is_the_one_of_its_heartbeat(state_dir: Path) -> None:
    for name in ("g1", "g2"):
        beat = Heartbeat(f"gatherer/{name}", NOW, NOW, "running", GathererStatus(market_shard="1/2"))
        write_file(state_dir / name / "heartbeat.json", beat)
    assert another_gatherer_is_recording("g1", NAMES, FakeClock(NOW))
