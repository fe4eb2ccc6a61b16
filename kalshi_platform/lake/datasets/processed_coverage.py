"""processed/coverage: how much of a market's day is complete, and why the rest is not."""

from kalshi_platform.lake.datasets.dataset import Dataset
from kalshi_platform.market.tables import CLOSE_TABLES, Column

_COVERAGE = CLOSE_TABLES["coverage"]

DATASET = Dataset(
    "processed",
    "coverage",
    "One row per market and interval of the day, without a gap: whether every change of its book is there.",
    (
        _COVERAGE["ticker"],
        _COVERAGE["from_ts"],
        _COVERAGE["to_ts"],
        Column(
            "state",
            "text",
            "proven (claimed, and the market's books of the hour were proved), claimed (complete by the numbers of a"
            " stream), hole (changes may be missing).",
        ),
        Column("reason", "text", "Why it is a hole, in words; NULL where it is none.", nullable=True),
    ),
    time_column="from_ts",
    identity=("ticker", "from_ts"),
    order=("ticker", "from_ts"),
    source="coverage",
    statement="processed_coverage",
    made_by_close=True,
)
