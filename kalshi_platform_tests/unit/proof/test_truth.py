"""The exchange's ledger is used only when it is whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from kalshi_platform.proof.errors import ProofFailed
from kalshi_platform.proof.truth import check_complete
from kalshi_platform.simulator.truth import TruthLedger, complete_file


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
