"""The raw data sets that books are folded from, and the columns that the fold needs. Pure."""

from __future__ import annotations

DELTAS = "raw/orderbook_deltas"
CHECKPOINTS = "raw/book_checkpoints"
COVERAGE = "raw/coverage"
BOOK_INPUTS = {
    DELTAS: ("ticker", "exchange_ts", "side", "price_e4", "delta_e2"),
    CHECKPOINTS: ("ticker", "checkpoint_ts", "yes_price_e4", "yes_count_e2", "no_price_e4", "no_count_e2"),
    COVERAGE: ("ticker", "from_ts", "to_ts"),
}
"""Each data set's own order is the one that the fold relies on: by market and time, the checkpoint that counts first
where several stand for one moment (as `book_basis` of production chooses)."""
EVENTS = ("change", "open", "resync")
"""What a change of a level comes from: the exchange, the book at the start of the day (or the first that is known in
it), or the difference that a checkpoint shows after a hole."""
EMPTY = "hole"
