"""What a soak calls growth, and what it does not."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from kalshi_platform.errors import ConfigurationError
from kalshi_platform.lab.bench.soak.flatness import Sample, judge, judged
from kalshi_platform.lab.bench.soak.soak import SoakOptions
from kalshi_platform.lab.bench.soak.soak_report import SoakRun, as_json, as_text, failures, picture
from kalshi_platform.lab.bench.soak.usage import usage

STEP_S = 30.0
COUNT = 60
PUBLISHED = {"delta": 17_000, "trade": 700, "ticker": 300}


def samples(change: Callable[[int, Sample], Sample] = lambda _place, each: each) -> list[Sample]:
    """Half an hour of a gatherer that fills its caches for five minutes, with an allocator's noise."""
    noise = random.Random(1)
    flat = [
        Sample(
            at_s=place * STEP_S, pid=7, rss_mib=200 - max(0, 10 - place) * 5 + noise.uniform(-1, 1), threads=13,
            handles=15 + place % 2, cpu_s=place * 2.0, lag_p50_ms=100.0, lag_p99_ms=200 + noise.uniform(-30, 30),
            behind_mib=0.5, followed=200,
        )
        for place in range(COUNT)
    ]  # fmt: skip
    return [change(place, each) for place, each in enumerate(flat)]


def test_noise_caches_and_one_outlier_are_no_growth() -> None:
    def spike(place: int, each: Sample) -> Sample:
        return replace(each, rss_mib=260.0, lag_p99_ms=4_000.0, threads=15, handles=22) if place == 40 else each

    verdict = judge(samples(spike))
    assert verdict.failures == ()
    assert verdict.memory.worst == 260
    assert abs(verdict.memory.growth) < 2


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda place, each: replace(each, rss_mib=each.rss_mib + 0.15 * place), "memory grows"),
        (lambda place, each: replace(each, rss_mib=each.rss_mib + 6.0 * (place // 10)), "memory grows"),
        (lambda place, each: replace(each, lag_p50_ms=100.0 + 3 * place), "lag grows: p50"),
        (lambda place, each: replace(each, lag_p99_ms=(each.lag_p99_ms or 0) + 20 * place), "lag grows: p99"),
        (lambda _place, each: replace(each, lag_p99_ms=None), "no lag"),
        (lambda place, each: replace(each, threads=13 + place // 25), "threads grow"),
        (lambda place, each: replace(each, handles=15 + place // 8), "file handles grow"),
        (lambda place, each: replace(each, pid=7 + place // 50), "started again"),
        (lambda _place, each: replace(each, behind_mib=9.0), "not in the database"),
    ],
)
def test_each_growth_is_named(change: Callable[[int, Sample], Sample], word: str) -> None:
    said = judge(samples(change)).failures
    assert len(said) == 1
    assert word in said[0]


def test_too_few_samples_are_no_proof() -> None:
    assert "too few" in judge(samples()[:15]).failures[0]
    assert judge([]).failures != ()


@pytest.mark.parametrize(("length", "first"), [(60, 600), (31, 300), (25, 300)])
def test_the_warm_up_is_a_third_and_at_least_five_minutes(length: int, first: float) -> None:
    assert judged(samples()[:length])[0].at_s == first


def ran(of: Sequence[Sample], committed: dict[str, int], seconds: float = 1_800, missed: Sequence[str] = ()) -> SoakRun:
    own_mib = (50.0, 51.0)
    at_most = PUBLISHED | {"delta": PUBLISHED["delta"] + 5}
    return SoakRun(
        10.0, seconds, {"g1": of}, PUBLISHED, at_most, {"g1": committed}, {"g1": missed}, {"g1": 210.0}, own_mib
    )


def test_what_is_not_committed_exactly_once_is_named() -> None:
    flat = {"g1": judge(samples())}
    assert failures(ran(samples(), PUBLISHED), flat) == []
    assert failures(ran(samples(), PUBLISHED | {"ticker": 299}), flat) == []
    assert failures(ran(samples(), PUBLISHED | {"delta": 16_999}), flat) == [], "a new market's first book has it"
    assert failures(ran(samples(), PUBLISHED, missed=["numbers are missing"]), flat) == ["g1: numbers are missing"]
    assert failures(ran(samples(), PUBLISHED | {"delta": 17_005}), flat) == [], "published after trading had stopped"
    for kind, count in (("delta", 17_006), ("trade", 699), ("trade", 701)):
        assert failures(ran(samples(), PUBLISHED | {kind: count}), flat) != []
    assert "too slow" in failures(ran(samples(), PUBLISHED, 2_000), flat)[0]


def test_the_report_tells_the_figures() -> None:
    run, verdicts = ran(samples(), PUBLISHED), {"g1": judge(samples())}
    content = as_json(run, verdicts, [])
    assert (content["flat"], content["rate_per_s"], content["peak_rss_mib"], content["p50_ms"]) == (True, 10, 210, 100)
    # 2 s of CPU in 30 s, at 10 messages a second.
    assert content["gatherers"]["g1"]["cpu_us_per_message"] == pytest.approx(6_666.67)
    assert len(content["samples"]["g1"]) == COUNT
    assert "FLAT: nothing grew" in as_text(content)
    assert "NOT FLAT" in as_text(as_json(run, verdicts, ["g1: memory grows"]))
    assert picture(run, []).startswith(b"\x89PNG")


def test_this_process_uses_something() -> None:
    used = usage(os.getpid())
    assert used is not None
    assert used.peak_rss_mib >= used.rss_mib > 10
    assert used.threads >= 1
    with Path(os.devnull).open(encoding="utf-8"):
        more = usage(os.getpid())
    assert more is not None
    assert more.handles == used.handles + 1
    assert usage(2**22 + 1) is None


def test_wrong_options_are_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    options = SoakOptions(
        seconds=10, rate=1, gatherers=0, markets=1, seed=1, data_dir=tmp_path, plot_file=tmp_path / "x.jpg"
    )
    with pytest.raises(ConfigurationError) as failure:
        options.check()
    for word in ("--seconds", "--rate", "--gatherers", "--markets", "--data", "--plot"):
        assert word in str(failure.value)
