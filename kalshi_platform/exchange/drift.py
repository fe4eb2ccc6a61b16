"""Compares the shape of what the exchange sends with the shapes that are known. Pure.

A *shape* is the set of (path, JSON type) of a message or REST object: `msg.price_dollars` is a `str`, `msg.levels[][]`
what stands in its pairs. A decoder reads the fields that it knows and passes over the others: without this a field that
comes is lost unnoticed, and one that changes its name only shows by what is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, TypeAlias

import msgspec

Group: TypeAlias = Literal["frame", "object"]
JsonType: TypeAlias = str
"""`object`, `list`, `str`, `int`, `float`, `bool`, `null`; `ABSENT` where a field is missing."""

ABSENT = "absent"
MISSING_AFTER = 20
"""Sampled messages of a type in a row without a required field, before it counts as gone."""
SAMPLE_BYTES = 2_048
MOST_PATHS = 400
"""Of one type. An object whose fields are names of their own would fill the table without end."""
MOST_TYPES = 200
_DEEPEST = 8
_LIST_ELEMENTS = 3
_SUBTYPED = frozenset({"market_lifecycle_v2", "market_lifecycle", "multivariate_market_lifecycle"})
_JSON_TYPES: dict[type, JsonType] = {
    dict: "object", list: "list", str: "str", int: "int", float: "float", bool: "bool", type(None): "null",
}  # fmt: skip


class TypeShape(msgspec.Struct, frozen=True):
    """Describes one type: the JSON types of each path, and the paths that every message of it has.

    `open_paths`: objects whose fields are names of their own (of a strike, of a player) and are not followed.
    """

    paths: dict[str, list[JsonType]]
    required: list[str] = msgspec.field(default_factory=list)
    open_paths: list[str] = msgspec.field(default_factory=list)


class KnownShapes(msgspec.Struct, frozen=True):
    """Holds the shapes that are shipped: of frames by type, of REST objects by kind."""

    frame: dict[str, TypeShape]
    object: dict[str, TypeShape]

    def of(self, group: Group, type_name: str) -> TypeShape | None:
        """Return the shape of a type, None for an unknown one."""
        return (self.frame if group == "frame" else self.object).get(type_name)


class SeenShape(msgspec.Struct):
    """Holds one row of `wire_shapes`: a path with a JSON type of one type, when it was seen, and a sample."""

    source: Group
    type: str
    path: str
    json_type: JsonType
    first_seen_us: int
    last_seen_us: int
    sample: bytes


class Finding(msgspec.Struct, frozen=True):
    """Describes a difference to what was known: a field (or type) that is new, or one that is missing."""

    shape: SeenShape

    @property
    def is_missing(self) -> bool:
        """Return whether the field is one that messages no longer have."""
        return self.shape.json_type == ABSENT

    @property
    def detail(self) -> str:
        """Say what differs, for a person."""
        shape = self.shape
        what = f"{shape.source} {shape.type}"
        if self.is_missing:
            return f"{what}: {shape.path} is missing in the last {MISSING_AFTER} sampled ones; it may have another name"
        if not shape.path:
            return f"{what} is a type that was never seen"
        return f"{what}: {shape.path} ({shape.json_type}) is new"


def type_of_frame(content: dict[str, object]) -> str:
    """Return the type of a decoded frame; lifecycle messages have one for each `event_type`."""
    name = content.get("type")
    name = name if isinstance(name, str) else ""
    msg = content.get("msg")
    if name in _SUBTYPED and isinstance(msg, dict) and isinstance(msg.get("event_type"), str):
        return f"{name}/{msg['event_type']}"[:100]
    return name[:100]


def shape_of(value: object, open_paths: Iterable[str] = ()) -> set[tuple[str, JsonType]]:
    """Return the (path, JSON type) of everything inside a decoded object; of lists the first elements and the last."""
    found: set[tuple[str, JsonType]] = set()
    _collect(value, "", frozenset(open_paths), found, 0)
    found.discard(("", "object"))
    return found


def _collect(
    value: object, path: str, open_paths: frozenset[str], found: set[tuple[str, JsonType]], depth: int
) -> None:
    if len(found) >= MOST_PATHS:
        return
    found.add((path, _JSON_TYPES[type(value)]))
    if depth >= _DEEPEST or path in open_paths:
        return
    if isinstance(value, dict):
        for name, inner in value.items():
            _collect(inner, f"{path}.{name}" if path else name, open_paths, found, depth + 1)
    elif isinstance(value, list):
        chosen = value if len(value) <= _LIST_ELEMENTS + 1 else (*value[:_LIST_ELEMENTS], value[-1])
        for inner in chosen:
            _collect(inner, f"{path}[]", open_paths, found, depth + 1)


class Drift:
    """Compares samples with what is known: shipped, or seen before. Its rows are what `wire_shapes` holds."""

    def __init__(self, known: KnownShapes, seen: Iterable[SeenShape] = ()) -> None:
        """`seen`: the rows of former processes, of which none raises an alarm again."""
        self._known = known
        self._rows: dict[tuple[Group, str], dict[tuple[str, JsonType], SeenShape]] = {}
        self._absent: dict[tuple[Group, str], dict[str, int]] = {}
        self._changed: dict[tuple[Group, str, str, JsonType], SeenShape] = {}
        for row in seen:
            self._rows.setdefault((row.source, row.type), {})[row.path, row.json_type] = row

    def observe(self, source: Group, type_name: str, value: object, sample: bytes, at_us: int) -> list[Finding]:
        """Take one decoded message or object; return what is new about it, or gone."""
        rows = self._rows.get((source, type_name))
        if rows is None:
            if len(self._rows) >= MOST_TYPES:
                return []
            rows = self._rows[source, type_name] = {}
        known = self._known.of(source, type_name)
        shape = shape_of(value, known.open_paths if known is not None else ())
        findings: list[Finding] = []
        if known is None and ("", "object") not in rows:
            findings.append(Finding(self._add(rows, source, type_name, "", "object", sample, at_us)))
        for path, json_type in sorted(shape - rows.keys()):
            if len(rows) >= MOST_PATHS:
                break
            is_new = known is not None and _is_new(path, json_type, known, rows)
            row = self._add(rows, source, type_name, path, json_type, sample, at_us)
            if is_new:
                findings.append(Finding(row))
        for each in shape & rows.keys():
            rows[each].last_seen_us = max(rows[each].last_seen_us, at_us)
        if known is not None:
            present = {path for path, _ in shape}
            for path in self._gone(source, type_name, known.required, present):
                if (path, ABSENT) not in rows:
                    row = self._add(rows, source, type_name, path, ABSENT, sample, at_us)
                    findings.append(Finding(row))
        return findings

    def pop_new(self) -> list[SeenShape]:
        """Remove and return the rows that came since the last call."""
        popped = list(self._changed.values())
        self._changed.clear()
        return popped

    def seen_since(self, at_us: int) -> Iterator[SeenShape]:
        """Yield the rows that were seen at or after a moment."""
        return (row for rows in self._rows.values() for row in rows.values() if row.last_seen_us >= at_us)

    def _add(
        self,
        rows: dict[tuple[str, JsonType], SeenShape],
        source: Group,
        type_name: str,
        path: str,
        json_type: JsonType,
        sample: bytes,
        at_us: int,
    ) -> SeenShape:
        row = SeenShape(source, type_name, path[:500], json_type, at_us, at_us, sample[:SAMPLE_BYTES])
        rows[path, json_type] = row
        self._changed[source, type_name, row.path, json_type] = row
        return row

    def _gone(self, source: Group, type_name: str, required: list[str], present: set[str]) -> list[str]:
        """Count the samples in a row that lack each required path; return those that lack long enough to be gone.

        Of a path inside one that is gone itself nothing is said.
        """
        counts = self._absent.setdefault((source, type_name), {})
        gone = []
        for path in required:
            if path in present:
                counts.pop(path, None)
                continue
            counts[path] = counts.get(path, 0) + 1
            parent = path.rpartition(".")[0]
            if counts[path] >= MISSING_AFTER and (not parent or parent in present):
                gone.append(path)
        return gone


def _is_new(path: str, json_type: JsonType, known: TypeShape, rows: dict[tuple[str, JsonType], SeenShape]) -> bool:
    """Whether a path with this type deserves an alarm; null says nothing of a type, and an integer is a float too."""
    shipped = known.paths.get(path)
    types = {*(shipped or ()), *(each for at, each in rows if at == path and each != ABSENT)}
    if not types:
        return True
    if json_type == "null" or types == {"null"}:
        return False
    return not (json_type in types or (json_type == "int" and "float" in types))


def decode_known_shapes(content: bytes) -> KnownShapes:
    """Decode the file of shipped shapes."""
    return msgspec.json.decode(content, type=KnownShapes)


def build_type_shape(examples: Iterable[object], open_paths: Iterable[str] = ()) -> TypeShape:
    """Build the shape of a type from examples; what all of them have is required."""
    paths: dict[str, set[JsonType]] = {}
    required: set[str] | None = None
    opened = frozenset(open_paths)
    for example in examples:
        shape = shape_of(example, opened)
        for path, json_type in shape:
            paths.setdefault(path, set()).add(json_type)
        present = {path for path, _ in shape}
        required = present if required is None else required & present
    return TypeShape(
        {path: sorted(types) for path, types in sorted(paths.items())},
        sorted(path for path in required or () if "[]" not in path),
        sorted(opened),
    )
