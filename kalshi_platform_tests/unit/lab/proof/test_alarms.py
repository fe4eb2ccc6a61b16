"""Whether every alarm came that a fault should raise, and whether one came of something that was not done."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import kalshi_platform
from kalshi_platform.lab.proof.faults.expected_alarms import ALARMS, Alarm, Sighting, missing, unexpected
from kalshi_platform.lab.proof.faults.schedule import GROUND
from kalshi_platform.lab.proof.kinds import InjectedFault

AT = datetime(2026, 11, 30, tzinfo=UTC)
BACK = InjectedFault("failed_over", "g2", AT, 1_000)
LEDGER = Alarm("failed_over", "ledger fell back", "(log|health) (gather-)?{g}", "fell back")
ALL = Alarm("poison_ticker", "refused", "health {g}", "refused", of_each=True)
NAMES = ("g1", "g2")


def test_an_alarm_of_the_right_service_after_the_fault_is_enough() -> None:
    seen = [Sighting("health g2", "the ledger fell back to batch 7", 1_000)]
    assert missing([BACK], seen, NAMES, [LEDGER, ALL]) == []
    assert unexpected([BACK], seen, NAMES, [LEDGER, ALL]) == []


def test_an_alarm_that_does_not_come_or_comes_before_or_of_another_is_missed() -> None:
    word = "fault failed over g2: alarm 'ledger fell back' did not come"
    for seen in (
        [],
        [Sighting("log gather-g2", "the ledger fell back", 999)],
        [Sighting("log gather-g1", "the ledger fell back", 2_000)],
        [Sighting("log gather-g2", "all is well", 2_000)],
    ):
        assert missing([BACK], seen, NAMES, [LEDGER]) == [word]


def test_a_fault_of_all_gatherers_must_be_reported_by_each() -> None:
    poison = InjectedFault("poison_ticker", None, AT, 0)
    seen = [Sighting("health g1", "2 tickers refused", 5)]
    assert missing([poison], seen, NAMES, [ALL]) == ["fault poison ticker: alarm 'refused' of g2 did not come"]


def test_what_may_come_is_not_missed_and_is_known_when_it_comes() -> None:
    may = Alarm("failed_over", "away", "log gather-{g}", "away", must=False)
    assert missing([BACK], [], NAMES, [may]) == []
    away = Alarm("server_killed", "away", "log gather-{g}", "away")
    assert unexpected([BACK], [Sighting("log gather-g2", "away", 5)], NAMES, [away, may]) == []


def test_an_alarm_of_something_that_was_not_done_is_reported_once() -> None:
    seen = [Sighting("log gather-g1", "the ledger fell back", 5), Sighting("log gather-g1", "the ledger fell back", 6)]
    assert unexpected([], seen, NAMES, [LEDGER]) == ["ledger fell back (log gather-g1: the ledger fell back)"]
    # Another kind that raises the same was done: nobody can tell them apart.
    other = Alarm("restored_from_copy", "ledger fell back", LEDGER.where, LEDGER.text)
    restored = InjectedFault("restored_from_copy", "g1", AT, 0)
    assert unexpected([restored], seen, NAMES, [LEDGER, other]) == []


def test_every_alarm_is_of_a_kind_that_is_injected() -> None:
    assert {alarm.kind for alarm in ALARMS} <= {kind for kind, _ in GROUND}


def test_alarms_of_log_lines_name_events_that_the_code_logs() -> None:
    package = Path(kalshi_platform.__file__).parent
    sources = "".join(
        path.read_text(encoding="utf-8")
        for path in package.rglob("*.py")
        if path.relative_to(package).parts[0] != "lab"
    )
    events = {each for alarm in ALARMS for each in alarm.text.split("|") if re.fullmatch("[a-z]+(_[a-z]+)+", each)}
    assert {"cursor_batch_gone", "database_went_back", "dead_letters_counted"} <= events
    assert {event for event in events if f'"{event}"' not in sources} == set()
    texts = [alarm.text for alarm in ALARMS if alarm.where.startswith("log ")]
    assert all(re.search("[a-z]+(_[a-z]+)+", text) or text == "another" for text in texts), texts
