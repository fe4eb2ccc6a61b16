"""What `rebuild` and `journal archive` say of an hour."""

from __future__ import annotations

from datetime import UTC, datetime

from kalshi_platform.archive.archive_frames import ArchivedHour
from kalshi_platform.archive.compare_rows import RebuiltTable
from kalshi_platform.archive.rebuild import Rebuilt
from kalshi_platform.cli.journal import describe_archived
from kalshi_platform.cli.rebuild import describe_rebuilt
from kalshi_platform.lake.frame_archive import FramesPartition

HOUR = datetime(2026, 11, 23, 4, tzinfo=UTC)
TABLES = {
    "trades": RebuiltTable(rows=10, equal=7, filled=2, inserted=1, filled_columns={"fee_e4": 2}),
    "tickers": RebuiltTable(rows=5, equal=4, changed=1, unexplained=3, changed_columns={"volume_e2": 1}),
}
TO_PRODUCTION = (
    "production gets inserted rows with the next merge, filled values with:"
    " kalshi-platform close-hour 2026-11-23T04 --fill"
)


def test_each_table_says_what_was_written_and_what_differs_and_stays() -> None:
    done = Rebuilt("g1", HOUR, 3, 1, frames=15, damages=1, tables=TABLES)
    assert describe_rebuilt(done, dry_run=False) == [
        "g1 2026-11-23T04: 15 frames from 3 segments of the lake, 1 of the journal, 1 damages",
        "trades: 10 rows, 7 equal, 2 filled (fee_e4 2), 1 inserted",
        "tickers: 5 rows, 4 equal, 1 differ and stay, see --overwrite (volume_e2 1),"
        " 3 in the table that no frame gives",
        TO_PRODUCTION,
    ]


def test_a_dry_run_and_an_hour_without_frames_say_so() -> None:
    done = Rebuilt("g1", HOUR, 3, 0, frames=15, tables=TABLES, overwritten=True)
    assert describe_rebuilt(done, dry_run=True)[1:3] == [
        "trades: 10 rows, 7 equal, 2 would be filled (fee_e4 2), 1 would be inserted",
        "tickers: 5 rows, 4 equal, 1 would be overwritten (volume_e2 1), 3 in the table that no frame gives",
    ]
    nothing = describe_rebuilt(Rebuilt("g1", HOUR, 0, 0), dry_run=False)
    assert nothing[1:] == ["no frames of this hour are kept: nothing can be made of them"]


def test_letters_that_no_frame_gives_any_more_are_no_difference() -> None:
    letters = RebuiltTable(rows=1, equal=1, unexplained=4)
    assert not Rebuilt("g1", HOUR, 1, 0, tables={"dead_letters": letters}).differs
    assert Rebuilt("g1", HOUR, 1, 0, tables={"trades": letters}).differs


def test_an_hour_of_which_the_journal_has_nothing_is_said() -> None:
    done = ArchivedHour(FramesPartition("g1", HOUR), None, 0)
    assert describe_archived(done) == "2026-11-23T04: the journal has no finished segment of it"
