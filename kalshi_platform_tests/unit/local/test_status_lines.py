"""Lines for people."""

from __future__ import annotations

from kalshi_platform.gatherer.status.status import GathererStatus
from kalshi_platform.local.status_lines import byte_text, gatherer_lines
from kalshi_platform_tests.fixtures.gatherer_status import well_status


def test_a_gatherer_is_shown_with_its_rates_and_troubles() -> None:
    assert gatherer_lines(well_status(troubles=["the journal is 85 % full"])) == [
        "follows 59 of 60 books (59 in the ledger), 1 wait for a snapshot; 640 messages/s (orderbook_delta 640);"
        " gaps 1, reconnects 2",
        "812 rows/s, receipt to commit 100 ms (p99 240, most 300); journal 2.0 MiB of 20 GiB, 2.0 KiB not in the"
        " database",
        "150 MiB of memory, 14 threads, 32 open files",
        "! the journal is 85 % full",
    ]


def test_a_status_without_parts_has_no_lines() -> None:
    assert gatherer_lines(GathererStatus()) == []
    assert byte_text(None) == "?"
    assert byte_text(999) == "999 B"
