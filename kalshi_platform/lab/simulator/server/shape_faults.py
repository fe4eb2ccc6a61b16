"""Applies changes of shape to what is sent: frames of chosen connections, and answers of REST to anybody."""

from __future__ import annotations

import json
from typing import Any

from kalshi_platform.lab.simulator.engine.core import Exchange
from kalshi_platform.lab.simulator.engine.faults import Fault
from kalshi_platform.lab.simulator.engine.payloads import encode
from kalshi_platform.lab.simulator.engine.shapes import SHAPE_KINDS, change_answer, change_frame
from kalshi_platform.lab.simulator.server.connection import Connection


class ShapeFaults:
    """Holds the acting changes of shape. `refresh` is called when faults were armed or ended, and before each flush."""

    def __init__(self, exchange: Exchange, connections: list[Connection]) -> None:
        self._exchange = exchange
        self._connections = connections
        self._effects: dict[tuple[int, str], dict[str, Any]] = {}

    def refresh(self) -> None:
        """Let every connection change the frames that the acting faults mean, and no others."""
        acting = [fault for fault in self._acting() if "type" in fault.params]
        for index, connection in enumerate(self._connections):
            own = [fault for fault in acting if fault.selects(connection.peer(index))]
            connection.session.reshape = self._reshape(connection, own) if own else None

    def answer(self, body: Any) -> Any:
        """Return an answer of REST as the acting faults shape it."""
        for fault in self._acting():
            if "object" not in fault.params:
                continue
            body = json.loads(encode(body))
            self._note(fault, "REST", {}, change_answer(fault.kind, fault.params, body))
        return body

    def _acting(self) -> list[Fault]:
        now = self._exchange.clock.monotonic()
        return [fault for fault in self._exchange.board.faults if fault.kind in SHAPE_KINDS and fault.active(now)]

    def _reshape(self, connection: Connection, faults: list[Fault]) -> Any:
        types = {fault.params["type"] for fault in faults}

        def reshape(kind: str, frame: bytes) -> bytes:
            if kind not in types:
                return frame
            content = json.loads(frame)
            for fault in faults:
                if change_frame(fault.kind, fault.params, content):
                    peer = {"connection": connection.id, "user_agent": connection.user_agent}
                    self._note(fault, connection.id, peer, 1)
            return encode(content)

        return reshape

    def _note(self, fault: Fault, key: str, effect: dict[str, Any], changed: int) -> None:
        """Count what was changed, in one effect for each connection and one for REST."""
        if not changed:
            return
        known = self._effects.get((fault.id, key))
        if known is None:
            known = self._effects[fault.id, key] = {**effect, "changed": 0}
            fault.effects.append(known)
        known["changed"] += changed
        fault.hits += changed
