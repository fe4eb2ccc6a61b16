"""Changes of the shape of messages and REST objects, as an exchange makes them without a word. Pure.

Fields are named by their path: `name`, or `additional_metadata.name` inside another one.
"""

from __future__ import annotations

from typing import Any

from kalshi_platform.lab.simulator.engine.faults import UnknownFault

Json = dict[str, Any]
SHAPE_KINDS = frozenset({"add_field", "rename_field", "more_decimals"})
REST_OBJECTS: dict[str, frozenset[str]] = {
    "series": frozenset({"series"}),
    "event": frozenset({"event", "events"}),
    "market": frozenset({"market", "markets"}),
    "trade": frozenset({"trades"}),
    "orderbook": frozenset({"orderbook_fp"}),
    "candlestick": frozenset({"candlesticks"}),
}
"""The members of an answer under which objects of a kind stand, one or a list."""


def check_shape_params(kind: str, params: Json) -> None:
    """Check the parameters of a fault of `SHAPE_KINDS`. Raises UnknownFault.

    `type` is a frame's, `object` one of `REST_OBJECTS`; `name` a path in `msg` or in the object, with `envelope` in the
    frame itself. `add_field` needs `value`, `rename_field` needs `to`; `more_decimals` appends `digits` ("5").
    """
    if ("type" in params) == ("object" in params):
        raise UnknownFault("name either type (of a frame) or object (of REST)")
    if "object" in params and params["object"] not in REST_OBJECTS:
        raise UnknownFault(f"object must be one of {', '.join(sorted(REST_OBJECTS))}")
    if not isinstance(params.get("name"), str) or not params["name"]:
        raise UnknownFault("name must be the path of a field")
    if kind == "add_field" and "value" not in params:
        raise UnknownFault("add_field needs a value")
    if kind == "rename_field" and not isinstance(params.get("to"), str):
        raise UnknownFault("rename_field needs the name that it gets: to")
    if not str(params.get("digits", "5")).isdigit():
        raise UnknownFault("digits must be digits")


def change_shape(kind: str, params: Json, target: object) -> bool:
    """Change one object as the fault says; False where the object has no such field."""
    *parents, name = params["name"].split(".")
    for parent in parents:
        target = target.get(parent) if isinstance(target, dict) else None
    if not isinstance(target, dict):
        return False
    if kind == "add_field":
        target[name] = params["value"]
        return True
    if name not in target:
        return False
    if kind == "rename_field":
        target[params["to"]] = target.pop(name)
    else:
        target[name] = _with_digits(target[name], str(params.get("digits", "5")))
    return True


def _with_digits(value: Any, digits: str) -> Any:
    """Return a decimal text with digits appended; of lists (levels of a book) every text in them."""
    if isinstance(value, list):
        return [_with_digits(each, digits) for each in value]
    if isinstance(value, str):
        return f"{value}{digits}" if "." in value else f"{value}.{digits}"
    return value


def change_frame(kind: str, params: Json, content: Json) -> bool:
    """Change one decoded frame; False where it is of another type or has no such field."""
    if content.get("type") != params.get("type"):
        return False
    return change_shape(kind, params, content if params.get("envelope") else content.get("msg"))


def change_answer(kind: str, params: Json, body: object) -> int:
    """Change every object of the kind in an answer of REST; returns how many were changed."""
    if isinstance(body, list):
        return sum(change_answer(kind, params, each) for each in body)
    if not isinstance(body, dict) or "object" not in params:
        return 0
    changed = 0
    for key, value in list(body.items()):
        if key in REST_OBJECTS[params["object"]]:
            found = value if isinstance(value, list) else [value]
            changed += sum(change_shape(kind, params, each) for each in found)
        if isinstance(value, dict | list):
            changed += change_answer(kind, params, value)
    return changed
