"""Printing and exit codes of commands."""

from __future__ import annotations

import pytest

from kalshi_platform.cli import main as entry
from kalshi_platform.cli.console import print_error, print_line
from kalshi_platform.cli.status import LakeStatus, print_status
from kalshi_platform.deduplicator.live.status import DeduplicatorStatus
from kalshi_platform.errors import ConfigurationError, ExchangeUnavailable, KalshiPlatformError, Unfinished
from kalshi_platform.local.platform_status import PlatformStatus, ServiceLife

EVIL = "Cup\r\x1b[2J\x9b31m\u2028\u202e\ud800"
SHOWN = r"Cup\r\x1b[2J\x9b31m\u2028\u202e\ud800"


@pytest.mark.parametrize("err", [False, True])
def test_a_printed_line_reaches_the_terminal_escaped(capsys: pytest.CaptureFixture[str], *, err: bool) -> None:
    print_line(f"market {EVIL}\nkalshi-platform: all is well", err=err)
    said = capsys.readouterr()
    assert (said.err if err else said.out) == f"market {SHOWN}\\nkalshi-platform: all is well\n"


@pytest.mark.parametrize(
    "error", [ConfigurationError([EVIL]), Unfinished([EVIL]), ExchangeUnavailable(f"refused: {EVIL}")]
)
def test_an_error_is_printed_escaped(capsys: pytest.CaptureFixture[str], error: KalshiPlatformError) -> None:
    print_error(error)
    assert SHOWN in capsys.readouterr().err


def test_status_is_printed_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    service = ServiceLife(alive=True, age_s=1.0, state=EVIL, pid=1, details=DeduplicatorStatus(), lines=[f"! {EVIL}"])
    found = PlatformStatus(
        services={"gatherer/g1": service}, problems=[], batches_behind={}, production_rows={}, last_closed_hour=None
    )
    print_status(found, LakeStatus([], None))
    assert capsys.readouterr().out.count(SHOWN) == 2


def test_an_unforeseen_error_is_printed_escaped_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def app(**_: object) -> None:
        raise RuntimeError(EVIL)

    monkeypatch.setattr(entry, "app", app)
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert f"RuntimeError: {SHOWN}" in said
    assert "Traceback" in said
