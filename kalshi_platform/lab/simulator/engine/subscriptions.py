"""One connection's subscriptions: commands in, frames out. Pure; the shell only moves bytes.

A connection has one `sid` per channel, counted from 1 and never used twice; each `sid` has one `seq` counter from 1
over all its markets, which snapshots, deltas, `ok`, `unsubscribed` and subscription-scoped errors consume alike. The
`ticker` channel carries no `seq`. Unknown and settled tickers subscribe silently and stay mute.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from kalshi_platform.lab.simulator.engine import payloads
from kalshi_platform.lab.simulator.engine.universe import FINALIZED, Market

BOOK, TICKER, TRADE, LIFECYCLE, COMBO_LIFECYCLE = (
    "orderbook_delta", "ticker", "trade", "market_lifecycle_v2", "multivariate_market_lifecycle",
)  # fmt: skip
PUBLIC_CHANNELS = frozenset({BOOK, TICKER, TRADE, LIFECYCLE, COMBO_LIFECYCLE})
PRIVATE_CHANNELS = frozenset({"fill", "market_positions", "user_orders", "order_group_updates", "communications"})
PAID_CHANNELS = frozenset({"cfbenchmarks_value", "cfbenchmarks_value_5hz", "pyth_value"})
KNOWN_CHANNELS = PUBLIC_CHANNELS | PRIVATE_CHANNELS | PAID_CHANNELS
UNNUMBERED = frozenset({TICKER, "fill", "market_positions", "user_orders"})

ERRORS = {
    1: "Unable to process message", 2: "Params required", 3: "Channels required", 4: "Subscription IDs required",
    5: "Unknown command", 7: "Unknown subscription ID", 8: "Unknown channel name", 9: "Authentication required",
    10: "Channel error",
    11: "Malformed parameter", 12: "Exactly one subscription ID is required", 13: "Unsupported action",
    14: "Market Ticker required", 15: "Action required", 25: "Subscription buffer overflow",
    26: "Market limit per subscription exceeded", 27: "Command rate per subscription exceeded",
}  # fmt: skip

IGNORED = -1  # what `Session.refuse` returns for a command that gets no answer
Params = dict[str, Any]


class Feed(Protocol):
    """What a session needs to know of the venue."""

    def market(self, ticker: str) -> Market | None:
        """Return a listed market."""

    def market_by_id(self, market_id: str) -> Market | None:
        """Return a listed market by its UUID."""

    def current_ticker(self, market: Market) -> bytes:
        """Return the body of the market's current ticker."""


class CommandError(Exception):
    """A command that is answered by an error frame; `subscription` when it belongs to one."""

    def __init__(self, code: int, subscription: Subscription | None = None) -> None:
        super().__init__(ERRORS[code])
        self.code = code
        self.subscription = subscription


class CommandIgnored(Exception):
    """A command that is answered by nothing (an injected fault)."""


class Subscription:
    """One channel of one connection.

    `tickers` maps each subscribed ticker to whether the exchange sends anything for it.
    """

    __slots__ = (
        "_prefixes", "channel", "everything", "numbered", "seq", "session", "sid", "skip_ack", "snapshots", "tickers",
        "use_yes_price",
    )  # fmt: skip

    def __init__(self, session: Session, channel: str, sid: int) -> None:
        self.session = session
        self.channel = channel
        self.sid = sid
        self.seq = 0
        self.numbered = channel not in UNNUMBERED
        self.everything = False
        self.tickers: dict[str, bool] = {}
        self.snapshots = 0
        self.skip_ack = False
        self.use_yes_price = False
        self._prefixes: dict[str, bytes] = {}

    def push(self, kind: str, body: bytes, command_id: int | None = None) -> None:
        """Queue one data frame of type `kind` around an encoded `msg` body."""
        prefix = self._prefixes.get(kind)
        if prefix is None:
            tail = b',"seq":' if self.numbered else b',"msg":'
            prefix = self._prefixes[kind] = b'{"type":"%b","sid":%d%b' % (kind.encode(), self.sid, tail)
        if command_id:
            prefix = prefix.replace(b',"sid"', b',"id":%d,"sid"' % command_id, 1)
        if self.numbered:
            self.seq = seq = self.seq + 1
            frame = b'%b%d,"msg":%b}' % (prefix, seq, body)
        else:
            frame = b"%b%b}" % (prefix, body)
        session = self.session
        if session.gate is not None and session.gate(self, kind, frame):
            return
        if session.reshape is not None:
            frame = session.reshape(kind, frame)
        session.frames.append(frame)

    def next_seq(self) -> dict[str, int]:
        """Consume a number and return the envelope members of a reply; unnumbered channels have the `sid` only."""
        if not self.numbered:
            return {"sid": self.sid}
        self.seq += 1
        return {"sid": self.sid, "seq": self.seq}


Gate = Callable[[Subscription, str, bytes], bool]


class Router:
    """Which subscriptions get a message."""

    def __init__(self) -> None:
        self.by_ticker: dict[str, dict[str, list[Subscription]]] = defaultdict(dict)
        self.everything: dict[str, list[Subscription]] = defaultdict(list)

    def targets(self, channel: str, ticker: str) -> Iterable[Subscription]:
        """Return the subscriptions of `channel` that want `ticker`."""
        every = self.everything.get(channel)
        own = self.by_ticker[channel].get(ticker)
        if not every:
            return own or ()
        return [*every, *own] if own else every

    def add(self, subscription: Subscription, ticker: str | None) -> None:
        """Route a ticker, or everything (None), to the subscription."""
        if ticker is None:
            self.everything[subscription.channel].append(subscription)
        else:
            self.by_ticker[subscription.channel].setdefault(ticker, []).append(subscription)

    def remove(self, subscription: Subscription, ticker: str | None) -> None:
        """Undo `add`."""
        if ticker is None:
            self.everything[subscription.channel].remove(subscription)
            return
        routes = self.by_ticker[subscription.channel]
        routes[ticker].remove(subscription)
        if not routes[ticker]:
            del routes[ticker]


class Session:
    """The state of one connection. Frames to send gather in `frames`, in order.

    `gate` may swallow data frames (injected loss), `reshape` changes the shape of frames of a type, `defer` may keep
    snapshots back until the caller sends them by `send_snapshots`, `data_first` puts a new subscription's first data
    before its acknowledgement. `on_snapshot` hears of every book that was queued.
    """

    def __init__(self, feed: Feed, router: Router, *, market_limit: int = 0) -> None:
        self._feed = feed
        self._router = router
        self._market_limit = market_limit
        self._last_sid = 0
        self.frames: list[bytes] = []
        self.gate: Gate | None = None
        self.reshape: Callable[[str, bytes], bytes] | None = None
        self.refuse: Callable[[str, str | None], int | None] | None = None
        self.on_snapshot: Callable[[str], None] | None = None
        self.defer: Callable[[Subscription, list[str], int | None], bool] | None = None
        self.data_first: Callable[[], bool] | None = None
        self.subscriptions: dict[int, Subscription] = {}

    def by_channel(self, channel: str) -> Subscription | None:
        """Return the open subscription of a channel."""
        return next((each for each in self.subscriptions.values() if each.channel == channel), None)

    def close(self) -> None:
        """End all subscriptions without a word (the connection is gone)."""
        for subscription in list(self.subscriptions.values()):
            self.drop(subscription)

    def drop(self, subscription: Subscription) -> None:
        """End one subscription without a word."""
        del self.subscriptions[subscription.sid]
        if subscription.everything:
            self._router.remove(subscription, None)
        for ticker, is_live in subscription.tickers.items():
            if is_live and not subscription.everything:
                self._router.remove(subscription, ticker)

    def fail(self, subscription: Subscription, code: int) -> None:
        """Send a terminal error on one subscription and end it."""
        self._reply({"type": "error", **subscription.next_seq(), "msg": {"code": code, "msg": ERRORS[code]}})
        self.drop(subscription)

    # --- commands ------------------------------------------------------------------------------------------------

    def command(self, text: str | bytes) -> None:
        """Handle one command; its replies and snapshots are queued in `frames`."""
        try:
            command = json.loads(text)
        except ValueError:
            command = None
        if not isinstance(command, dict):
            self._error(None, CommandError(1))
            return
        given_id = command.get("id")
        command_id = given_id if isinstance(given_id, int) and given_id > 0 else None
        try:
            self._dispatch(command.get("cmd"), command.get("params"), command_id)
        except CommandError as error:
            self._error(command_id, error)
        except CommandIgnored:
            return

    def _dispatch(self, name: object, params: object, command_id: int | None) -> None:
        if name == "list_subscriptions":
            listing = [{"channel": each.channel, "sid": each.sid} for each in self.subscriptions.values()]
            self._reply({"id": command_id, "type": "ok", "msg": listing})
            return
        handlers = {"subscribe": self._subscribe, "unsubscribe": self._unsubscribe, "update_subscription": self._update}
        handler = handlers.get(name) if isinstance(name, str) else None
        if handler is None:
            raise CommandError(5)
        if not isinstance(params, dict) or not params:
            raise CommandError(2)
        handler(params, command_id)

    def _subscribe(self, params: Params, command_id: int | None) -> None:
        channels = params.get("channels")
        if not isinstance(channels, list) or not channels:
            raise CommandError(3)
        for channel in channels:
            if not isinstance(channel, str) or channel not in KNOWN_CHANNELS:
                raise CommandError(8)
            if channel in PAID_CHANNELS:
                raise CommandError(9)
        self._check_refusal("subscribe", None, None)
        for channel in channels:
            tickers = self._tickers(params, channel)
            if channel == BOOK and not tickers:
                raise CommandError(14)
            self._open(channel, tickers, params, command_id)

    def _open(self, channel: str, tickers: list[str] | None, params: Params, command_id: int | None) -> None:
        subscription = self.by_channel(channel)
        is_new = subscription is None
        self._check_limit(subscription, tickers or [])
        if subscription is None:
            self._last_sid += 1
            subscription = Subscription(self, channel, self._last_sid)
            subscription.use_yes_price = bool(params.get("use_yes_price", False))
            self.subscriptions[subscription.sid] = subscription
        if "skip_ticker_ack" in params:
            subscription.skip_ack = bool(params["skip_ticker_ack"])
        added = self._add(subscription, tickers)
        if not is_new:
            self._ok(subscription, command_id)
            self._greet(subscription, added, params)
            return
        reply = {"id": command_id, "type": "subscribed", "msg": {"channel": channel, "sid": subscription.sid}}
        if self.data_first is not None and self.data_first():
            self._greet(subscription, added, params)
            self._reply(reply)
        else:
            self._reply(reply)
            self._greet(subscription, added, params)

    def _unsubscribe(self, params: Params, command_id: int | None) -> None:
        sids = params.get("sids")
        if not isinstance(sids, list) or not sids:
            raise CommandError(4)
        for sid in sids:
            subscription = self.subscriptions.get(sid) if isinstance(sid, int) else None
            if subscription is None:
                self._error(command_id, CommandError(7))
                continue
            self.drop(subscription)
            self._reply({"id": command_id, "type": "unsubscribed", **subscription.next_seq()})

    def _update(self, params: Params, command_id: int | None) -> None:
        sids = params["sids"] if "sids" in params else [params["sid"]] if "sid" in params else []
        if not isinstance(sids, list) or len(sids) != 1:
            raise CommandError(12)
        subscription = self.subscriptions.get(sids[0]) if isinstance(sids[0], int) else None
        if subscription is None:
            raise CommandError(7)
        action = params.get("action")
        if not action:
            raise CommandError(15, subscription)
        if action not in ("add_markets", "delete_markets", "get_snapshot"):
            raise CommandError(13, subscription)
        if action == "get_snapshot" and subscription.channel != BOOK:
            raise CommandError(13, subscription)
        self._check_refusal("update_subscription", action, subscription)
        tickers = self._tickers(params, subscription.channel, subscription)
        if action == "get_snapshot":
            self.send_snapshots(subscription, tickers or [], command_id)
            return
        if not tickers:
            raise CommandError(14, subscription)
        if "skip_ticker_ack" in params:
            subscription.skip_ack = bool(params["skip_ticker_ack"])
        added: list[str] = []
        if action == "add_markets":
            self._check_limit(subscription, tickers)
            added = self._add(subscription, tickers)
        else:
            self._delete(subscription, tickers)
        self._ok(subscription, command_id)
        self._greet(subscription, added, params)

    # --- parts of commands ---------------------------------------------------------------------------------------

    def _check_refusal(self, name: str, action: str | None, subscription: Subscription | None) -> None:
        code = self.refuse(name, action) if self.refuse is not None else None
        if code == IGNORED:
            raise CommandIgnored
        if code:
            raise CommandError(code, subscription)

    def _check_limit(self, subscription: Subscription | None, tickers: list[str]) -> None:
        held = subscription.tickers if subscription is not None else {}
        if self._market_limit and len(held.keys() | set(tickers)) > self._market_limit:
            raise CommandError(26, subscription)

    def _tickers(self, params: Params, channel: str, subscription: Subscription | None = None) -> list[str] | None:
        """Return the tickers a command names; None where it names none (an empty list counts as none)."""
        if channel in (LIFECYCLE, COMBO_LIFECYCLE) or channel in PRIVATE_CHANNELS:
            return None
        one, many = params.get("market_ticker"), params.get("market_tickers")
        ids = params.get("market_ids", [params["market_id"]] if "market_id" in params else None)
        if sum(value is not None for value in (one, many)) > 1:
            raise CommandError(11, subscription)
        names = [one] if one is not None else many if many is not None else []
        if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
            raise CommandError(11, subscription)
        if ids is not None:
            if channel != TICKER or names or not isinstance(ids, list):
                raise CommandError(11, subscription)
            # An unknown id is as mute as an unknown ticker; it must not turn into "all markets".
            found = ((market_id, self._feed.market_by_id(str(market_id))) for market_id in ids)
            names = [str(market_id) if market is None else market.ticker for market_id, market in found]
        return list(dict.fromkeys(names)) or None

    def _live(self, ticker: str) -> bool:
        market = self._feed.market(ticker)
        return market is not None and market.status != FINALIZED and not market.has_vanished

    def _add(self, subscription: Subscription, tickers: list[str] | None) -> list[str]:
        """Add tickers; returns those that were not subscribed (or were mute and are live now).

        None given = all markets.
        """
        added = []
        for ticker in tickers or ():
            if subscription.tickers.get(ticker):
                continue
            subscription.tickers[ticker] = is_live = self._live(ticker)
            if is_live:
                added.append(ticker)
                if not subscription.everything:
                    self._router.add(subscription, ticker)
        if tickers is None and not subscription.everything:
            for ticker, is_live in subscription.tickers.items():
                if is_live:
                    self._router.remove(subscription, ticker)
            subscription.everything = True
            self._router.add(subscription, None)
        return added

    def _delete(self, subscription: Subscription, tickers: list[str]) -> None:
        for ticker in tickers:
            if subscription.tickers.pop(ticker, False) and not subscription.everything:
                self._router.remove(subscription, ticker)

    def _greet(self, subscription: Subscription, added: list[str], params: Params) -> None:
        """Send what a new market begins with: its snapshot, or its current ticker where asked for."""
        if subscription.channel == BOOK:
            self.send_snapshots(subscription, added, None)
        elif subscription.channel == TICKER and params.get("send_initial_snapshot"):
            for ticker in added:
                market = self._feed.market(ticker)
                if market is not None:
                    subscription.push("ticker", self._feed.current_ticker(market))

    def send_snapshots(
        self, subscription: Subscription, tickers: list[str], command_id: int | None, *, at_once: bool = False
    ) -> None:
        """Queue the books of live markets as they are now; `at_once` overrules `defer`."""
        if not at_once and self.defer is not None and self.defer(subscription, tickers, command_id):
            return
        for ticker in tickers:
            market = self._feed.market(ticker)
            if market is None or market.status == FINALIZED:
                continue
            body = payloads.snapshot(market, use_yes_price=subscription.use_yes_price)
            subscription.snapshots += 1
            queued = len(self.frames)
            subscription.push("orderbook_snapshot", body, command_id)
            if self.on_snapshot is not None and len(self.frames) > queued:
                self.on_snapshot(ticker)

    # --- replies -------------------------------------------------------------------------------------------------

    def _ok(self, subscription: Subscription, command_id: int | None) -> None:
        msg = {} if subscription.skip_ack or subscription.everything else {"market_tickers": list(subscription.tickers)}
        self._reply({"id": command_id, "type": "ok", **subscription.next_seq(), "msg": msg})

    def _error(self, command_id: int | None, error: CommandError) -> None:
        scope = error.subscription.next_seq() if error.subscription is not None else {}
        self._reply({"id": command_id, "type": "error", **scope, "msg": {"code": error.code, "msg": str(error)}})

    def _reply(self, frame: dict[str, Any]) -> None:
        if frame.get("id", 0) is None:
            del frame["id"]
        content = payloads.encode(frame)
        self.frames.append(content if self.reshape is None else self.reshape(frame["type"], content))
