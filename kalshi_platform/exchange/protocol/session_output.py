"""What one call of a session gives: records in writing order, and alarms. Pure."""

from __future__ import annotations

from kalshi_platform.exchange.protocol.session_model import Alarm
from kalshi_platform.market.records import Record


class Outbox:
    """Filled by the parts of a session, emptied by the session."""

    __slots__ = ("alarms", "records")

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.alarms: list[Alarm] = []

    def alarm(self, kind: str, detail: str, tickers: tuple[str, ...] = ()) -> None:
        """Add an alarm."""
        self.alarms.append(Alarm(kind, detail, tickers))

    def take_records(self) -> list[Record]:
        """Give up the records."""
        records, self.records = self.records, []
        return records

    def take_alarms(self) -> list[Alarm]:
        """Give up the alarms."""
        alarms, self.alarms = self.alarms, []
        return alarms
