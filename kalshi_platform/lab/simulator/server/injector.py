"""Faults that act on connections: what the fault board says, done to sockets and frames, and its effect noted."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

from kalshi_platform.lab.simulator.engine.core import Exchange
from kalshi_platform.lab.simulator.engine.faults import Fault, UnknownFault
from kalshi_platform.lab.simulator.engine.shapes import SHAPE_KINDS, check_shape_params
from kalshi_platform.lab.simulator.engine.subscriptions import BOOK, IGNORED, Gate, Subscription
from kalshi_platform.lab.simulator.server.connection import Connection
from kalshi_platform.lab.simulator.server.shape_faults import ShapeFaults

CONNECTION_KINDS = frozenset(
    {
        "drop_frame",
        "stall",
        "cut",
        "unknown_frame",
        "error_25",
        "ignore_get_snapshot",
        "error_26",
        "error_27",
        "late_snapshot",
        "early_data",
        "forget_subscription",
        "flood",
        "new_type",
        "add_field",
        "rename_field",
        "more_decimals",
    }
)
MOST_AT_ONCE = 2_000
"""Frames of a flood that one tick queues for a connection: the exchange's own messages must not wait behind them."""


@dataclass(frozen=True, slots=True)
class LateSnapshot:
    """Snapshots of one command that wait until `due` (monotonic seconds)."""

    due: float
    subscription: Subscription
    tickers: list[str]
    command_id: int | None


@dataclass(slots=True)
class DropPlan:
    """What one connection still has to lose for one fault."""

    fault: Fault
    left: int | None


@dataclass(slots=True)
class Flow:
    """What one connection got of one flood. `effect` is shown by the control channel and counts on."""

    began: float
    sent: int
    effect: dict[str, Any]


class FaultInjector:
    """Arms faults over the live connections (shared list, in order of arrival)."""

    def __init__(self, exchange: Exchange, connections: list[Connection]) -> None:
        self._exchange = exchange
        self._connections = connections
        self._plans: dict[str, list[DropPlan]] = {}
        self._late: list[LateSnapshot] = []
        self._flows: dict[tuple[int, str], Flow] = {}
        self._rng = random.Random(exchange.settings.seed + 4)  # noqa: S311
        self.shapes = ShapeFaults(exchange, connections)

    def arm(self, kind: str, params: dict[str, Any]) -> Fault:
        """Arm a fault and do at once what can be done at once. Raises `UnknownFault`."""
        exchange = self._exchange
        params = self._resolve(kind, params)
        if kind in SHAPE_KINDS:
            check_shape_params(kind, params)
        fault = exchange.board.arm(kind, params, now=exchange.clock.monotonic(), at_us=exchange.now_us())
        if kind == "cut":
            self._cut(fault)
        elif kind == "unknown_frame":
            self._send_unknown(fault)
        elif kind in ("error_25", "forget_subscription"):
            self._end_subscription(fault)
        elif kind == "drop_frame":
            self._plan_drops(fault)
        elif kind == "flood" and fault.until is None:
            fault.ended = True
            raise UnknownFault("a flood needs seconds")
        elif kind in SHAPE_KINDS:
            self.shapes.refresh()
        elif kind == "exchange_inactive" and params.get("cut"):
            self._cut(fault)
        return fault

    def clear(self, kind: str | None = None) -> int:
        """End faults; stalled connections go on."""
        ended = self._exchange.board.clear(kind)
        self.tick()
        return ended

    def admit(self, connection: Connection) -> None:
        """Put faults that last for a time on a new connection."""
        now = self._exchange.clock.monotonic()
        for fault in self._exchange.board.active("drop_frame", now):
            if fault.until is not None and fault.selects(connection.peer(len(self._connections) - 1)):
                self._add_plan(connection, fault, None)
        connection.session.refuse = self._refuser(connection)
        connection.session.defer = self._deferrer(connection)
        connection.session.data_first = lambda: self._hit("early_data", connection) is not None
        self.shapes.refresh()

    def tick(self) -> None:
        """Stall and release connections, send snapshots whose time has come; call before each flush."""
        board = self._exchange.board
        if not board.faults:
            return
        self._send_late()
        self._send_floods()
        self.shapes.refresh()
        stalls = board.active("stall", self._exchange.clock.monotonic())
        for index, connection in enumerate(list(self._connections)):
            fault = next((each for each in stalls if each.selects(connection.peer(index))), None)
            if fault is not None:
                if not connection.is_stalled:
                    connection.is_stalled = True
                    connection.stall_pings = bool(fault.params.get("pings", True))
                    fault.effects.append(
                        {"connection": connection.id, "user_agent": connection.user_agent, "stalled": True}
                    )
                    fault.hits += 1
                if fault.params.get("after") == "drop" and connection.session.frames:
                    fault.effects.append({"connection": connection.id, "lost_frames": len(connection.session.frames)})
                    connection.dropped += len(connection.session.frames)
                    connection.session.frames = []
            elif connection.is_stalled:
                connection.is_stalled = False

    def refused_handshake(self, user_agent: str) -> int | None:
        """Return the status a new connection is refused with."""
        for fault in self._exchange.board.active("refuse_handshake", self._exchange.clock.monotonic()):
            agent = fault.params.get("user_agent")
            if agent is None or str(agent) in user_agent:
                status = int(fault.params.get("status", 503))
                fault.hit({"user_agent": user_agent, "status": status})
                return status
        return None

    # --- parts ---------------------------------------------------------------------------------------------------

    def _resolve(self, kind: str, params: dict[str, Any]) -> dict[str, Any]:
        """Pin an index to the connection that has it now, so that a lasting fault does not wander to another one."""
        wanted = params.get("connection", "all")
        if kind not in CONNECTION_KINDS or wanted == "all":
            return params
        ids = []
        for each in wanted if isinstance(wanted, list) else [wanted]:
            if isinstance(each, int):
                if not 0 <= each < len(self._connections):
                    raise UnknownFault(f"no connection has index {each}; there are {len(self._connections)}")
                ids.append(self._connections[each].id)
            else:
                ids.append(str(each))
        return {**params, "connection": ids}

    def _selected(self, fault: Fault) -> list[Connection]:
        return [each for index, each in enumerate(self._connections) if fault.selects(each.peer(index))]

    def _cut(self, fault: Fault) -> None:
        chosen = self._selected(fault)
        for connection in chosen[: fault.left] if fault.kind == "cut" else chosen:
            fault.effects.append(
                {"connection": connection.id, "user_agent": connection.user_agent, "sent": connection.sent}
            )
            fault.hits += 1
            # What is queued leaves no trace on the other side, but what was sent stays sent.
            connection.session.frames = []
            connection.abort()
        if fault.kind == "cut":
            fault.ended = True

    def _send_unknown(self, fault: Fault) -> None:
        variant = fault.params.get("variant", "type")
        for connection in self._selected(fault):
            session = connection.session
            subscription = session.by_channel(str(fault.params.get("channel", BOOK)))
            for _ in range(fault.left or 1):
                if "frame" in fault.params:
                    frame = str(fault.params["frame"]).encode()
                elif variant == "json":
                    frame = b'{"type":"orderbook_delta","sid":1,"seq":'
                elif variant == "shape" and subscription is not None:
                    envelope = json.dumps({"type": BOOK, **subscription.next_seq(), "msg": {"unheard_of": [1, 2, 3]}})
                    frame = envelope.encode()
                elif variant in ("type", "shape"):
                    frame = b'{"type":"unheard_of","msg":{"note":"a type from the future"}}'
                else:
                    raise UnknownFault("variant must be type, json or shape")
                session.frames.append(frame)
                fault.effects.append({"connection": connection.id, "frame": frame.decode()})
                fault.hits += 1
            connection.flush()
        fault.ended = True

    def _end_subscription(self, fault: Fault) -> None:
        """`error_25` says why (`code` may be 10, the other terminal one); `forget_subscription` says nothing."""
        channel = str(fault.params.get("channel", BOOK))
        for connection in self._selected(fault)[: fault.left]:
            subscription = connection.session.by_channel(channel)
            if subscription is not None:
                if fault.kind == "forget_subscription":
                    connection.session.drop(subscription)
                else:
                    connection.session.fail(subscription, int(fault.params.get("code", 25)))
                connection.flush()
                fault.effects.append({"connection": connection.id, "sid": subscription.sid, "seq": subscription.seq})
                fault.hits += 1
        fault.ended = True

    def _plan_drops(self, fault: Fault) -> None:
        """`count` holds for each selected connection."""
        count, chosen = fault.left, self._selected(fault)
        if count is not None:
            fault.left = count * len(chosen)
        for connection in chosen:
            self._add_plan(connection, fault, count)

    def _add_plan(self, connection: Connection, fault: Fault, left: int | None) -> None:
        self._plans.setdefault(connection.id, []).append(DropPlan(fault, left))
        connection.session.gate = self._gate(connection)

    def _gate(self, connection: Connection) -> Gate:
        def swallow(subscription: Subscription, kind: str, frame: bytes) -> bool:
            now = self._exchange.clock.monotonic()
            plans = self._plans[connection.id]
            plans[:] = [plan for plan in plans if plan.left != 0 and plan.fault.active(now)]
            if not plans:
                connection.session.gate = None
            for plan in plans:
                if self._wants(plan.fault, subscription, kind):
                    if plan.left is not None:
                        plan.left -= 1
                    connection.dropped += 1
                    plan.fault.hit(_lost(connection, frame))
                    return True
            return False

        return swallow

    def _wants(self, fault: Fault, subscription: Subscription, kind: str) -> bool:
        """Only frames with a seq are lost, unless the fault names the ticker channel."""
        channel = fault.params.get("channel")
        if (channel is None and not subscription.numbered) or channel not in (None, subscription.channel):
            return False
        if fault.params.get("type") not in (None, kind):
            return False
        probability = float(fault.params.get("probability", 1.0))
        return probability >= 1.0 or self._rng.random() < probability

    def _hit(self, kind: str, connection: Connection, **effect: Any) -> Fault | None:
        """Return the acting fault of a kind that selects the connection, its effect noted."""
        index = self._connections.index(connection) if connection in self._connections else -1
        fault = self._exchange.board.first(kind, self._exchange.clock.monotonic(), connection.peer(index))
        if fault is not None:
            fault.hit({"connection": connection.id, **effect})
        return fault

    def _deferrer(self, connection: Connection) -> Any:
        def defer(subscription: Subscription, tickers: list[str], command_id: int | None) -> bool:
            if not tickers:
                return False
            fault = self._hit("late_snapshot", connection, tickers=len(tickers))
            if fault is None:
                return False
            due = self._exchange.clock.monotonic() + float(fault.params.get("delay_s", 1.0))
            self._late.append(LateSnapshot(due, subscription, tickers, command_id))
            return True

        return defer

    def _send_late(self) -> None:
        now = self._exchange.clock.monotonic()
        waiting, self._late = self._late, []
        for each in waiting:
            session = each.subscription.session
            if each.due > now:
                self._late.append(each)
            elif session.subscriptions.get(each.subscription.sid) is each.subscription:
                session.send_snapshots(each.subscription, each.tickers, each.command_id, at_once=True)

    def _send_floods(self) -> None:
        """Send frames of a type from the future, `per_second` of them: `flood` many, `new_type` one.

        They come beside the subscriptions, or `numbered`, which takes a number of the subscription to `channel` each.
        They name no market, or with `ticker` one of that subscription (true), or the given one.
        """
        now = self._exchange.clock.monotonic()
        board = self._exchange.board
        for fault in (*board.active("flood", now), *board.active("new_type", now)):
            is_numbered = bool(fault.params.get("numbered", False))
            per_second = float(fault.params.get("per_second", 1_000 if fault.kind == "flood" else 1))
            for connection in self._selected(fault):
                flow = self._flows.get((fault.id, connection.id))
                if flow is None:
                    effect = {"connection": connection.id, "user_agent": connection.user_agent, "frames": 0}
                    flow = self._flows[fault.id, connection.id] = Flow(now, 0, effect)
                    fault.effects.append(effect)
                due = 1 + int((now - flow.began) * per_second)
                session = connection.session
                subscription = session.by_channel(str(fault.params.get("channel", BOOK)))
                ticker = fault.params.get("ticker")
                if subscription is None and (is_numbered or ticker is True):
                    continue
                if ticker is True and subscription is not None:
                    ticker = next(iter(subscription.tickers), None)
                about = {"market_ticker": ticker} if ticker else {}
                for _ in range(min(MOST_AT_ONCE, due - flow.sent)):
                    envelope = subscription.next_seq() if is_numbered and subscription is not None else {}
                    kind = str(fault.params.get("type", "unheard_of_news"))
                    content = {"type": kind, **envelope, "msg": {**about, "n": flow.sent}}
                    session.frames.append(json.dumps(content, separators=(",", ":")).encode())
                    flow.sent += 1
                    fault.hits += 1
                flow.effect["frames"] = flow.sent

    def _refuser(self, connection: Connection) -> Any:
        def refuse(_command: str, action: str | None) -> int | None:
            now = self._exchange.clock.monotonic()
            index = self._connections.index(connection) if connection in self._connections else -1
            peer = connection.peer(index)
            for code in (26, 27):
                fault = self._exchange.board.first(f"error_{code}", now, peer)
                if fault is not None:
                    fault.hit({"connection": connection.id, "code": code})
                    return code
            if not connection.bucket.take(1.0, now):
                return 27
            if action == "get_snapshot":
                fault = self._exchange.board.first("ignore_get_snapshot", now, peer)
                if fault is not None:
                    fault.hit({"connection": connection.id})
                    return IGNORED
            return None

        return refuse


def _lost(connection: Connection, frame: bytes) -> dict[str, Any]:
    content = json.loads(frame)
    msg = content["msg"]
    members = ("market_ticker", "ts", "ts_ms", "side", "price_dollars", "delta_fp", "trade_id", "event_type")
    return {
        "connection": connection.id,
        "user_agent": connection.user_agent,
        "type": content["type"],
        "sid": content["sid"],
        "seq": content.get("seq"),
        **{name: msg[name] for name in members if name in msg},
    }
