"""Does the planned faults to a running stack, one after the other, and notes what each was seen to do.

A fault that can open a hole waits until every gatherer records again, and the claims of its streams have begun: so no
two gatherers are away at once for our own doing. What it did is taken from somebody else than whom it was done to.
"""

from __future__ import annotations

from collections.abc import Callable

from kalshi_platform.clock import Clock
from kalshi_platform.lab.proof.faults.ground import Act, Ground
from kalshi_platform.lab.proof.faults.observe import Observer
from kalshi_platform.lab.proof.faults.schedule import PlannedFault
from kalshi_platform.lab.proof.faults.stack import ProofStack
from kalshi_platform.lab.proof.kinds import RECOVERY_S, InjectedFault

SETTLE_S = 3.5
"""Claims begin one margin (1 s) after the first message of a market's book, which may take a second to come, and end
one margin before the last: with less time between two faults nothing in between could be claimed."""
SKEW_S = 1.5
EDGE_S = 0.5
"""Left out at both ends of a pause (a quarter of it where it is shorter than 2 s): it is armed from outside."""
UNKNOWN_VARIANTS = ("type", "json", "shape")


class Injector:
    """`wait(seconds)` lets time pass while children are watched; it raises when the run is to end."""

    def __init__(
        self,
        stack: ProofStack,
        gatherers: tuple[str, ...],
        wait: Callable[[float], None],
        clock: Clock,
        seen: Observer,
        ground: Ground | None = None,
    ) -> None:
        """`ground` does the faults of that plan."""
        self._stack = stack
        self._gatherers = gatherers
        self._wait = wait
        self._clock = clock
        self._seen = seen
        self._acts: dict[str, Act] = {} if ground is None else ground.acts()
        self._settled_at = clock.monotonic()
        self.done: list[InjectedFault] = []

    def inject(self, planned: PlannedFault) -> InjectedFault:
        """Do one fault and see it through, until everybody records again."""
        if planned.kind != "exchange_pause":
            self._until_all_record()
        state = self._stack.venue.state()
        fault = InjectedFault(planned.kind, planned.gatherer, self._clock.now(), int(state["clock_us"]))
        self.done.append(fault)
        act: Act = self._acts.get(planned.kind) or getattr(self, f"_{planned.kind}")
        fault.effect = act(fault, planned)
        fault.until_us = int(self._stack.venue.state()["clock_us"])
        self._settled_at = self._clock.monotonic() + SETTLE_S
        return fault

    def recover(self) -> tuple[str, ...]:
        """Wait until everybody records again after the last fault; return who does not."""
        self._until_all_record()
        return tuple(name for name in self._gatherers if not self._stack.venue.following(name))

    # -- the faults: each returns what was observed, or None

    def _cut(self, fault: InjectedFault, _planned: PlannedFault) -> str | None:
        began = self._clock.monotonic()
        armed = self._stack.venue.fault("cut", user_agent=f"({fault.gatherer} ")
        back_s = self._seen.recording_again(fault.gatherer, began)
        closed = self._seen.count(
            fault, "SELECT count(*) FROM sessions WHERE close_reason = 'connection lost' AND closed_at >= %s", SETTLE_S
        )
        if not armed["hits"] or not closed or back_s is None:
            return None
        cut = f"{armed['hits']} connections cut, {closed} sessions ended in the ledger"
        return f"{cut}, recording again after {back_s:.1f} s"

    def _kill(self, fault: InjectedFault, _planned: PlannedFault) -> str | None:
        gatherer = str(fault.gatherer)
        began = self._clock.monotonic()
        before = self._stack.kill(gatherer)
        after = self._seen.soon(lambda: self._seen.new_pid(gatherer, before))
        back_s = None if after is None else self._seen.recording_again(gatherer, began)
        if back_s is None:
            return None
        return f"pid {before} killed, pid {after} started in its place, recording again after {back_s:.1f} s"

    def _drop_frame(self, fault: InjectedFault, _planned: PlannedFault) -> str | None:
        venue = self._stack.venue
        armed = venue.fault("drop_frame", user_agent=f"({fault.gatherer} books", type="orderbook_delta", count=1)
        dropped = self._seen.soon(lambda: self._seen.effects(armed["id"]))
        gaps = self._seen.count(fault, "SELECT count(*) FROM sequence_gaps WHERE detected_at >= %s", 10.0)
        if not dropped or not gaps:
            return None
        lost = dropped[0]
        return f"frame {lost['seq']} ({lost['market_ticker']}) never sent; gaps in the ledger: {gaps}"

    def _rest_429(self, _fault: InjectedFault, _planned: PlannedFault) -> str | None:
        venue = self._stack.venue
        armed = venue.fault("rest_status", status=429, count=max(2, len(self._gatherers)))
        ticker = venue.create_market()  # everybody asks for it at once
        wanted = armed["left"]
        hits = self._seen.soon(
            lambda: self._seen.effects(armed["id"]) if len(self._seen.effects(armed["id"])) >= wanted else None
        )
        if not hits:
            return None
        asked = self._seen.soon(lambda: self._seen.known_to_all(ticker))
        if not asked:
            return None
        paths = sorted({effect["path"].rpartition("/")[2] for effect in hits})
        return f"{len(hits)} requests refused ({', '.join(paths)[:60]}), the new market {ticker} found by all the same"

    def _exchange_pause(self, _fault: InjectedFault, planned: PlannedFault) -> str | None:
        venue = self._stack.venue
        armed = venue.fault("exchange_pause", seconds=planned.lasts_s)
        self._wait(min(0.05, planned.lasts_s / 4))  # what is due at this moment still comes
        state = venue.state()
        before = state["published"]["delta"] + state["published"]["trade"]
        self._wait(planned.lasts_s * 0.6)
        state = venue.state()
        came = state["published"]["delta"] + state["published"]["trade"]
        paused = not state["trading_active"]
        more = came - before
        resumed = self._seen.soon(
            lambda: venue.state()["published"]["delta"] + venue.state()["published"]["trade"] > came
        )
        if not paused or more or not resumed:
            return None
        edge_us = round(1e6 * min(EDGE_S, planned.lasts_s / 4))
        low, high = armed["at_us"] + edge_us, armed["at_us"] + round(1e6 * planned.lasts_s) - edge_us
        stored = sum(self._seen.stored_between(name, low, high) for name in self._gatherers)
        if stored:
            return None
        return f"trading paused for {planned.lasts_s:.1f} s: no delta or trade published or stored, then it went on"

    def _database_away(self, fault: InjectedFault, planned: PlannedFault) -> str | None:
        gatherer = str(fault.gatherer)
        server = self._stack.server(gatherer)
        server.stop()
        error, most = None, 0
        for _ in range(max(1, round(planned.lasts_s))):
            self._wait(1.0)
            ingest = self._stack.ingest_status(gatherer)
            error = error or ingest.database_error
            most = max(most, ingest.behind_bytes)
        server.start()
        began = self._clock.monotonic()

        if (
            not self._seen.soon(lambda: self._stack.ingest_status(gatherer).is_current, RECOVERY_S + planned.lasts_s)
            or error is None
            or not most
        ):
            return None
        back_s = self._clock.monotonic() - began
        return (
            f"server away for {planned.lasts_s:.0f} s, up to {most / 1e6:.1f} MB waited in the journal,"
            f" all committed {back_s:.0f} s after its return"
        )

    def _stall(self, fault: InjectedFault, planned: PlannedFault) -> str | None:
        armed = self._stack.venue.fault("stall", user_agent=f"({fault.gatherer} books", seconds=planned.lasts_s)
        self._wait(planned.lasts_s)
        stalled = self._seen.effects(armed["id"])
        self._seen.recording_again(fault.gatherer, self._clock.monotonic())
        lag = self._seen.number(
            fault,
            "SELECT extract(epoch FROM max(received_at - exchange_ts)) FROM orderbook_deltas WHERE received_at >= %s",
            lambda seconds: seconds > planned.lasts_s / 2,
        )
        if not stalled or lag is None:
            return None
        return f"{len(stalled)} socket silent for {planned.lasts_s:.0f} s; the oldest frame came {lag:.1f} s late"

    def _unknown_frames(self, fault: InjectedFault, _planned: PlannedFault) -> str | None:
        venue = self._stack.venue
        sent = sum(
            venue.fault("unknown_frame", user_agent=f"({fault.gatherer} books", variant=variant)["hits"]
            for variant in UNKNOWN_VARIANTS
        )
        letters = self._seen.number(
            fault, "SELECT count(*) FROM dead_letters WHERE received_at >= %s", lambda count: count >= sent
        )
        if not sent or letters is None:
            return None
        return f"{sent} frames of unknown shape sent, {letters:.0f} rows in dead_letters"

    def _clock_skew(self, fault: InjectedFault, planned: PlannedFault) -> str | None:
        self._stack.venue.fault("clock_skew", offset_s=SKEW_S, seconds=planned.lasts_s)
        self._wait(planned.lasts_s)
        fault.gatherer = self._gatherers[0]
        ahead = self._seen.number(
            fault,
            "SELECT extract(epoch FROM max(exchange_ts - received_at)) FROM orderbook_deltas WHERE received_at >= %s",
            lambda seconds: seconds > SKEW_S / 2,
        )
        fault.gatherer = None
        self._wait(SKEW_S)  # until then the exchange's times hardly move
        return (
            None if ahead is None else f"the exchange's clock {SKEW_S} s ahead; rows up to {ahead:.2f} s ahead of ours"
        )

    # -- waiting

    def _until_all_record(self) -> None:
        self._seen.soon(lambda: all(self._stack.venue.following(name) for name in self._gatherers))
        left = self._settled_at - self._clock.monotonic()
        if left > 0:
            self._wait(left)
