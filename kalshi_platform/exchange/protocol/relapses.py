"""Markets that lose their claim again and again: asked for at once the first few times, then ever more rarely. Pure.

What takes a claim away may come with every message (times of an exchange whose clock leapt, a field that cannot be
read): a new snapshot for each would be a flood that proves nothing. Spans are rounded up to a grid, so that markets
that wait for about as long are asked for by one command.
"""

from __future__ import annotations

from kalshi_platform.backoff import exponential

AT_ONCE = 5
"""So many losses in a row cost no waiting."""
BASE_NS = 1_000_000_000
CAP_NS = 32_000_000_000
"""The longest wait is between this and twice as long."""
_CALM_NS = 30_000_000_000
# Fewer than that are not worth forgetting.
_FEW = 1_000


class Relapses:
    """Of one connection. A market that kept its claim for half a minute after it was asked for begins anew."""

    def __init__(self) -> None:
        self._by_ticker: dict[str, tuple[int, int]] = {}
        self._forget_above = _FEW

    def lost(self, ticker: str, now_ns: int) -> int:
        """Note that a market lost its claim; return when it may be asked for (`now_ns`: at once)."""
        losses, asked_ns = self._by_ticker.get(ticker, (0, now_ns))
        if now_ns - asked_ns > _CALM_NS:
            losses = 0
        at_ns = now_ns
        if losses >= AT_ONCE:
            delay_ns = exponential(BASE_NS, CAP_NS, losses - AT_ONCE)
            at_ns = -(-(now_ns + delay_ns) // delay_ns) * delay_ns
        self._by_ticker[ticker] = losses + 1, at_ns
        self._forget(now_ns)
        return at_ns

    def repeated(self, now_ns: int) -> int:
        """How many markets are asked for more rarely now."""
        return sum(losses > AT_ONCE and now_ns - asked_ns <= _CALM_NS for losses, asked_ns in self._by_ticker.values())

    def _forget(self, now_ns: int) -> None:
        if len(self._by_ticker) > self._forget_above:
            kept = {ticker: each for ticker, each in self._by_ticker.items() if now_ns - each[1] <= _CALM_NS}
            self._by_ticker, self._forget_above = kept, max(_FEW, 2 * len(kept))
