"""Writes the file of shipped shapes, `exchange/known_shapes.json`: what the exchange is known to send.

    python -m kalshi_platform.lab.known_shapes --formats formats.md --captures FOLDER

Examples come from a description of the formats (JSON in code fences of Markdown), from the simulated exchange and from
recordings of the real one (`*.jsonl` of frames, `rest/*.json`). What only documentation names stands below. Recordings
that are older than the current shape add paths, and take nothing from what is required. Paths of the file that no
source shows now are kept.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from kalshi_platform.clock import SystemClock
from kalshi_platform.exchange.drift import (
    Group,
    KnownShapes,
    TypeShape,
    build_type_shape,
    decode_known_shapes,
    type_of_frame,
)
from kalshi_platform.lab.simulator.engine.core import Exchange
from kalshi_platform.lab.simulator.engine.subscriptions import PUBLIC_CHANNELS, Session
from kalshi_platform.lab.simulator.server import rest_shapes
from kalshi_platform.lab.simulator.settings import ScenarioSettings, SimulatorSettings

Json: TypeAlias = dict[str, Any]
Examples: TypeAlias = dict[tuple[Group, str], list[Json]]
TARGET = Path(__file__).parents[1] / "exchange" / "known_shapes.json"
OBJECTS = {
    "series": "series", "event": "event", "events": "event", "market": "market", "markets": "market",
    "trades": "trade", "orderbooks": "book",
}  # fmt: skip
"""The members of an answer of REST, and the kind of the objects under them."""
DOCUMENTED: dict[tuple[Group, str], Json] = {
    ("frame", "orderbook_delta"): {"id": 1, "msg": {"client_order_id": "", "subaccount": 0}},
    ("frame", "orderbook_snapshot"): {"id": 1},
    ("frame", "error"): {"id": 1, "sid": 1, "seq": 1, "msg": {"market_ticker": "", "market_tickers": [""]}},
    ("frame", "ok"): {"sid": 1, "seq": 1, "msg": {"market_ids": [""], "market_tickers": [""]}},
    ("frame", "unsubscribed"): {"id": 1, "seq": 1},
    ("frame", "event_lifecycle"): {"msg": {"strike_date": 1, "strike_period": ""}},
    ("frame", "event_fee_update"): {"msg": {"fee_type_override": "", "fee_multiplier_override": 0.5}},
    ("frame", "market_lifecycle_v2/created"): {
        "msg": {
            "price_ranges": [],
            "additional_metadata": {"strike_type": "", "floor_strike": 0.5, "cap_strike": 0.5, "custom_strike": {}},
        }
    },
    ("frame", "market_lifecycle_v2/metadata_updated"): {
        "msg": {"strike_type": "", "floor_strike": 0.5, "cap_strike": 0.5, "custom_strike": {}, "yes_sub_title": ""}
    },
    ("object", "series"): {
        "tags": [""], "product_metadata": {}, "volume_fp": "", "last_updated_ts": "", "exchange_index": 0,
        "additional_prohibitions": [""], "fee_multiplier": 0.5, "settlement_sources": [{"name": "", "url": ""}],
    },
    ("object", "event"): {
        "category": "", "strike_date": "", "strike_period": "", "markets": [], "product_metadata": {},
        "last_updated_ts": "", "fee_type_override": "", "fee_multiplier_override": 0.5, "exchange_index": 0,
        "settlement_sources": [{"name": "", "url": ""}],
    },
    ("object", "market"): {
        "title": "", "subtitle": "", "expected_expiration_time": "", "expiration_time": "", "is_provisional": True,
        "settlement_value_dollars": "", "settlement_ts": "", "settlement_floor_dollars": "",
        "occurrence_datetime": "", "fee_waiver_expiration_time": "", "early_close_condition": "", "strike_type": "",
        "floor_strike": 0.5, "cap_strike": 0.5, "functional_strike": "", "custom_strike": {},
        "mve_collection_ticker": "", "primary_participant_key": "", "exchange_index": 0,
        "mve_selected_legs": [
            {"event_ticker": "", "market_ticker": "", "side": "", "yes_settlement_value_dollars": ""}
        ],
    },
    ("object", "trade"): {"taker_side": ""},
}  # fmt: skip
"""Fields that documentation names and not every message has; each is optional."""
OPEN_PATHS: dict[tuple[Group, str], tuple[str, ...]] = {
    ("frame", "market_lifecycle_v2/created"): ("msg.additional_metadata.custom_strike",),
    ("frame", "multivariate_market_lifecycle/created"): ("msg.additional_metadata.custom_strike",),
    ("frame", "market_lifecycle_v2/metadata_updated"): ("msg.custom_strike",),
    ("object", "series"): ("product_metadata",),
    ("object", "event"): ("product_metadata", "markets"),
    ("object", "market"): ("custom_strike",),
}
"""Objects whose fields are names of their own."""
COMBO_EVENTS = ("created", "activated", "deactivated", "close_date_updated", "determined", "settled")
_FENCE = re.compile(r"^```json\n(.*?)^```", re.MULTILINE | re.DOTALL)
_RUN_S = 300
_STEP_NS = 50_000_000


def add_frame(examples: Examples, frame: Json) -> None:
    """Add an example of a frame."""
    examples["frame", type_of_frame(frame)].append(frame)


def add_answer(examples: Examples, body: Json) -> None:
    """Add every object of an answer of REST."""
    for member, kind in OBJECTS.items():
        found = body.get(member)
        for each in found if isinstance(found, list) else [found]:
            if isinstance(each, dict) and "candlesticks" not in each:
                examples["object", kind].append(each)


def read_formats(path: Path, examples: Examples) -> None:
    """Add the examples of a description: objects of JSON in its code fences, frames and answers."""
    decoder = json.JSONDecoder()
    for fence in _FENCE.findall(path.read_text(encoding="utf-8")):
        at = 0
        while (begin := fence.find("{", at)) >= 0:
            try:
                found, at = decoder.raw_decode(fence, begin)
            except ValueError:
                break
            if isinstance(found.get("type"), str) and ("msg" in found or "sid" in found):
                add_frame(examples, found)
            else:
                add_answer(examples, found)


def read_captures(folder: Path, examples: Examples, older: Examples) -> None:
    """Add the frames of recordings to `examples`, and answers of REST, which are of older shapes, to `older`."""
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            add_frame(examples, json.loads(line)["frame"])
    for path in sorted(folder.glob("rest/*.json")):
        add_answer(older, json.loads(path.read_text(encoding="utf-8"))["response"])


class _StandingClock(SystemClock):
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.ns = 1_795_380_000_000_000_000

    def now(self) -> datetime:
        """Return the time that was set, in UTC."""
        return datetime.fromtimestamp(self.ns / 1e9, UTC)

    def now_ns(self) -> int:
        """Return the time that was set, in nanoseconds."""
        return self.ns

    def monotonic(self) -> float:
        """Return the time that was set, in seconds."""
        return self.ns / 1e9


def simulate(examples: Examples, *, seconds: int = _RUN_S, seed: int = 1, frames_of_a_type: int = 2_000) -> None:
    """Add what the simulated exchange sends in some minutes of births and deaths of markets."""
    clock = _StandingClock()
    scenario = ScenarioSettings(
        births_per_minute=30, life_s=20, open_after_s=1, determine_after_s=2, settle_after_s=2, mischief_per_minute=120,
        combos=True,
    )  # fmt: skip
    settings = SimulatorSettings(key_file=Path("unused"), markets=30, rate=50, seed=seed, scenario=scenario)
    exchange = Exchange(settings, clock)
    session = Session(exchange, exchange.router)
    _subscribe(session, [market.ticker for market in exchange.venue.quoting])
    taken: dict[str, int] = defaultdict(int)
    chosen = random.Random(1)  # noqa: S311
    for _ in range(seconds * 1_000_000_000 // _STEP_NS):
        clock.ns += _STEP_NS
        exchange.advance(hold=False)
        for frame in session.frames:
            content = json.loads(frame)
            name = type_of_frame(content)
            taken[name] += 1
            if taken[name] <= frames_of_a_type or chosen.random() < 0.01:
                add_frame(examples, content)
        session.frames = []
    for body in _answers(exchange):
        add_answer(examples, body)


def _subscribe(session: Session, tickers: list[str]) -> None:
    """Send one command of each kind, right and wrong ones, so that each answer is among the examples."""
    book = {"channels": ["orderbook_delta"], "market_tickers": tickers}
    others = sorted(PUBLIC_CHANNELS - {"orderbook_delta"})
    commands: list[tuple[str, Json]] = [
        ("subscribe", book),
        ("subscribe", {"channels": others}),
        ("update_subscription", {"sids": [1], "action": "get_snapshot", "market_tickers": tickers[:2]}),
        ("update_subscription", {"sids": [1], "action": "delete_markets", "market_tickers": tickers[:1]}),
        ("update_subscription", {"sids": [1], "action": "nonsense", "market_tickers": tickers[:1]}),
        ("subscribe", {"channels": ["nonsense"]}),
        ("list_subscriptions", {}),
    ]
    for number, (command, params) in enumerate(commands, 1):
        session.command(json.dumps({"id": number, "cmd": command, "params": params}))
    probe = session.by_channel("trade")
    if probe is not None:
        session.command(json.dumps({"id": 90, "cmd": "unsubscribe", "params": {"sids": [probe.sid]}}))
        session.command(json.dumps({"id": 91, "cmd": "subscribe", "params": {"channels": ["trade"]}}))


def _answers(exchange: Exchange) -> Iterator[Json]:
    venue, now_us = exchange.venue, exchange.now_us()
    yield {"series": [rest_shapes.series(each, volume_e2=1, with_metadata=True) for each in venue.series.values()]}
    yield {"series": [rest_shapes.series(each) for each in venue.series.values()]}
    yield {"events": [rest_shapes.event(each, now_us=now_us) for each in venue.events.values()]}
    yield {"markets": [rest_shapes.market(each, now_us) for each in venue.market_list]}
    yield {"trades": [rest_shapes.trade(each) for each in venue.trades[-1_000:]]}
    yield {
        "orderbooks": [
            {"ticker": market.ticker, **rest_shapes.orderbook(market.book)} for market in venue.market_list[:200]
        ]
    }


def build(examples: Examples, older: Examples, former: KnownShapes | None = None) -> dict[Group, dict[str, TypeShape]]:
    """Return the shapes of all types, by group; what `former` has is kept, where no source of now shows it."""
    for event_type in COMBO_EVENTS:  # the same messages on the combos' channel
        examples["frame", f"multivariate_market_lifecycle/{event_type}"] += [
            {**frame, "type": "multivariate_market_lifecycle"}
            for frame in examples["frame", f"market_lifecycle_v2/{event_type}"][:10]
        ]
    groups: dict[Group, dict[str, TypeShape]] = {"frame": {}, "object": {}}
    if former is not None:
        groups = {"frame": dict(former.frame), "object": dict(former.object)}
    for key in sorted({*examples, *older, *DOCUMENTED}):
        opened = OPEN_PATHS.get(key, ())
        current = build_type_shape(examples.get(key, ()), opened)
        optional = build_type_shape([DOCUMENTED.get(key, {})], opened)
        others = build_type_shape([*older.get(key, ()), DOCUMENTED.get(key, {})], opened)
        before = groups[key[0]].get(key[1], TypeShape({}))
        paths = {
            path: sorted({each for shape in (current, others, before) for each in shape.paths.get(path, ())})
            for path in sorted({*current.paths, *others.paths, *before.paths})
        }
        groups[key[0]][key[1]] = TypeShape(
            paths,
            [path for path in current.required if path not in optional.paths or path == "msg"],
            list(opened),
        )
    return groups


def write(groups: dict[Group, dict[str, TypeShape]], target: Path) -> None:
    """Write the file, a line for each path."""
    content = {
        group: {
            name: {"open_paths": shape.open_paths, "required": shape.required, "paths": shape.paths}
            for name, shape in sorted(types.items())
        }
        for group, types in groups.items()
    }
    text = json.dumps(content, indent=1)
    # A list of names is one line.
    text = re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda found: "[" + re.sub(r"\s+", " ", found[1]) + "]", text)
    target.write_text(text + "\n", encoding="utf-8")


def main(arguments: Iterable[str] | None = None) -> None:
    """Build the file from the sources that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", type=Path, help="Markdown with examples of the formats in code fences of JSON")
    parser.add_argument("--captures", type=Path, help="folder of recordings of the exchange")
    parser.add_argument("--out", type=Path, default=TARGET)
    options = parser.parse_args(None if arguments is None else list(arguments))
    examples: Examples = defaultdict(list)
    older: Examples = defaultdict(list)
    simulate(examples)
    if options.formats is not None:
        read_formats(options.formats, examples)
    if options.captures is not None:
        read_captures(options.captures, examples, older)
    former = decode_known_shapes(options.out.read_bytes()) if options.out.is_file() else None
    write(build(examples, older, former), options.out)


if __name__ == "__main__":
    main()
