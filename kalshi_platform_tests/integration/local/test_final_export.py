"""The end of `up` when something could not be done: its lines and its exit code."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kalshi_platform.cli.main import main
from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.config import PlatformSettings
from kalshi_platform.errors import StartFailed, Unfinished
from kalshi_platform.gatherer.status.status import GathererStatus, IngestStatus
from kalshi_platform.lake.settings import LakeSettings
from kalshi_platform.local import final_export, patience, run_up
from kalshi_platform.local.final_export import export_open, find_hours_merged_since, merge_remaining
from kalshi_platform.local.processes.ports import free_port
from kalshi_platform.local.processes.process_group import ChildExit
from kalshi_platform.local.stack import Stack, StackOptions, read_past
from kalshi_platform.market.times import US_PER_HOUR, datetime_from_us, us_from_datetime
from kalshi_platform.monitoring.heartbeat import Heartbeat, write_file
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform.storage.services import database_now
from kalshi_platform_tests.fixtures.hand_filled_gatherer import delta_row
from kalshi_platform_tests.fixtures.merge_world import MergeWorld


def settings_of(world: MergeWorld, lake: Path, *, away: str | None = None) -> PlatformSettings:
    """Settings of the parts that the end needs; `away`: a gatherer whose databases are not there."""
    merge = world.settings()
    nowhere = f"postgresql://u@127.0.0.1:{free_port()}/x"
    sources = tuple(
        replace(source, timeseries_url=nowhere, catalog_url=nowhere) if source.name == away else source
        for source in merge.sources
    )
    return PlatformSettings(
        exchange=None,  # type: ignore[arg-type]  # not asked at the end
        gatherers={},
        deduplicator=replace(merge, sources=sources),
        lake=LakeSettings(root=lake.as_uri()),
        bounds=PartitionBounds(),
    )


def test_what_could_not_be_merged_or_exported_is_named_and_the_rest_is_done(
    merge_world: Callable[..., MergeWorld], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(final_export, "RETRY_FOR_S", 0.0)
    world = merge_world(2)
    began = database_now(world.production) - timedelta(minutes=1)
    hour_us = us_from_datetime(SYSTEM_CLOCK.now()) // US_PER_HOUR * US_PER_HOUR - US_PER_HOUR
    world.gatherers["g1"].commit(orderbook_deltas=[delta_row("A", ts_us=hour_us + 1, seq=2)], segments=[(1, 1, 3)])
    settings = settings_of(world, tmp_path / "lake", away="g2")
    (remains,) = merge_remaining(settings, SYSTEM_CLOCK)
    assert remains.startswith("gatherer g2 could not be read (")
    hours = find_hours_merged_since(world.production, began, SYSTEM_CLOCK.now())
    assert hours == [datetime_from_us(hour_us)], "a merge that misses one gatherer is still a merge of the others"
    done = export_open(settings, hours, SYSTEM_CLOCK, print, threading.Event())
    assert done.exported_rows["orderbook_deltas"] == 1
    assert any("g2" in text for text in done.unfinished)
    (tmp_path / "no folder").write_text("a file stands where the lake should be")
    broken = replace(settings, lake=LakeSettings(root=(tmp_path / "no folder").as_uri()))
    done = export_open(broken, hours, SYSTEM_CLOCK, print, threading.Event())
    assert any("was not exported whole" in text for text in done.unfinished)


def test_what_waits_in_a_journal_and_a_gatherer_that_did_not_end_by_itself_are_left_behind(tmp_path: Path) -> None:
    stack = Stack(StackOptions(tmp_path / "data", headless=True, env_file=tmp_path / ".env"), print)
    state = tmp_path / "data" / "state"
    (state / "g1").mkdir(parents=True)
    now = SYSTEM_CLOCK.now()
    behind = GathererStatus(ingest=IngestStatus(behind_bytes=2048))
    write_file(state / "g1" / "heartbeat.json", Heartbeat("gatherer/g1", now, now, "stopped", behind))
    write_file(state / "g2" / "heartbeat.json", Heartbeat("gatherer/g2", now, now, "running", GathererStatus()))
    killed, behind_text = stack.find_remains()
    assert killed.startswith("gatherer g2 did not end by itself (its last state: running)")
    assert behind_text.startswith("gatherer g1: 2.0 KiB wait in its journal")


def test_an_ending_gatherer_with_a_new_heartbeat_changes_its_description(tmp_path: Path) -> None:
    stack = Stack(StackOptions(tmp_path / "data", headless=True, env_file=tmp_path / ".env"), print)
    file = tmp_path / "data" / "state" / "g1" / "heartbeat.json"
    assert stack.describe_remaining("g1") == ""
    now = SYSTEM_CLOCK.now()
    details = GathererStatus(note="waits for the last commit", ingest=IngestStatus(behind_bytes=2048, commits=7))
    write_file(file, Heartbeat("gatherer/g1", now, now, "stopping", details))
    first = stack.describe_remaining("g1")
    assert first.startswith("g1 waits for the last commit (heard of at ")
    assert first.endswith("2.0 KiB not in the database, 7 commits)")
    write_file(file, Heartbeat("gatherer/g1", now + timedelta(seconds=5), now, "stopping", details))
    assert stack.describe_remaining("g1") != first


def test_the_past_of_an_earlier_start_stays_the_first_hour(tmp_path: Path) -> None:
    file = tmp_path / "local.json"
    assert read_past(file) == (None, None)
    file.write_text('{"past_from": "2026-11-29T22:00:00+00:00", "caught_up_at": null}', encoding="utf-8")
    assert read_past(file) == (datetime(2026, 11, 29, 22, tzinfo=UTC), None)
    for broken in ("", "[]", '{"past_from": 7}', '{"past_from": "soon"}'):
        file.write_text(broken, encoding="utf-8")
        assert read_past(file) == (None, None)


class _SilentStack:
    """A stack whose Dagster never answers."""

    class _Group:
        log_dir = Path("logs")

    group = _Group()
    past = None

    def __init__(self, *ended: str) -> None:
        """`ended`: children that end, one each time that somebody looks."""
        self.ui_url = f"http://127.0.0.1:{free_port()}"
        self._ended = list(ended)

    def poll(self) -> list[ChildExit]:
        return [ChildExit(self._ended.pop(0), 1, 1, 1.0)] if self._ended else []

    def log_tail(self, name: str, lines_shown: int = 5) -> str:
        return f"{name} said these {lines_shown}"


def bring_up(stack: _SilentStack, folder: Path, said: list[str]) -> None:
    run_up._with_ui(StackOptions(folder), stack, threading.Event(), None, said.append, SYSTEM_CLOCK)  # type: ignore[arg-type]


def test_a_ui_that_does_not_come_is_waited_for_aloud_and_then_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_up, "UI_START_S", 0.6)
    monkeypatch.setattr(patience, "SAY_EVERY_S", 0.2)
    said: list[str] = []
    with pytest.raises(StartFailed, match=r"did not answer within 1 s: dagster-webserver said these 5"):
        bring_up(_SilentStack(), tmp_path, said)
    assert said[0].startswith("waiting for the Dagster UI, whose log ends with: dagster-code said these 1 (")


def test_a_dagster_that_ends_again_and_again_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match=r"dagster-code ended 3 times before the UI answered"):
        bring_up(
            _SilentStack("dagster-code", "gather-g1", "dagster-code", "dagster-webserver", "dagster-code"), tmp_path, []
        )


def test_unfinished_work_ends_up_with_exit_code_1_and_a_line_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unfinished(*_arguments: object) -> None:
        raise Unfinished(["frames wait in the journal", "g2 was not read"])

    monkeypatch.setattr(run_up, "run_up", unfinished)
    monkeypatch.setattr(sys, "argv", ["kalshi-platform", "up", "--headless"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        "kalshi-platform: not everything is done:\n  - frames wait in the journal\n  - g2 was not read\n"
    )
