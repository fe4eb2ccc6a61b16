"""`kalshi-platform draw` on a lake in a folder."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from kalshi_platform.cli.draw import draw
from kalshi_platform.errors import ConfigurationError
from kalshi_platform.lake.datasets import DATASETS
from kalshi_platform.lake.layout import partition_starting
from kalshi_platform.lake.settings import LakeSettings
from kalshi_platform.lake.store import open_store
from kalshi_platform_tests.fixtures.lake import batch, put_partition, row

DAY = datetime(2026, 11, 20, tzinfo=UTC)
PRICES = {"bid_dollars": Decimal("0.40"), "ask_dollars": Decimal("0.42")}


def test_a_market_is_drawn_and_another_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KALSHI_LAKE_ROOT", (tmp_path / "lake").as_uri())
    store = open_store(LakeSettings((tmp_path / "lake").as_uri()))
    at = DAY + timedelta(hours=3)
    values: dict[str, dict[str, Any]] = {
        "processed/quotes": {"event": "open", **PRICES},
        "processed/book_1m": {name: [price] for name, price in PRICES.items()}
        | {"bid_contracts": [Decimal(5)], "ask_contracts": [Decimal(6)]},
        "processed/trades": {
            "yes_price_dollars": Decimal("0.42"), "no_price_dollars": Decimal("0.58"),
            "count_contracts": Decimal(3), "taker_side": "yes",
        },
    }  # fmt: skip
    for key, more in values.items():
        data = DATASETS[key]
        put_partition(store, partition_starting(data, DAY), [batch(data, [row(data, at, ticker="KXA", **more)])])
    draw("KXA", "2026-11-20", tmp_path / "day.png")
    assert (tmp_path / "day.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigurationError, match="KXB"):
        draw("KXB", "2026-11-20", tmp_path / "none.png")
