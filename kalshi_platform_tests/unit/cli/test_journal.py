"""`kalshi-platform journal show` and `verify` on whole, running and damaged journals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kalshi_platform.cli.journal import app
from kalshi_platform.errors import ConfigurationError
from kalshi_platform.gatherer.journal.keeping import compress_segment
from kalshi_platform.gatherer.journal.segments import segment_name
from kalshi_platform.market.records import SessionClosed, StreamEnded
from kalshi_platform_tests.fixtures.journals import OPENED, SESSION, STREAM, STREAM_OPENED, a_journal, batch_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A gatherer's folder whose journal is still open, as that of a running one."""
    journal = a_journal(tmp_path / "g1" / "journal", segment_bytes=700)
    journal.append(SESSION, batch_of([], marks=[OPENED, STREAM_OPENED]))
    for number in range(1, 8):
        journal.append(SESSION, batch_of([b'{"n":%d}\x1b' % number], first_number=number))
    journal.append(SESSION, batch_of([], marks=[StreamEnded(STREAM, 5, "over"), SessionClosed(SESSION, 6, "stopped")]))
    journal.close()
    return tmp_path / "g1"


def run(*arguments: object, exit_code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert (result.exit_code, result.exception) == (exit_code, result.exception if exit_code else None), result.output
    return result.output


def test_show_counts_segments_sessions_streams_and_prints_frames(folder: Path) -> None:
    lines = run("show", folder, "--frames", "2").splitlines()
    assert lines[0].startswith("gatherer g1, journal ")
    assert "segment 000000000001: " in lines[1]
    assert any(line.startswith(f"session {SESSION} books-1: 7 frames, opened ") for line in lines)
    assert any(line.endswith("closed: stopped") for line in lines)
    assert "orderbook_delta (sid 3): 7 frames, numbers 1 to 7, ended: over" in "\n".join(lines)
    assert lines[-1].endswith(r' number 2 DATA {"n":2}\x1b')
    shown = json.loads(run("show", folder / "journal" / segment_name(1), "--json", "--frames", "9"))
    assert shown["journal"]["gatherer"] == "g1"
    assert [segment["number"] for segment in shown["segments"]] == [1]
    assert shown["frames"][0]["payload"] == '{"n":1}\x1b'
    assert shown["damages"] == []


def test_verify_passes_a_whole_journal_and_one_whose_last_block_is_being_written(folder: Path) -> None:
    compress_segment(folder / "journal", 1)
    assert run("verify", folder).splitlines()[-1].endswith(" 7 frames: whole")
    last = max((folder / "journal").glob("*.journal"))
    last.write_bytes(last.read_bytes()[:-5])
    assert "bytes of a block that is not whole yet" in run("verify", folder / "journal")
    assert json.loads(run("verify", folder, "--json"))["unfinished_bytes"] > 0
    assert "was not written to its end" in run("verify", last)


def test_verify_names_each_damage_and_fails(folder: Path) -> None:
    first = folder / "journal" / segment_name(1)
    data = bytearray(first.read_bytes())
    data[-3] ^= 1
    first.write_bytes(data)
    (folder / "journal" / segment_name(2)).unlink()
    lines = run("verify", folder, exit_code=1).splitlines()
    assert sum(line.endswith("bytes that are no block") for line in lines) == 1
    assert sum("segment 2 is missing" in line for line in lines) == 1
    assert lines[-1].endswith("2 damages")
    assert [each["segment"] for each in json.loads(run("verify", folder, "--json", exit_code=1))["damages"]] == [1, 2]
    assert "! segment 1, offset " in run("show", folder)


def test_a_path_without_a_journal_is_said(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.journal", tmp_path / "000000000009.journal"):
        result = CliRunner().invoke(app, ["verify", str(path)])
        assert isinstance(result.exception, ConfigurationError)
        assert "has no segment of a journal" in str(result.exception)
