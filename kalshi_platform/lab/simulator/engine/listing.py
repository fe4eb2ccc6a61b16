"""The venue's first population, and how a new event with its markets is put together. Fictional names throughout."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from kalshi_platform.lab.simulator.engine import universe
from kalshi_platform.lab.simulator.engine.activity import Activity
from kalshi_platform.lab.simulator.engine.universe import Event, Market, Series, Trade
from kalshi_platform.lab.simulator.engine.venue import Venue, uuid_text

if TYPE_CHECKING:
    from random import Random

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
MARKETS_PER_EVENT = 5


class Template(NamedTuple):
    """What the events of a series have in common."""

    ticker: str
    title: str
    category: str
    frequency: str
    exchange_index: int
    structure: str
    tags: tuple[str, ...] | None = None


TEMPLATES = (
    Template("KXSIMRAINNYC", "Rain in New York", "Climate and Weather", "daily", 0, "linear_cent"),
    Template("KXSIMTEMPCHI", "High temperature in Chicago", "Climate and Weather", "daily", 0, "tapered_deci_cent"),
    Template("KXSIMCPI", "Consumer prices", "Economics", "monthly", 0, "deci_cent"),
    Template("KXSIMBALL", "Professional ball game", "Sports", "custom", 3, "linear_cent", ("Ball",)),
    Template("KXSIMCOIN", "Coin price", "Crypto", "hourly", 2, "tapered_deci_cent", ("Coins", "Hourly")),
    Template("KXSIMSENATE", "Senate vote", "Politics", "custom", 0, "linear_cent"),
    Template("KXSIMFILM", "Box office", "Entertainment", "weekly", 0, "deci_cent"),
    Template("KXSIMGAS", "Gasoline price", "Economics", "weekly", 0, "tapered_deci_cent"),
)
# How the markets of one event ask their question, in turn.
STRIKES = ("greater", "greater", "greater_or_equal", "less", "between")
COMBO = Template("KXMVESIM", "Combination", "Sports", "custom", 1, "center_deci_edge_centi_cent")


def add_series(venue: Venue, template: Template, now_us: int) -> Series:
    """List the series unless it is listed already."""
    series = venue.series.get(template.ticker)
    if series is None:
        series = Series(**template._asdict(), updated_us=now_us)
        venue.series[series.ticker] = series
    return series


def add_event(venue: Venue, series: Series, number: int, now_us: int, strike_us: int) -> Event:
    """List event `number` of a series; its ticker carries the date and the number."""
    day = datetime.fromtimestamp(strike_us // SECOND_US, UTC)
    ticker = f"{series.ticker}-{day:%y%b%d}E{number}".upper()
    event = Event(
        ticker=ticker,
        series_ticker=series.ticker,
        title=f"{series.title}, {day:%b} {day.day}?",
        sub_title=f"On {day:%b} {day.day}, {day.year}",
        strike_us=strike_us,
        updated_us=now_us,
        exchange_index=series.exchange_index,
        is_combo=series.ticker == COMBO.ticker,
    )
    venue.events[ticker] = event
    return event


def make_market(
    event: Event, series: Series, position: int, rng: Random, *, created_us: int, open_us: int, close_us: int
) -> Market:
    """Return market `position` of an event, not listed yet; status `initialized`."""
    strike = 0.25 + 0.5 * position
    suffix = f"T{strike:.2f}" if not event.is_combo else f"{rng.getrandbits(44):011X}"
    return Market(
        ticker=f"{event.ticker}-{suffix}",
        event_ticker=event.ticker,
        series_ticker=series.ticker,
        market_id=uuid_text(rng),
        structure=series.structure,
        strike=strike,
        strike_type="custom" if event.is_combo else STRIKES[position % len(STRIKES)],
        exchange_index=series.exchange_index,
        created_us=created_us,
        updated_us=created_us,
        visible_us=created_us,
        open_us=open_us,
        close_us=close_us,
        settle_after_s=60,
        is_combo=event.is_combo,
        yes_sub_title=f"Above {strike:.2f}",
        fair_e4=500 + int(rng.random() * 9_000),
    )


def populate(venue: Venue, activity: Activity, rng: Random, *, markets: int, combos: int, now_us: int) -> None:
    """List `markets` active markets (a few with empty or one-sided books), a few settled ones, and combos."""
    created_us = now_us - DAY_US
    # Ranks are shuffled over tickers, so that activity does not follow the alphabet.
    ranks = list(range(1, markets + 1))
    rng.shuffle(ranks)
    for index in range(markets):
        number, position = divmod(index, MARKETS_PER_EVENT)
        series = add_series(venue, TEMPLATES[number % len(TEMPLATES)], created_us)
        if position == 0:
            strike_us = now_us + (2 + number % 5) * DAY_US
            event = add_event(venue, series, number, created_us, strike_us)
        market = make_market(
            event,
            series,
            position,
            rng,
            created_us=created_us,
            open_us=created_us + 3_600 * SECOND_US,
            close_us=event.strike_us,
        )
        market.status = universe.ACTIVE
        market.weight = 1.0 / ranks[index]
        if index % 13 == 5:
            market.sides = (index // 13 % 2,)
        venue.add_market(market)
        if index % 17 != 3:
            activity.seed_book(market, 8 + int(rng.random() * 30))
    _add_combos(venue, activity, rng, combos, now_us)
    _add_settled(venue, rng, now_us)


def _add_combos(venue: Venue, activity: Activity, rng: Random, combos: int, now_us: int) -> None:
    if not combos:
        return
    series = add_series(venue, COMBO, now_us - DAY_US)
    event = add_event(venue, series, 1, now_us - DAY_US, now_us + 2 * DAY_US)
    for position in range(combos):
        market = make_market(
            event, series, position, rng, created_us=now_us - DAY_US, open_us=now_us - DAY_US, close_us=event.strike_us
        )
        market.status = universe.ACTIVE
        market.legs = combine(venue, position)
        venue.add_market(market)
        activity.seed_book(market, 6)


def combine(venue: Venue, position: int) -> tuple[tuple[str, str], ...]:
    """Return two markets of different events for combo `position`, each with a side."""
    singles = [market for market in venue.market_list if not market.is_combo][: 10 * MARKETS_PER_EVENT]
    if not singles:
        return ()
    first = singles[position % len(singles)]
    second = next((each for each in singles if each.event_ticker != first.event_ticker), first)
    return (first.ticker, "yes"), (second.ticker, "no" if position % 2 else "yes")


def _add_settled(venue: Venue, rng: Random, now_us: int) -> None:
    """Two markets settled yesterday, and three settled before the historical cutoff, with trades."""
    venue.cutoff_us = (now_us - 60 * DAY_US) // DAY_US * DAY_US
    template = TEMPLATES[0]
    series = add_series(venue, template, now_us - DAY_US)
    for count, settled_us, is_old in ((2, now_us - DAY_US, False), (3, venue.cutoff_us - 30 * DAY_US, True)):
        event = add_event(venue, series, 9_000 + count, settled_us - 2 * DAY_US, settled_us - DAY_US)
        for position in range(count):
            market = make_market(
                event, series, position, rng,
                created_us=settled_us - 3 * DAY_US, open_us=settled_us - 2 * DAY_US,
                close_us=settled_us - 3_600 * SECOND_US,
            )  # fmt: skip
            market.status = universe.FINALIZED
            market.result = "yes" if position % 2 else "no"
            market.settlement_e4 = 10_000 if position % 2 else 0
            market.determined_us = settled_us - 60 * SECOND_US
            market.settled_us = settled_us
            if is_old:
                event.market_tickers.append(market.ticker)
                venue.historical.append(market)
                for number in range(20):
                    trade = Trade(
                        market.open_us + number * 60 * SECOND_US + 1,
                        uuid_text(rng), market.ticker, 4_000 + 10 * number, 100 + number, number % 2,
                    )  # fmt: skip
                    venue.historical_trades.append(trade)
                    market.trades.append(trade)
                    market.volume_e2 += trade.count_e2
                    market.last_price_e4 = trade.yes_price_e4
            else:
                venue.add_market(market)
    venue.historical_trades.sort(key=lambda trade: trade.us)
