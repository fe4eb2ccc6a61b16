"""Restarts Dagster's daemon, or all of Dagster, when the sensor that should supervise is silent.

A process that died is started again by its process group. This is for one that hangs: without sensors nobody would
see to the gatherers. The daemon comes first, since its restart ends no run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from kalshi_platform.clock import SYSTEM_CLOCK, Clock
from kalshi_platform.errors import KalshiPlatformError
from kalshi_platform.monitoring.event_log import event_logger

_log = event_logger(__name__)


class Action(Enum):
    """What the watchdog does about a silence."""

    NOTHING = "nothing"
    RESTART_DAEMON = "restart Dagster's daemon"
    RESTART = "restart Dagster"


@dataclass(frozen=True, slots=True)
class WatchdogSettings:
    """All in seconds. The supervisor beats every 5 to 10 s; a start works within 15 to 60 s."""

    daemon_after_s: float = 45.0
    restart_after_s: float = 120.0
    daemon_grace_s: float = 40.0
    restart_grace_s: float = 120.0
    check_every_s: float = 10.0


def decide(
    silent_s: float, last_action: Action, since_action_s: float, settings: WatchdogSettings | None = None
) -> Action:
    """Say what to do about a supervisor whose last heartbeat is `silent_s` old.

    `last_action` was taken `since_action_s` ago and gets its grace time to work. The first start counts as RESTART.
    """
    settings = settings or WatchdogSettings()
    if silent_s < settings.daemon_after_s:
        return Action.NOTHING
    if last_action is Action.RESTART and since_action_s < settings.restart_grace_s:
        return Action.NOTHING
    if last_action is Action.RESTART_DAEMON and since_action_s < settings.daemon_grace_s:
        # A restart at the very end of `restart_after_s` still gets its time to work.
        return Action.NOTHING
    return Action.RESTART if silent_s >= settings.restart_after_s else Action.RESTART_DAEMON


class Watchdog:
    """Acts on a silent supervisor. Construct it when Dagster was started; call tick() about every second."""

    def __init__(
        self,
        heartbeat: Callable[[], str | None],
        restart_daemon: Callable[[], None],
        restart: Callable[[], None],
        *,
        settings: WatchdogSettings | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Set what is done on silence.

        `heartbeat` returns the last one as it was written, None before the first: one that changes is a sign of life,
        whatever time it holds, and silence is measured from the last change. An error it raises decides nothing. Errors
        of `restart_daemon` and `restart` are logged.
        """
        self._heartbeat = heartbeat
        self._restart_daemon = restart_daemon
        self._restart = restart
        self._settings = settings or WatchdogSettings()
        self._clock = clock
        self._last_action = Action.RESTART
        self._acted_at = self._checked_at = self._changed_at = clock.monotonic()
        self._last: str | None = None

    def tick(self) -> Action:
        """Check when it is time to, act on it, and return what was done."""
        now = self._clock.monotonic()
        passed_s = now - self._checked_at
        if passed_s < self._settings.check_every_s:
            return Action.NOTHING
        self._checked_at = now
        try:
            found = self._heartbeat()
        except KalshiPlatformError as error:
            _log.warning("supervisor_heartbeat_unreadable", error=error)
            return Action.NOTHING
        if found != self._last:
            self._last, self._changed_at = found, now
        if passed_s > self._settings.daemon_after_s / 2:
            # This process was held up, and perhaps every other with it: the supervisor must get time to beat again.
            _log.info("watchdog_held_up", held_up_s=round(passed_s), consequence="waiting for new heartbeats")
            self._last_action, self._acted_at = Action.RESTART_DAEMON, now
            return Action.NOTHING
        silent_s = now - self._changed_at
        action = decide(silent_s, self._last_action, now - self._acted_at, self._settings)
        if action is not Action.NOTHING:
            _log.warning("supervisor_silent", silent_s=round(silent_s), action=action.value)
            try:
                (self._restart_daemon if action is Action.RESTART_DAEMON else self._restart)()
            except (KalshiPlatformError, OSError) as error:
                _log.warning("watchdog_action_failed", action=action.value, error=error)
            # Its grace begins when it is done: stopping Dagster takes up to half a minute.
            self._last_action, self._acted_at = action, self._clock.monotonic()
        return action
