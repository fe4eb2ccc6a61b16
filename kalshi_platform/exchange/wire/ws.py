"""Defines the WebSocket frames that Kalshi sends, the current and the legacy shape of each in one struct.

A field that only one shape has is optional here; `exchange.parse` decides which one counts. Unknown fields pass.
Source: docs.kalshi.com, asyncapi.yaml (read 2026-11-22).
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import msgspec

Sid: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Seq: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
Int64: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Time: TypeAlias = int | str | None


class WireFrame(msgspec.Struct, frozen=True, gc=False, tag_field="type"):
    """Holds the fields that every frame has; `type` distinguishes the frames."""

    sid: Sid | None = None
    seq: Seq | None = None
    id: int | None = None


class DeltaMessage(msgspec.Struct, frozen=True, gc=False):
    """Describes a delta; in the legacy shape `price` is in cents, `delta` in whole contracts, `ts` in seconds."""

    market_ticker: str
    side: str
    price_dollars: str | None = None
    delta_fp: str | None = None
    ts: Time = None
    ts_ms: int | None = None
    price: int | None = None
    delta: int | None = None


class DeltaFrame(WireFrame, frozen=True, gc=False, kw_only=True, tag="orderbook_delta"):
    """Carries a signed change of one level."""

    msg: DeltaMessage


class SnapshotMessage(msgspec.Struct, frozen=True, gc=False):
    """Describes a book; a side without orders is absent or null, and two older shapes precede the `_fp` one."""

    market_ticker: str
    yes_dollars_fp: list[tuple[str, str]] | None = None
    no_dollars_fp: list[tuple[str, str]] | None = None
    yes_dollars: list[tuple[str, int]] | None = None
    no_dollars: list[tuple[str, int]] | None = None
    yes: list[tuple[int, int]] | None = None
    no: list[tuple[int, int]] | None = None


class SnapshotFrame(WireFrame, frozen=True, gc=False, kw_only=True, tag="orderbook_snapshot"):
    """Carries a whole book; with `id` it answers a get_snapshot."""

    msg: SnapshotMessage


class TradeMessage(msgspec.Struct, frozen=True, gc=False):
    """Describes a trade; in the legacy shape `yes_price`, `no_price` are in cents, `count` in whole contracts."""

    trade_id: str
    market_ticker: str
    yes_price_dollars: str | None = None
    no_price_dollars: str | None = None
    count_fp: str | None = None
    taker_outcome_side: str | None = None
    taker_side: str | None = None
    is_block_trade: bool | None = None
    ts: Time = None
    ts_ms: int | None = None
    yes_price: int | None = None
    no_price: int | None = None
    count: int | None = None


class TradeFrame(WireFrame, frozen=True, gc=False, kw_only=True, tag="trade"):
    """Carries one trade."""

    msg: TradeMessage


class TickerMessage(msgspec.Struct, frozen=True, gc=False):
    """Describes a ticker; empty strings mean none, legacy integers are in cents and whole contracts."""

    market_ticker: str
    price_dollars: str | None = None
    yes_bid_dollars: str | None = None
    yes_ask_dollars: str | None = None
    volume_fp: str | None = None
    open_interest_fp: str | None = None
    yes_bid_size_fp: str | None = None
    yes_ask_size_fp: str | None = None
    last_trade_size_fp: str | None = None
    dollar_volume: Int64 | None = None
    dollar_open_interest: Int64 | None = None
    ts: Time = None
    ts_ms: int | None = None
    time: str | None = None
    price: int | None = None
    yes_bid: int | None = None
    yes_ask: int | None = None
    volume: int | None = None
    open_interest: int | None = None


class TickerFrame(WireFrame, frozen=True, gc=False, kw_only=True, tag="ticker"):
    """Carries best prices and totals, without `seq`."""

    msg: TickerMessage


class LifecycleFrame(WireFrame, frozen=True, kw_only=True, tag="market_lifecycle_v2"):
    """Carries a change of a market; the message is kept as it is."""

    msg: dict[str, Any]


class LegacyLifecycleFrame(WireFrame, frozen=True, kw_only=True, tag="market_lifecycle"):
    """Carries the same as LifecycleFrame, in the unversioned predecessor."""

    msg: dict[str, Any]


class ComboLifecycleFrame(WireFrame, frozen=True, kw_only=True, tag="multivariate_market_lifecycle"):
    """Carries a change of a combo market."""

    msg: dict[str, Any]


class EventLifecycleFrame(WireFrame, frozen=True, kw_only=True, tag="event_lifecycle"):
    """Reports that an event was created."""

    msg: dict[str, Any]


class EventFeeFrame(WireFrame, frozen=True, kw_only=True, tag="event_fee_update"):
    """Reports that an event's fee changed."""

    msg: dict[str, Any]


class SubscribedMessage(msgspec.Struct, frozen=True, gc=False):
    """Names channel and `sid`, which stands here instead of at the top."""

    channel: str
    sid: Sid


class SubscribedFrame(WireFrame, frozen=True, gc=False, kw_only=True, tag="subscribed"):
    """Acknowledges one channel of a subscribe command."""

    msg: SubscribedMessage


class OkFrame(WireFrame, frozen=True, gc=False, kw_only=True, tag="ok"):
    """Acknowledges a command; `msg` lists subscriptions, or up to all tickers of one, which are not needed."""

    msg: msgspec.Raw = msgspec.Raw()


class Listed(msgspec.Struct, frozen=True, gc=False):
    """Describes one subscription in the answer to list_subscriptions."""

    channel: str
    sid: Sid


class UnsubscribedFrame(WireFrame, frozen=True, gc=False, kw_only=True, tag="unsubscribed"):
    """Reports that a sid ended."""


class ErrorMessage(msgspec.Struct, frozen=True):
    """Describes an error; `protocol.error_codes` lists the codes."""

    code: Int64
    msg: str = ""
    market_ticker: str | None = None
    market_tickers: list[str] | None = None


class ErrorFrame(WireFrame, frozen=True, kw_only=True, tag="error"):
    """Reports an error: of a subscription with `sid`, of a command with `id`."""

    msg: ErrorMessage


AnyFrame: TypeAlias = (
    DeltaFrame
    | SnapshotFrame
    | TradeFrame
    | TickerFrame
    | LifecycleFrame
    | LegacyLifecycleFrame
    | ComboLifecycleFrame
    | EventLifecycleFrame
    | EventFeeFrame
    | SubscribedFrame
    | OkFrame
    | UnsubscribedFrame
    | ErrorFrame
)


class PartialFrame(msgspec.Struct, frozen=True):
    """Holds the raw fields of a frame that does not fit its shape."""

    type: Any = None
    sid: Any = None
    seq: Any = None
    msg: Any = None
