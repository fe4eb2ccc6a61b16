"""Whatever bytes come, the parser raises UnparsableMessage or nothing, and the session raises nothing.

It claims nothing that did not come. `KALSHI_HYPOTHESIS=long` feeds more than 100,000 frames.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import sys
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kalshi_platform.errors import UnparsableMessage
from kalshi_platform.exchange.framing import FrameDecoder, FramingError
from kalshi_platform.exchange.parse import messages as parse
from kalshi_platform.exchange.protocol.session import SessionConfig
from kalshi_platform_tests.fixtures.recording_session import RecordingSession
from kalshi_platform_tests.unit.exchange import frames_of
from kalshi_platform_tests.unit.exchange.auditor import INT64_MAX, Auditor
from kalshi_platform_tests.unit.exchange.mutations import ODD_VALUES, TICKERS, encoded, mutated, real_frame

LONG = os.environ.get("KALSHI_HYPOTHESIS") == "long"
FRAMES = {"parser": 0, "session": 0}


def many(short: int, long: int) -> settings:
    return settings(
        max_examples=long if LONG else short,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        derandomize=not LONG,
    )


@pytest.fixture(scope="module", autouse=True)
def _count_frames() -> Iterator[None]:
    yield
    sys.stdout.write(f"\nfuzzed frames: {FRAMES}\n")
    assert not LONG or sum(FRAMES.values()) >= 100_000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(TICKERS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
kinds = st.sampled_from(sorted(parse._KNOWN_TYPES))
frame_shapes = st.fixed_dictionaries(
    {"type": kinds | st.text(max_size=5)},
    optional={"sid": json_values, "seq": json_values, "id": json_values, "msg": json_values},
)
any_payload = (
    st.binary(max_size=200)
    | st.text(max_size=100)
    | json_values.map(lambda value: json.dumps(value).encode())
    | frame_shapes.map(lambda value: json.dumps(value).encode())
)


def parsed(payload: bytes | str) -> None:
    """Parse and parse_partial; only the typed error may come out, and a body holds only what can be stored."""
    FRAMES["parser"] += 1
    parse.parse_partial(payload)
    try:
        frame = parse.parse_frame(payload)
    except UnparsableMessage:
        return
    assert frame.seq is None or 1 <= frame.seq <= INT64_MAX
    assert frame.sid is None or 0 <= frame.sid < 2**31
    for value in frame.body or ():
        if isinstance(value, int):
            assert -INT64_MAX - 1 <= value <= INT64_MAX
        elif isinstance(value, str):
            value.encode()


@many(300, 20_000)
@given(any_payload)
@example(b"")
@example(b"\xef\xbb\xbf{}")
@example(b"[" * 100_000)
@example(b'{"type":' * 50_000)
@example(b'{"type":"ok","msg":' + b'{"a":' * 50_000)
@example('{"type":"\ud800"}')
def test_arbitrary_payloads_parse_or_are_unparsable(payload: bytes | str) -> None:
    parsed(payload)


@many(500, 60_000)
@given(st.integers(0, 2**64))
def test_mutated_frames_parse_or_are_unparsable(seed: int) -> None:
    rng = random.Random(seed)
    parsed(mutated(rng, real_frame(rng)))


@pytest.mark.parametrize("value", ODD_VALUES, ids=lambda value: repr(value)[:30])
def test_every_odd_value_in_every_field(value: Any) -> None:
    rng = random.Random(0)
    for _ in range(60):
        frame = json.loads(real_frame(rng))
        for holder in (frame, frame.get("msg")):
            for key in list(holder) if isinstance(holder, dict) else ():
                kept, holder[key] = holder[key], value
                parsed(encoded(frame))
                holder[key] = kept


def conversation(rng: random.Random, length: int) -> Auditor:
    """A session that hears a believable server, of which frames are lost, doubled, swapped, broken or made up."""
    auditor, ids = Auditor(), itertools.count(1)
    session = RecordingSession(1, lambda: next(ids), SessionConfig(batch_size=2))
    now_ns = 10**18
    session.subscribe_books({"A": 0, "B": 0, "C": 1})
    session.subscribe_channels(["trade", "ticker", "market_lifecycle_v2"])
    next_seq = dict.fromkeys(range(1, 5), 1)
    damage = rng.choice((0.0, 0.1, 0.5))
    for step in range(length):
        now_ns += rng.choice((0, 1_000, 10**6, 10**9, 3 * 10**10))
        act = rng.random()
        if act < 0.03:
            session.subscribe_books({rng.choice(TICKERS): 0})
        elif act < 0.06:
            session.unsubscribe_books([rng.choice(TICKERS)])
        elif act < 0.12:
            auditor.check_output(session.tick(now_ns))
        sid = rng.choice((1, 1, 1, 2, 3, 4))
        seq = next_seq[sid]
        if step < 4 and rng.random() < 0.9:
            channel = ("orderbook_delta", "trade", "ticker", "market_lifecycle_v2")[step]
            payload = frames_of.subscribed(step + 1, channel, 1 if step == 0 else 2)
        else:
            payload = real_frame(rng, seq, sid)
            if sid == 1 and rng.random() < 0.3:
                named = rng.choice(({}, {}, {"market_ticker": rng.choice(TICKERS)}))
                payload = frames_of.frame(rng.choice(("news", "views")), sid=sid, seq=seq, msg=named)
            next_seq[sid] += b'"seq"' in payload
            if rng.random() < damage:
                kind = rng.randrange(4)
                if kind == 0:
                    continue
                if kind == 1:
                    payload = real_frame(rng, rng.choice((0, 1, seq, seq + 5, 2**62, 2**63)), rng.choice((1, 7, 2**40)))
                else:
                    payload = mutated(rng, payload)
        for _ in range(2 if rng.random() < damage / 3 else 1):
            FRAMES["session"] += 1
            auditor.check_output(
                session.receive(payload.decode(errors="replace") if rng.random() < 0.1 else payload, now_ns)
            )
        assert session.followed() <= session.wanted()
    auditor.check_output(session.tick(now_ns + 10**12))
    auditor.finish(session.close(now_ns, "end"))
    return auditor


@many(200, 2_500)
@given(st.integers(0, 2**64))
def test_a_session_survives_any_frames_and_claims_only_what_it_received(seed: int) -> None:
    conversation(random.Random(seed), 60)


@many(100, 2_000)
@given(st.lists(any_payload, max_size=20))
def test_a_session_survives_arbitrary_payloads(payloads: list[bytes | str]) -> None:
    auditor, ids = Auditor(), itertools.count(1)
    session = RecordingSession(1, lambda: next(ids))
    session.subscribe_books({"A": 0})
    for number, payload in enumerate([frames_of.subscribed(), frames_of.snapshot(1), *payloads]):
        FRAMES["session"] += 1
        auditor.check_output(session.receive(payload, 10**18 + number))
    auditor.finish(session.close(10**18, "end"))


def test_the_generated_conversations_reach_every_case() -> None:
    kinds: dict[str, int] = {}
    for seed in range(60):
        for record in conversation(random.Random(seed), 60).records:
            kinds[type(record).__name__] = kinds.get(type(record).__name__, 0) + 1
    rare = {name: count for name, count in kinds.items() if count < 20}
    assert not rare
    assert {"SequenceGap", "BookSubscriptionEnded", "DeadLetter", "LifecycleEvent", "Trade", "TickerUpdate"} <= set(
        kinds
    )


@many(200, 5_000)
@given(st.lists(st.binary(max_size=60), max_size=10))
def test_arbitrary_bytes_are_messages_or_a_framing_error(parts: list[bytes]) -> None:
    deframer = FrameDecoder(1_000)
    try:
        for part in parts:
            for _, payload in deframer.feed(part):
                assert len(payload) <= 1_000
    except FramingError:
        pass


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_nesting_around_the_interpreters_limit_gives_a_frame_or_the_typed_error(opening: str, closing: str) -> None:
    def is_refused(depth: int) -> bool:
        nested = opening * depth + "1" + closing * depth
        payload = (
            '{"type":"market_lifecycle_v2","sid":1,"seq":1,"msg":{"market_ticker":"A","event_type":"metadata_updated",'
            f'"custom_strike":{nested}}}}}'
        )
        try:
            parse.parse_frame(payload)
        except UnparsableMessage:
            return True
        return False

    # Some 1,000 before Python 3.12, some 10,000 since.
    limit = bisect_left(range(200_000), True, key=is_refused)
    assert 0 < sum(is_refused(depth) for depth in range(limit - 100, limit + 30)) < 130
