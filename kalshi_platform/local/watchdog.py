"""Restarts Dagster's code server, or Dagster, when the process that should run its sensors is gone.

`dagster dev` does not replace a code server that died, and with it all sensors are silent, the supervising one too.
A reload of the code location brings it back in seconds; when that does not help, Dagster is started anew.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

from kalshi_platform.clock import SYSTEM_CLOCK, Clock
from kalshi_platform.errors import KalshiPlatformError, TransientError
from kalshi_platform.monitoring.event_log import event_logger

_log = event_logger(__name__)

RELOAD_MUTATION = """
mutation Reload($location: String!) {
  reloadRepositoryLocation(repositoryLocationName: $location) {
    __typename
    ... on WorkspaceLocationEntry {
      loadStatus
      locationOrLoadError { __typename ... on PythonError { message } }
    }
    ... on Error { message }
  }
}
"""


class Action(Enum):
    """What the watchdog does about a silence."""

    NOTHING = "nothing"
    RELOAD = "reload the code location"
    RESTART = "restart Dagster"


@dataclass(frozen=True, slots=True)
class WatchdogSettings:
    """All in seconds. The supervisor beats every 5 to 10 s; a reload works within 4 s, a start within 15 to 60 s."""

    reload_after_s: float = 45.0
    restart_after_s: float = 120.0
    reload_grace_s: float = 40.0
    restart_grace_s: float = 120.0
    check_every_s: float = 10.0


class ReloadFailed(TransientError):
    """Dagster did not answer the reload, or could not load the code."""


def decide(
    silent_s: float, last_action: Action, since_action_s: float, settings: WatchdogSettings | None = None
) -> Action:
    """Say what to do about a supervisor whose last heartbeat is `silent_s` old.

    `last_action` was taken `since_action_s` ago and gets its grace time to work. The first start counts as RESTART.
    """
    settings = settings or WatchdogSettings()
    if silent_s < settings.reload_after_s:
        return Action.NOTHING
    if last_action is Action.RESTART and since_action_s < settings.restart_grace_s:
        return Action.NOTHING
    if last_action is Action.RELOAD and since_action_s < settings.reload_grace_s:
        # A reload at the very end of `restart_after_s` still gets its time to work.
        return Action.NOTHING
    return Action.RESTART if silent_s >= settings.restart_after_s else Action.RELOAD


class Watchdog:
    """Acts on a silent supervisor. Construct it when Dagster was started; call tick() about every second."""

    def __init__(
        self,
        heartbeat: Callable[[], str | None],
        reload: Callable[[], None],
        restart: Callable[[], None],
        *,
        settings: WatchdogSettings | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Set what is done on silence.

        `heartbeat` returns the last one as it was written, None before the first: one that changes is a sign of life,
        whatever time it holds, and silence is measured from the last change. An error it raises decides nothing. Errors
        of `reload` and `restart` are logged.
        """
        self._heartbeat = heartbeat
        self._reload = reload
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
        if passed_s > self._settings.reload_after_s / 2:
            # This process was held up, and perhaps every other with it: the supervisor must get time to beat again.
            _log.info("watchdog_held_up", held_up_s=round(passed_s), consequence="waiting for new heartbeats")
            self._last_action, self._acted_at = Action.RELOAD, now
            return Action.NOTHING
        silent_s = now - self._changed_at
        action = decide(silent_s, self._last_action, now - self._acted_at, self._settings)
        if action is not Action.NOTHING:
            _log.warning("supervisor_silent", silent_s=round(silent_s), action=action.value)
            try:
                (self._reload if action is Action.RELOAD else self._restart)()
            except (KalshiPlatformError, OSError) as error:
                _log.warning("watchdog_action_failed", action=action.value, error=error)
            # Its grace begins when it is done: stopping Dagster takes up to half a minute.
            self._last_action, self._acted_at = action, self._clock.monotonic()
        return action


def reload_code_location(webserver_url: str, location: str, *, timeout_s: float = 30.0) -> None:
    """Make Dagster's webserver start a new code server for `location`. Raises ReloadFailed."""
    address = urlsplit(webserver_url)
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    connection = kind(address.hostname or "127.0.0.1", address.port, timeout=timeout_s)
    try:
        body = json.dumps({"query": RELOAD_MUTATION, "variables": {"location": location}})
        connection.request("POST", f"{address.path.rstrip('/')}/graphql", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise ReloadFailed(f"Dagster's webserver does not answer: {error}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise ReloadFailed(f"Dagster's webserver answered the reload with HTTP {response.status}")
    try:
        problem = _problem(json.loads(text))
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ReloadFailed(f"Dagster's webserver answered the reload with something else: {text[:200]!r}") from error
    if problem is not None:
        raise ReloadFailed(f"code location {location} was not reloaded: {problem}")


def _problem(answer: dict[str, Any]) -> str | None:
    """Return what a GraphQL answer complains about, or None after a successful reload."""
    if answer.get("errors"):
        return str(answer["errors"][0]["message"])
    result = answer["data"]["reloadRepositoryLocation"]
    if result["__typename"] != "WorkspaceLocationEntry":
        return str(result.get("message", result["__typename"]))
    loaded = result["locationOrLoadError"]
    if loaded is not None and loaded["__typename"] == "PythonError":
        return str(loaded["message"])
    return None
