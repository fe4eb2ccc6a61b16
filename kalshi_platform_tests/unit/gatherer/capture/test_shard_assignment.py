"""Which connection follows which market."""

from __future__ import annotations

from kalshi_platform.gatherer.capture.shard_assignment import MOST_CONNECTIONS, MOVE_AT_ONCE, ShardAssignment


def wanted(count: int, start: int = 0) -> dict[str, int]:
    return {f"M{number:05}": number % 3 for number in range(start, start + count)}


def loads(shards: ShardAssignment) -> list[int]:
    return [len(shards.markets(number)) for number in range(len(shards))]


def connection_of(shards: ShardAssignment, ticker: str) -> int | None:
    return next((number for number in range(len(shards)) if ticker in shards.markets(number)), None)


def connections_of(shards: ShardAssignment, markets: dict[str, int]) -> dict[str, int | None]:
    return {ticker: connection_of(shards, ticker) for ticker in markets}


def test_markets_are_spread_evenly_and_keep_their_connection() -> None:
    shards = ShardAssignment(3, 1_000)
    first = wanted(300)
    assert shards.assign(first) == {0, 1, 2}
    assert loads(shards) == [100, 100, 100]
    before = connections_of(shards, first)
    assert shards.assign(wanted(330)) == {0, 1, 2}
    assert connections_of(shards, first) == before
    assert loads(shards) == [110, 110, 110]
    assert {ticker: index for n in range(3) for ticker, index in shards.markets(n).items()} == wanted(330)


def test_only_connections_whose_markets_changed_are_named() -> None:
    shards = ShardAssignment(2, 100)
    shards.assign(wanted(20))
    gone = next(iter(shards.markets(1)))
    assert shards.assign({t: i for t, i in wanted(20).items() if t != gone}) == {1}
    assert connection_of(shards, gone) is None
    assert shards.assign({t: i for t, i in wanted(20).items() if t != gone}) == set()


def test_more_markets_than_fit_open_more_connections() -> None:
    shards = ShardAssignment(1, 100)
    shards.assign(wanted(100))
    assert len(shards) == 1
    assert shards.assign(wanted(350)) == {1, 2, 3}
    assert loads(shards)[0] == 100
    assert max(loads(shards)) <= 100


def test_growth_is_evened_out_by_moves_until_nothing_more_is_gained() -> None:
    shards = ShardAssignment(1, 2_000)
    shards.assign(wanted(2_000))
    shards.assign(wanted(2_100))
    moves = 0
    while (move := shards.plan_move()) is not None:
        assert (move.source, move.target) == (0, 1)
        assert len(move.tickers) <= MOVE_AT_ONCE
        assert all(connection_of(shards, ticker) == 0 for ticker in move.tickers)
        shards.apply_move(move)
        moves += 1
    assert moves >= 2
    assert abs(loads(shards)[0] - loads(shards)[1]) <= 400
    assert sum(loads(shards)) == 2_100


def test_a_market_that_ends_while_it_moves_ends() -> None:
    shards = ShardAssignment(2, 100)
    shards.assign(wanted(100))
    shards.assign(dict.fromkeys(shards.markets(0), 0))
    move = shards.plan_move()
    assert move is not None
    ended = move.tickers[0]
    shards.assign({ticker: 0 for ticker in shards.markets(0) if ticker != ended})
    shards.apply_move(move)
    assert connection_of(shards, ended) is None
    assert connection_of(shards, move.tickers[1]) == move.target


def test_markets_refused_by_a_full_connection_move_to_another_and_the_limit_is_kept() -> None:
    shards = ShardAssignment(1, 10_000)
    shards.assign(wanted(12))
    refused = [ticker for ticker in wanted(12) if ticker >= "M00007"]
    assert shards.handle_refusal(0, refused) == {0, 1}
    assert loads(shards) == [7, 5]
    assert shards.handle_refusal(0, refused) == set()  # the same alarm again
    shards.assign(wanted(20))
    assert loads(shards) == [7, 7, 6]


def test_a_connection_that_may_carry_nothing_keeps_its_markets() -> None:
    shards = ShardAssignment(1, 10_000)
    shards.assign(wanted(3))
    assert shards.handle_refusal(0, list(wanted(3))) == set()
    assert loads(shards) == [3]


def test_a_refusal_far_below_the_known_limit_moves_nothing() -> None:
    shards = ShardAssignment(1, 10_000)
    shards.assign(wanted(10_000))
    assert shards.handle_refusal(0, list(wanted(10_000))[5_000:]) == {0, 1}
    assert shards.handle_refusal(1, sorted(shards.markets(1))[10:]) == set()
    assert loads(shards) == [5_000, 5_000]
    assert shards.handle_refusal(1, sorted(shards.markets(1))[4_000:]) == {1, 2}


def test_however_little_a_connection_may_carry_no_more_than_some_are_opened() -> None:
    shards = ShardAssignment(1, 10_000)
    shards.assign(wanted(10_000))
    shards.handle_refusal(0, list(wanted(10_000))[10:])
    assert loads(shards) == [10_000 - 10 * (MOST_CONNECTIONS - 1)] + [10] * (MOST_CONNECTIONS - 1)
    # All are full now: what is refused stays, to be tried again.
    assert shards.handle_refusal(0, sorted(shards.markets(0))[10:]) == set()
    assert shards.handle_refusal(1, sorted(shards.markets(1))[9:]) == set()


def test_more_markets_than_all_connections_may_carry_are_carried_all_the_same() -> None:
    shards = ShardAssignment(1, 10)
    shards.assign(wanted(100 * MOST_CONNECTIONS))
    assert loads(shards) == [100] * MOST_CONNECTIONS
