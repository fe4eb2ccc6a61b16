"""Every error this package raises on purpose.

    KalshiPlatformError
    ├── TransientError              the same call may succeed later
    │   ├── ConnectionLost          a socket closed, stalled or could not be opened
    │   ├── RateLimited             HTTP 429, or WebSocket error 27
    │   ├── ExchangeUnavailable     5xx, or an exchange that says it is inactive
    │   ├── MarketNotYetVisible     404 shortly after a `created` event
    │   ├── DatabaseUnavailable     the server is away, restarting or refuses connections
    │   ├── JournalUnwritable       a gatherer's journal can take nothing now: full disk, limit, read-only folder
    │   ├── LakeUnavailable         the lake's storage is away, full or overloaded
    │   ├── PartitionBusy           another export writes the same partition of the lake, or may do so
    │   ├── HourDropped             rows of an hour were dropped from production while it was closed
    │   ├── StartFailed             a part of the local stack did not come up
    │   └── Unfinished              a command ended, and not everything that it should do is done
    └── PermanentError              repeating the call changes nothing
        ├── ConfigurationError      wrong or missing settings, all of them in one message
        ├── AuthenticationFailed    HTTP 401/403: key, environment or clock
        ├── RequestRejected         another 4xx
        │   └── InvalidQuery        a request that the exchange would refuse; it was not sent
        ├── UnparsableMessage       bytes of an unknown or broken shape (goes to `dead_letters`)
        ├── StatementRejected       the database server refused a statement: its data or the schema is wrong
        ├── SchemaMismatch          the database was migrated in another mode, or by other files
        ├── AnotherWriter           a second process holds this gatherer's name
        ├── LockHeld               a second deduplicator holds the production lock
        ├── OutOfPartitionBounds    a row's time lies outside the configured bounds
        ├── LakeCorrupt             a manifest and its files disagree
        ├── LakeArchived            an object lies in an archive class and must be restored first
        ├── MissingPartition        a range of the lake lacks partitions, or a book its checkpoint
        │   └── HoleInRange         changes of a wanted market's book may be missing within a range of the lake
        ├── UnknownPartition        no such table of the lake, or not a key of its partitions
        ├── StaleInput              a data set of the lake is made from raw hours that are missing or outdated
        ├── HourNotClosed           an export as `closed` was asked for a time that is not closed
        └── FewerRows               an export would have fewer rows than the close, or the lake, has of the time

Leaves carry facts as attributes, so that callers decide on data and never on message text. No message holds a secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime


class KalshiPlatformError(Exception):
    """Base of the tree."""


class TransientError(KalshiPlatformError):
    """The same call may succeed later; `retry_after_s`: not before that, where the other side said so."""

    retry_after_s: float | None = None


class PermanentError(KalshiPlatformError):
    """Repeating the call changes nothing until somebody changes something."""


class ConnectionLost(TransientError):
    """A socket closed, stalled or could not be opened."""

    def __init__(self, what: str, *, close_code: int | None = None) -> None:
        super().__init__(what)
        self.close_code = close_code


class RateLimited(TransientError):
    """The account's or the address's budget is spent (HTTP 429)."""


class ExchangeUnavailable(TransientError):
    """5xx, or an exchange that says it is inactive."""

    def __init__(self, what: str, *, status: int | None = None) -> None:
        super().__init__(what)
        self.status = status


class MarketNotYetVisible(TransientError):
    """404 for a market: normal for a short time after its `created` event."""

    def __init__(self, ticker: str) -> None:
        super().__init__(f"market {ticker} is not visible over REST (HTTP 404)")
        self.ticker = ticker


class DatabaseUnavailable(TransientError):
    """The database server is away, restarting, refuses connections or writes, or ended the transaction (a deadlock).

    When it happens at a commit, the transaction may or may not have taken effect: repeat only what may be repeated.
    `kind` says in a few words why (`storage.sqlstate`), the same words for the same reason.
    """

    def __init__(self, what: str, *, kind: str = "unreachable") -> None:
        super().__init__(what)
        self.kind = kind


class JournalUnwritable(TransientError):
    """A gatherer's journal can take nothing now: a full disk, its limit, a read-only folder. Nothing of it is kept."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}: {remedy}")
        self.reason = reason
        self.remedy = remedy


class LakeUnavailable(TransientError):
    """The lake's storage is away, full or overloaded."""


class PartitionBusy(TransientError):
    """Another export writes the same partition of the lake, or may do so because this one has lost its lock."""


class HourDropped(TransientError):
    """Rows of an hour were dropped from production while it was closed; what was said of it before stays."""


class CloseSuperseded(TransientError):
    """An hour was closed by another close while a part of it was worked on; nothing of that part is kept."""


class StartFailed(TransientError):
    """A part of the local stack did not come up in time."""


class Unfinished(TransientError):
    """A command came to its end, and not everything is done; `remains` has one sentence for each, with the remedy."""

    def __init__(self, remains: Sequence[str]) -> None:
        self.remains = tuple(remains)
        super().__init__("\n".join(self.remains))


class ConfigurationError(PermanentError):
    """Wrong or missing settings; `problems` has one line for each, naming the setting and the remedy."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class AuthenticationFailed(PermanentError):
    """HTTP 401 or 403. Suspects: the key belongs to another environment, or this machine's clock is off."""

    def __init__(self, what: str, *, status: int) -> None:
        super().__init__(what)
        self.status = status


class RequestRejected(PermanentError):
    """A 4xx other than 401, 403, 404-after-created and 429."""

    def __init__(self, what: str, *, status: int, code: str | None = None) -> None:
        super().__init__(what)
        self.status = status
        self.code = code


class InvalidQuery(RequestRejected):
    """A request that the exchange would refuse (filters that do not go together, say); it was not sent."""

    def __init__(self, what: str) -> None:
        super().__init__(what, status=0)


class UnparsableMessage(PermanentError):
    """Bytes of an unknown or broken shape. `reason` is a short stable word for counters, `detail` is for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class StatementRejected(PermanentError):
    """The database server refused a statement; `sqlstate` is PostgreSQL's five-character code."""

    def __init__(self, what: str, *, sqlstate: str | None = None) -> None:
        super().__init__(what)
        self.sqlstate = sqlstate


class SchemaMismatch(PermanentError):
    """The database was migrated in another mode, by other files, or not at all."""


class AnotherWriter(PermanentError):
    """A second process holds this gatherer's name."""


class LockHeld(PermanentError):
    """A second deduplicator holds the production lock."""


class OutOfPartitionBounds(PermanentError):
    """A row's time lies outside the configured partition bounds."""


class LakeCorrupt(PermanentError):
    """A manifest and its files disagree."""


class LakeArchived(PermanentError):
    """An object lies in an archive class (Glacier) and must be restored before it can be read."""


class MissingPartition(PermanentError):
    """A range of the lake lacks partitions, or a book its checkpoint. `missing` holds the keys of the partitions."""

    def __init__(self, what: str, *, missing: Sequence[str] = ()) -> None:
        super().__init__(what)
        self.missing = tuple(missing)


class HoleInRange(MissingPartition):
    """Deltas of a wanted market may be missing within a range of the lake.

    Of `ticker` (None: of every market), from `from_ts` to `to_ts` (exclusive), for `reason`; there may be more holes.
    """

    def __init__(self, what: str, *, ticker: str | None, from_ts: datetime, to_ts: datetime, reason: str) -> None:
        super().__init__(what)
        self.ticker = ticker
        self.from_ts = from_ts
        self.to_ts = to_ts
        self.reason = reason


class UnknownPartition(PermanentError):
    """No such table of the lake, or not a key of its partitions."""


class StaleInput(PermanentError):
    """A data set of the lake is made from raw hours of it, and some are missing, open or not of the present close.

    `missing` holds them as `table hour`: what to export first.
    """

    def __init__(self, what: str, *, missing: Sequence[str] = ()) -> None:
        super().__init__(what)
        self.missing = tuple(missing)


class HourNotClosed(PermanentError):
    """An export as `closed` was asked for a time that has not ended, or that production has not closed."""


class FewerRows(PermanentError):
    """An export would have fewer rows than production's close counted, or than the lake holds of the partition.

    Production has lost rows since: they were dropped, or it was restored to an older state. `rows` are those that the
    export would have, `wanted` those that it must have at least.
    """

    def __init__(self, what: str, *, partition: str, rows: int, wanted: int) -> None:
        super().__init__(what)
        self.partition = partition
        self.rows = rows
        self.wanted = wanted
