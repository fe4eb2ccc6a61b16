"""Heartbeats in files: written whole, and read whatever has become of them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from kalshi_platform.gatherer.status.status import GathererStatus
from kalshi_platform.monitoring.heartbeat import Heartbeat, decode_details, read_file, write_file

NOW = datetime(2026, 11, 20, 6, tzinfo=UTC)


def test_a_written_heartbeat_reads_the_same(tmp_path: Path) -> None:
    written = Heartbeat("gatherer/g1", NOW, NOW, "running", GathererStatus(desired_markets=7))
    write_file(tmp_path / "heartbeat.json", written)
    found = read_file(tmp_path / "heartbeat.json", GathererStatus)
    assert found is not None
    assert (found.service, found.at, found.details.desired_markets) == ("gatherer/g1", NOW, 7)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"service": "\xe9"}', b"[]"])
def test_a_damaged_heartbeat_file_counts_as_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "heartbeat.json"
    path.write_bytes(content)
    assert read_file(path, GathererStatus) is None


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", b'{"wanted": "many"}'])
def test_details_that_do_not_fit_count_as_not_reported(content: bytes) -> None:
    assert decode_details(content, GathererStatus) == GathererStatus()
