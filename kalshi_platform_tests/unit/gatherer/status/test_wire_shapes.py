"""Which frames are looked into."""

from __future__ import annotations

from kalshi_platform.gatherer.status.wire_shapes import FrameSampler

DELTA, TRADE = b'{"type":"orderbook_delta","sid":1,"seq":%d}', b'{"type":"trade","sid":2,"seq":%d}'


def test_the_first_frames_of_each_type_and_then_few_are_chosen() -> None:
    sampler = FrameSampler()
    first = sampler.choose(1, [DELTA % n for n in range(200)] + [TRADE % n for n in range(5)])
    assert [payload for payload in first if b"trade" in payload] == [TRADE % n for n in range(5)]
    assert [DELTA % n for n in range(5)] == first[:5]
    assert len(first) < 30
    later = [sampler.choose(1, [DELTA % n]) for n in range(16 * 16 * 10)]
    assert 8 <= sum(len(chosen) for chosen in later) <= 15


def test_a_new_session_is_looked_at_anew() -> None:
    sampler = FrameSampler()
    sampler.choose(1, [DELTA % n for n in range(2_000)])
    assert sampler.choose(2, [DELTA % 0]) == [DELTA % 0]


def test_a_type_that_comes_late_is_found() -> None:
    sampler = FrameSampler()
    sampler.choose(1, [DELTA % n for n in range(2_000)])
    assert sampler.choose(1, [TRADE % n for n in range(16)])
