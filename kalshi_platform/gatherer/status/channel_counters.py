"""What came over a connection: messages by channel, and when the last one of each came."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kalshi_platform.market.records import BookDelta, BookSnapshot, LifecycleEvent, Record, TickerUpdate, Trade

_CHANNEL_OF: Mapping[type, str] = {
    BookDelta: "orderbook_delta",
    BookSnapshot: "orderbook_delta",
    Trade: "trade",
    TickerUpdate: "ticker",
    LifecycleEvent: "market_lifecycle_v2",
}
CHANNELS = tuple(dict.fromkeys(_CHANNEL_OF.values()))


@dataclass
class ChannelTraffic:
    """One channel since the start. `last_s`: by the monotonic clock, None before the first message."""

    messages: int = 0
    last_s: float | None = None


class Traffic:
    """Counts of one connection and of those that replace it. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channels = {channel: ChannelTraffic() for channel in CHANNELS}

    def saw(self, records: Sequence[Record], now_s: float) -> None:
        """Count records that were just received."""
        # Counter loops in C: some 50 ns a record.
        counts = Counter(map(type, records))
        with self._lock:
            for kind, count in counts.items():
                channel = _CHANNEL_OF.get(kind)
                if channel is not None:
                    traffic = self._channels[channel]
                    traffic.messages += count
                    traffic.last_s = now_s

    def channels(self) -> dict[str, ChannelTraffic]:
        """The channels on which something came."""
        return {channel: traffic for channel, traffic in self._channels.items() if traffic.messages}


def summed(traffics: Iterable[Traffic]) -> dict[str, ChannelTraffic]:
    """All connections together, every channel of them."""
    total = {channel: ChannelTraffic() for channel in CHANNELS}
    for each in traffics:
        for channel, traffic in each.channels().items():
            total[channel].messages += traffic.messages
            total[channel].last_s = max(total[channel].last_s or 0.0, traffic.last_s or 0.0)
    return total
