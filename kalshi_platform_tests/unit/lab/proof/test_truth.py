"""The exchange's ledger is used only when it is whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from kalshi_platform.lab.proof.comparison.tables import REQUIRED
from kalshi_platform.lab.proof.comparison.truth import check_complete, read_truth
from kalshi_platform.lab.proof.errors import ProofFailed
from kalshi_platform.lab.simulator.engine.truth import TruthLedger, complete_file


def ledger(folder: Path, *, finish: bool = True) -> None:
    written = TruthLedger(folder)
    for n in range(4):
        written.deltas.append((n, 1_000 * n, "A", "yes", 5_000, 100))
    written.served.append((0, "A", "c1", "platform (g1 books)"))
    written.write("books", [("last", "A", "yes", 5_000, 400)])
    if finish:
        written.close()
    else:
        written.flush()


def test_a_finished_ledger_is_complete(tmp_path: Path) -> None:
    ledger(tmp_path)
    check_complete(tmp_path)


def test_a_ledger_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    ledger(tmp_path)
    ledger(tmp_path, finish=False)
    assert not complete_file(tmp_path).exists()
    with pytest.raises(ProofFailed, match="did not finish"):
        check_complete(tmp_path)


@pytest.mark.parametrize("table", ["deltas", "served", "books"])
def test_a_part_that_is_gone_is_found(table: str, tmp_path: Path) -> None:
    ledger(tmp_path)
    next(tmp_path.glob(f"{table}-*.parquet")).unlink()
    with pytest.raises(ProofFailed, match=table):
        check_complete(tmp_path)


def test_a_prefix_has_its_own_mark(tmp_path: Path) -> None:
    ledger(tmp_path / "run.parquet")
    assert (tmp_path / "run-complete.json").exists()


def test_an_hour_before_the_run_is_required_of_the_markets_that_were_there(tmp_path: Path) -> None:
    written = TruthLedger(tmp_path)
    for n, (at_us, ticker) in enumerate([(50, "A"), (110, "A"), (110, "B"), (210, "A"), (900, "A"), (900, "B")]):
        written.deltas.append((n, at_us, ticker, "yes", 5_000, 100))
    lives = [("A", "active", "", None, 0, 9_000), ("B", "active", "", None, 105, 9_000)]
    written.write("markets", lives)
    written.close()
    truth = read_truth(tmp_path, 800, (100, 200))
    required = truth.deltas((0, 1_000)).filter(REQUIRED)
    assert list(required.select("exchange_us", "ticker").iter_rows()) == [(110, "A"), (900, "A"), (900, "B")]


@pytest.mark.parametrize("ticker", ["P" * 3_503, "KX\x00A", "KX\x1b[31m"])
def test_names_that_cannot_be_stored_are_left_out_but_counted(ticker: str, tmp_path: Path) -> None:
    written = TruthLedger(tmp_path)
    for n, name in enumerate(["A", ticker]):
        written.deltas.append((n, 10, name, "yes", 5_000, 100))
        written.trades.append((n, 10, name, "id", 5_000, 100, "yes", False))
        written.lifecycle.append((n, 10, name, "market_lifecycle_v2", "created", "{}", False))
    written.write("books", [("last", name, "yes", 5_000, 100) for name in ("A", ticker)])
    written.write("markets", [(name, "active", "", None, 0, 9_000) for name in ("A", ticker)])
    written.close()
    truth = read_truth(tmp_path, 0)
    frames = (truth.deltas((0, 99)), truth.trades((0, 99)), truth.lifecycle, truth.last_books, truth.markets)
    assert [frame["ticker"].to_list() for frame in frames] == [["A"]] * 5
    assert truth.ledger == {"delta": 2, "trade": 2, "ticker": 0, "lifecycle": 2}
