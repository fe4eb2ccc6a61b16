"""New and vanished fields of messages, against shapes that are shipped and that were seen before."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kalshi_platform.exchange import drift
from kalshi_platform.exchange.drift import (
    MISSING_AFTER,
    MOST_PATHS,
    Drift,
    Finding,
    KnownShapes,
    build_type_shape,
    decode_known_shapes,
    shape_of,
    type_of_frame,
)
from kalshi_platform.lab import known_shapes
from kalshi_platform_tests.fixtures.captures import ORDERBOOK, REST_ANSWERS, recording

SHIPPED = decode_known_shapes((Path(drift.__file__).parent / "known_shapes.json").read_bytes())
DELTA: dict[str, Any] = {
    "type": "orderbook_delta", "sid": 1, "seq": 4,
    "msg": {"market_ticker": "KX", "price_dollars": "0.1200", "strike": {"floor": 1.5}, "note": None},
}  # fmt: skip
KNOWN = KnownShapes({"orderbook_delta": build_type_shape([DELTA])}, {})


def observe(watch: Drift, content: dict[str, Any], at_us: int = 1) -> list[tuple[str, str, str]]:
    found = watch.observe("frame", type_of_frame(content), content, json.dumps(content).encode(), at_us)
    return [
        ("missing_field" if each.is_missing else "new_field", each.shape.path, each.shape.json_type) for each in found
    ]


def changed(**fields: Any) -> dict[str, Any]:
    return {**DELTA, "msg": {**DELTA["msg"], **fields}}


def test_a_known_message_is_no_finding_and_a_new_field_is_one_once() -> None:
    watch = Drift(KNOWN)
    assert observe(watch, DELTA) == []
    assert observe(watch, changed(queue={"position": 1})) == [
        ("new_field", "msg.queue", "object"),
        ("new_field", "msg.queue.position", "int"),
    ]
    assert observe(watch, changed(queue={"position": 2})) == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"price_dollars": 12}, [("new_field", "msg.price_dollars", "int")]),
        ({"price_dollars": None}, []),
        ({"strike": {"floor": 2}}, []),
        ({"note": "text"}, []),
        (
            {"price_dollars": ["0.1"]},
            [("new_field", "msg.price_dollars", "list"), ("new_field", "msg.price_dollars[]", "str")],
        ),
    ],
)
def test_another_type_of_a_known_field_is_new_unless_it_says_nothing(
    fields: dict[str, Any], expected: list[tuple[str, str, str]]
) -> None:
    assert observe(Drift(KNOWN), changed(**fields)) == expected


def test_a_new_type_is_one_finding_whatever_it_holds() -> None:
    watch = Drift(KNOWN)
    message = {"type": "future", "msg": {"a": 1, "b": {"c": "x"}}}
    assert observe(watch, message) == [("new_field", "", "object")]
    assert observe(watch, {"type": "future", "msg": {"d": 1}}) == []
    assert {row.path for row in watch.pop_new()} == {"", "type", "msg", "msg.a", "msg.b", "msg.b.c", "msg.d"}


def test_a_renamed_field_is_missing_after_enough_samples_and_once() -> None:
    watch = Drift(KNOWN)
    renamed = changed(price_usd="0.1200")
    del renamed["msg"]["price_dollars"]
    seen = [found for _ in range(3 * MISSING_AFTER) for found in observe(watch, renamed)]
    assert seen == [("new_field", "msg.price_usd", "str"), ("missing_field", "msg.price_dollars", "absent")]


def test_a_field_that_comes_now_and_then_is_not_missing() -> None:
    watch = Drift(KNOWN)
    without = changed()
    del without["msg"]["price_dollars"]
    for _ in range(3):
        for _ in range(MISSING_AFTER - 1):
            assert observe(watch, without) == []
        assert observe(watch, DELTA) == []


def test_of_an_object_that_is_gone_its_fields_are_not_told() -> None:
    watch = Drift(KNOWN)
    without = changed()
    del without["msg"]["strike"]
    seen = [found for _ in range(MISSING_AFTER) for found in observe(watch, without)]
    assert seen == [("missing_field", "msg.strike", "absent")]


def test_what_a_former_process_saw_is_not_new() -> None:
    first = Drift(KNOWN)
    renamed = changed(price_usd="0.1200")
    del renamed["msg"]["price_dollars"]
    for _ in range(MISSING_AFTER):
        observe(first, renamed)
    again = Drift(KNOWN, first.pop_new())
    assert [found for _ in range(MISSING_AFTER) for found in observe(again, renamed, at_us=9)] == []
    assert again.pop_new() == []
    assert {row.last_seen_us for row in again.seen_since(9)} == {9}


def test_names_of_their_own_are_not_followed_and_paths_are_bounded() -> None:
    example = {"custom": {"player": "x"}}
    assert shape_of(example, ["custom"]) == {("custom", "object")}
    watch = Drift(KNOWN)
    for number in range(2 * MOST_PATHS):
        watch.observe("frame", "future", {f"name{number}": 1}, b"", 1)
    assert len(watch.pop_new()) == MOST_PATHS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=50)
@given(JSON)
def test_any_json_has_a_shape_and_is_known_the_second_time(value: object) -> None:
    watch = Drift(KNOWN)
    watch.observe("object", "thing", {"value": value}, b"", 1)
    watch.pop_new()
    assert watch.observe("object", "thing", {"value": value}, b"", 2) == []
    assert watch.pop_new() == []


# --- the shipped file -------------------------------------------------------------------------------------------------


def test_what_the_simulated_exchange_sends_is_known() -> None:
    examples: known_shapes.Examples = defaultdict(list)
    known_shapes.simulate(examples, seconds=90, seed=5, frames_of_a_type=200)
    assert len(examples) > 20
    watch = Drift(SHIPPED)
    findings: list[Finding] = []
    for (source, name), contents in examples.items():
        for content in contents:
            findings += watch.observe(source, name, content, b"", 1)
    assert [each.detail for each in findings] == []


def test_what_was_recorded_of_the_exchange_is_known() -> None:
    examples: known_shapes.Examples = defaultdict(list)
    older: known_shapes.Examples = defaultdict(list)
    known_shapes.read_captures(recording(ORDERBOOK).parent, examples, older)
    assert recording(REST_ANSWERS)
    watch = Drift(SHIPPED)
    found = [
        each.detail
        for (source, name), contents in [*examples.items(), *older.items()]
        for content in contents
        for each in watch.observe(source, name, content, b"", 1)
        if not each.is_missing
    ]
    assert found == []


def test_the_file_of_known_shapes_can_be_written_again(tmp_path: Path) -> None:
    formats = tmp_path / "formats.md"
    formats.write_text(
        '```json\n{"type": "future", "sid": 1, "msg": {"a": "x"}}\n{"markets": [{"ticker": "T"}]}\n```\n'
    )
    known_shapes.main(["--formats", str(formats), "--out", str(tmp_path / "known.json")])
    written = decode_known_shapes((tmp_path / "known.json").read_bytes())
    assert written.frame["future"].paths == {"type": ["str"], "sid": ["int"], "msg": ["object"], "msg.a": ["str"]}
    assert written.object["market"].required == ["ticker"]
