"""`kalshi-platform prove` end to end, and that it sees what is done to production behind its back.

    KALSHI_GROUND_SECONDS=180 pytest kalshi_platform_tests/acceptance/test_prove.py -k ground

also moves the ground; KALSHI_GROUND_SEED chooses which faults a shorter run (at least 40) has, and who is struck.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import polars as pl
import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.lab.proof.examine import examine
from kalshi_platform.lab.proof.faults.stack import ProofStack
from kalshi_platform.lab.proof.options import ProofOptions
from kalshi_platform.lab.proof.run_scenario import Recorder
from kalshi_platform.lab.proof.verdict import failures
from kalshi_platform.storage.pool import Database
from kalshi_platform_tests.fixtures.stack import clean_environment, processes_of

GROUND_S = int(os.environ.get("KALSHI_GROUND_SECONDS", "0"))
pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300), pytest.mark.xdist_group("recordings")]


def test_two_gatherers_lose_nothing_to_the_standard_faults(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    data, found, plot = tmp_path / "proof", tmp_path / "found.json", tmp_path / "timeline.png"
    # Settings of the caller must not reach the run.
    env = clean_environment(
        KALSHI_PRODUCTION_DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing", KALSHI_TICKERS="X"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-m", "kalshi_platform.cli", "prove", "--seconds", "15", "--gatherers", "2"),
            *("--rate", "200", "--faults", "standard", "--data", str(data), "--json", str(found), "--plot", str(plot)),
        ],
        env=env, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads(found.read_text())
    assert (content["missing"], content["doubled"], content["wrong"]) == (0, 0, 0)
    assert content["holes"]["undeclared"] == 0
    assert content["published"] >= 0.95 * 15 * 200
    assert content["tables"]["orderbook_deltas"]["truth"] > 2_200
    assert content["tables"]["orderbook_deltas"]["production"] == content["tables"]["orderbook_deltas"]["lake"]
    assert sorted(fault["kind"] for fault in content["faults"]) == [
        "cut", "cut", "drop_frame", "exchange_pause", "kill", "rest_429",
    ]  # fmt: skip
    assert all(fault["effect"] for fault in content["faults"])
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "PROVEN" in done.stdout
    assert not data.exists()
    assert processes_of(str(data)) == []


def test_one_gatherer_loses_only_what_the_faults_take(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    found = tmp_path / "found.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "kalshi_platform.cli", "prove", "--seconds", "25", "--gatherers", "1"),
            *("--rate", "200", "--faults", "standard", "--data", str(tmp_path / "proof"), "--json", str(found)),
        ],
        env=clean_environment(), cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads(found.read_text())
    assert 0 < content["missing"] < 0.6 * content["published"]
    assert (content["doubled"], content["wrong"], content["merge_lost"]) == (0, 0, 0)
    assert (content["holes"]["undeclared"], content["holes"]["unexplained"]) == (0, 0)
    assert content["books"]["right"] > 0
    assert content["books"]["lake_right"] > 0


def test_hours_of_a_simulated_day_are_recorded_closed_and_exported_whole(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    found = tmp_path / "found.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "kalshi_platform.cli", "prove", "--faults", "day", "--hours", "1"),
            *("--deltas", "10000", "--speed", "900", "--samples", "60", "--markets", "20", "--gatherers", "2"),
            *("--data", str(tmp_path / "proof"), "--json", str(found)),
        ],
        env=clean_environment(), cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads(found.read_text())
    compared = content["compared"]
    assert content["published"]["delta"] > 10_000
    assert sorted(name.split()[0] for name in content["faults"]) == ["cut", "drop", "kill"]
    assert compared["production = raw files = reader"]["rows of orderbook_deltas"] > 10_000
    assert compared["book_at against the exchange"]["exact"] >= 57
    assert compared["processed/book_deltas by plain Polars"]["books"] > 0
    assert compared["quotes against a naive fold"]["quotes"] > 1_000
    assert compared["results and settlement values in processed/markets"]["settled markets"] > 0


@pytest.mark.skipif(GROUND_S == 0, reason="takes minutes; set KALSHI_GROUND_SECONDS (180 for everything) to run it")
@pytest.mark.timeout(900 + 5 * GROUND_S)
def test_three_gatherers_say_nothing_false_while_the_ground_moves(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    found = tmp_path / "found.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "kalshi_platform.cli", "prove", "--faults", "ground", "--seconds", str(GROUND_S)),
            *("--gatherers", "3", "--rate", "200", "--markets", "30"),
            *("--seed", os.environ.get("KALSHI_GROUND_SEED", "1")),
            *("--data", str(tmp_path / "proof"), "--json", str(found)),
        ],
        env=clean_environment(), cwd=tmp_path, capture_output=True, text=True, timeout=800 + 5 * GROUND_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads(found.read_text())
    assert (content["missing"], content["doubled"], content["wrong"], content["merge_lost"]) == (0, 0, 0, 0)
    assert content["false_claims"] == {"g1": 0, "g2": 0, "g3": 0}
    assert content["proven_books"]["compared"] > 0
    assert all(fault["effect"] and not fault["broken"] for fault in content["faults"])


def test_a_row_deleted_doubled_or_changed_is_found(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    options = ProofOptions(
        seconds=5, gatherers=1, rate=100, markets=10, seed=3, faults="none", data_dir=tmp_path / "proof", keep=True
    )
    with ProofStack(options, print, SYSTEM_CLOCK) as stack:
        ran = Recorder(stack, options, threading.Event(), print, SYSTEM_CLOCK).run_scenario()

        def found() -> dict[str, tuple[int, int, int]]:
            findings = examine(stack.settings, stack.truth_folder, stack.lake_folder, ran.run, ran.faults)
            assert bool(failures(ran, findings)) == any(
                each.missing + each.doubled + each.wrong for each in findings.tables
            )
            return {
                each.name: (
                    each.production.missing.height,
                    each.production.doubled.height,
                    each.production.wrong.height,
                )
                for each in findings.tables
            }

        assert set(found().values()) == {(0, 0, 0)}

        part = max(stack.lake_folder.glob("**/raw/trades/date=*/hour=*/part-*.parquet"))
        exported = pl.read_parquet(part, hive_partitioning=False)
        is_last = pl.int_range(pl.len()) == exported.height - 1
        size = pl.when(is_last).then(pl.col("count_e2") + 1).otherwise(pl.col("count_e2"))
        exported.with_columns(count_e2=size).write_parquet(part)
        changed = examine(stack.settings, stack.truth_folder, stack.lake_folder, ran.run, ran.faults)
        assert [each.name for each in changed.tables if each.wrong] == ["trades"]
        assert failures(ran, changed) == ["trades: 1 rows are wrong"]
        exported.write_parquet(part)

        production = Database(stack.settings.deduplicator.production_url, name="production")
        one = "(SELECT ctid FROM {0} WHERE exchange_ts > (SELECT min(exchange_ts) FROM {0}) LIMIT 1)"
        delta, trade = one.format("orderbook_deltas"), one.format("trades")
        try:
            with production.transaction() as transaction:
                transaction.execute(
                    "INSERT INTO orderbook_deltas SELECT exchange_ts, ticker, side, price_e4, delta_e2,"
                    " occurrence + 99, gatherer, stream_id, seq, received_at"
                    f" FROM orderbook_deltas WHERE ctid = {delta}"
                )
            assert found()["orderbook_deltas"] == (0, 1, 0)
            with production.transaction() as transaction:
                transaction.execute("DELETE FROM orderbook_deltas WHERE occurrence >= 99")
                transaction.execute(f"DELETE FROM orderbook_deltas WHERE ctid = {delta}")
            assert found()["orderbook_deltas"] == (1, 0, 0)
            with production.transaction() as transaction:
                transaction.execute(f"UPDATE orderbook_deltas SET delta_e2 = delta_e2 + 77777 WHERE ctid = {delta}")
                transaction.execute(f"UPDATE trades SET count_e2 = count_e2 + 1 WHERE ctid = {trade}")
            assert found()["orderbook_deltas"] == (1, 0, 1)
            assert found()["trades"] == (0, 0, 1)
        finally:
            production.dispose()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--seconds", "1"], "--seconds"),
        (["--gatherers", "0"], "--gatherers"),
        (["--faults", "some"], "--faults"),
        (["--data", "."], "--data"),
        (["--plot", "picture.jpg"], "--plot"),
    ],
)
def test_wrong_options_are_named_before_anything_starts(options: list[str], word: str, tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    done = subprocess.run(
        [sys.executable, "-m", "kalshi_platform.cli", "prove", *options],
        env=clean_environment(), cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert word in done.stderr
