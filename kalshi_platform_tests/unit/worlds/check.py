"""What must hold in every world, and how much was claimed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields

from kalshi_platform.market.intervals import Interval, covers, length
from kalshi_platform_tests.fixtures.reference_book import LevelChange, books
from kalshi_platform_tests.unit.worlds.moments import Checkpoint, Moment
from kalshi_platform_tests.unit.worlds.venue import INDEX, MARGIN_US, START_US, Content, Levels


class WrongWorld(AssertionError):
    """Something is claimed, doubled or folded that is not true."""


@dataclass
class Figures:
    """How much there was to claim, and how much was claimed."""

    observered: int = 0
    """Deltas in production."""
    claimed: int = 0
    """…of them inside claims."""
    quiet_times: int = 0
    """Microseconds of a market claimed in which it did not change."""
    equal_times: int = 0
    """Timestamps of a market, claimed whole, that hold equal deltas."""
    checkpoints: int = 0
    books: int = 0

    def add(self, other: Figures) -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


def check(moment: Moment, *, books_at_checkpoints: bool = True) -> Figures:
    """Raise WrongWorld unless everything that is derived at this moment is true.

    Without `books_at_checkpoints` only the books are compared that are folded from checkpoints.
    """
    rows = Counter(_content(key) for key in moment.rows)
    truth = moment.venue.rows
    figures = Figures(observered=rows.total())
    for content, count in rows.items():
        if count > truth[content]:
            raise WrongWorld(f"{content} is there {count} times, was published {truth[content]} times")
    for content, count in truth.items():
        if covers(moment.claims.get(content[1], []), content[0]):
            if rows[content] != count:
                raise WrongWorld(f"{content} is claimed and there {rows[content]} times of {count}")
            figures.claimed += count
            figures.equal_times += count > 1
    for ticker, intervals in moment.claims.items():
        moving = {ts for ts in moment.venue.times[ticker] if covers(intervals, ts)}
        figures.quiet_times += length(intervals) - len(moving)
    _check_books(moment, rows, figures, books_at_checkpoints)
    for shard in moment.shards:
        _check_all_is_claimed(moment, shard)
    if moment.left:
        raise WrongWorld(f"{moment.left} rows depend on how they were merged")
    return figures


def _check_books(moment: Moment, rows: Counter[Content], figures: Figures, at_checkpoints: bool) -> None:
    by_ticker: dict[str, list[Content]] = {ticker: [] for ticker in INDEX}
    for content in sorted(rows):
        by_ticker[content[1]] += [content] * rows[content]
    for checkpoint in moment.checkpoints:
        figures.checkpoints += 1
        expected = moment.venue.book(checkpoint.ticker, checkpoint.time)
        if at_checkpoints and checkpoint.book != expected:
            raise WrongWorld(
                f"checkpoint of {checkpoint.ticker} at {checkpoint.time}: {checkpoint.book}, is {expected}"
            )
        end = _end_of(moment.claims.get(checkpoint.ticker, []), checkpoint.time + 1)
        changes = [content for content in by_ticker[checkpoint.ticker] if checkpoint.time < content[0] < end]
        for time, book in folded(checkpoint, changes):
            figures.books += 1
            if book != (expected := moment.venue.book(checkpoint.ticker, time)):
                raise WrongWorld(f"book of {checkpoint.ticker} at {time} from {checkpoint.time}: {book}, is {expected}")


def folded(checkpoint: Checkpoint, changes: list[Content]) -> list[tuple[int, Levels]]:
    """The books at the ends of timestamps that the product folds from a checkpoint."""
    yes, no = (
        tuple(sorted((price, size) for (of, price), size in checkpoint.book.items() if of == side))
        for side in ("yes", "no")
    )
    levels = [LevelChange(ts, side, price, size) for ts, _, side, price, size in changes]  # type: ignore[arg-type]
    return [
        (
            book.exchange_ts_us,
            {("yes", price): size for price, size in book.yes} | {("no", price): size for price, size in book.no},
        )
        for book in books(yes, no, levels)
    ]


def _check_all_is_claimed(moment: Moment, shard: tuple[str, ...]) -> None:
    """Without faults all is claimed from the first delta of the feed + W to the last − W.

    That holds for a market that never moves, too.
    """
    for index in set(INDEX.values()):
        tickers = [ticker for ticker in shard if INDEX[ticker] == index]
        feed = [time for ticker in tickers for time in moment.venue.times[ticker]]
        if not feed:
            continue
        start, end = min(feed) + MARGIN_US + 1, max(feed) - MARGIN_US
        for ticker in tickers:
            claims = moment.claims.get(ticker, [])
            if start < end and _end_of(claims, start) < end:
                raise WrongWorld(f"{ticker} is not claimed from {start} to {end} but {claims}")


def _end_of(claims: list[Interval], moment: int) -> int:
    """Where the claim that holds a moment ends; the moment itself if none does."""
    return next((end for start, end in claims if start <= moment < end), moment)


def _content(key: tuple[object, ...]) -> Content:
    ts, ticker, side, price, size, _ = key
    return ts - START_US, ticker, side, price, size  # type: ignore[operator,return-value]
