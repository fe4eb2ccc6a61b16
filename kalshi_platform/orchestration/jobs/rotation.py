"""The times at which long-running runs end for their successors: one after the other, never the last that records.

Every service has its own minute of the day. Counted from their starts they would all stop together, because they all
start together: with the platform, and after every restart of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from kalshi_platform import config
from kalshi_platform.clock import SYSTEM_CLOCK, Clock
from kalshi_platform.errors import ConfigurationError
from kalshi_platform.market.parts import list_missing_parts
from kalshi_platform.market.times import HOUR
from kalshi_platform.orchestration.jobs.long_running import RunTiming
from kalshi_platform.orchestration.services import Service, load_gatherer_service
from kalshi_platform.orchestration.supervision.liveness import latest_heartbeats
from kalshi_platform.orchestration.supervision.policy import LatestHeartbeat, Policy

RUNNING = "running"
_DAY = timedelta(days=1)
_YOUNGEST = 12 * HOUR
_DEADLINE_S = 6.0


def gatherer_timing(name: str, names: Sequence[str], clock: Clock = SYSTEM_CLOCK) -> RunTiming:
    """Return the timing of a gatherer's run; `names`: all gatherers of the platform."""
    index = list(names).index(name) if name in names else len(names)
    return RunTiming(rotate_after_s=seconds_to_slot(clock.now(), index, len(names) + 1))


def merge_timing(clock: Clock = SYSTEM_CLOCK) -> RunTiming:
    """Return the timing of the live merge's run, whose slot comes after those of the gatherers."""
    count = len(config.gatherer_names())
    return RunTiming(rotate_after_s=seconds_to_slot(clock.now(), count, count + 1))


def seconds_to_slot(now: datetime, index: int, of: int) -> float:
    """Return the seconds until the minute of the day that belongs to service `index` of `of`: 12 to 36 hours.

    Neither the hours nor the minutes within the hour of two services are the same, so that they stay apart when a
    rotation is put off by some hours.
    """
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    slot = midnight + (_DAY + HOUR) * (index / of)
    while slot < now + _YOUNGEST:
        slot += _DAY
    return (slot - now).total_seconds()


def another_gatherer_is_recording(name: str, names: Sequence[str], clock: Clock = SYSTEM_CLOCK) -> bool:
    """Whether others with fresh heartbeats record all markets of this one. Else a rotation would be a hole.

    Which shard each records is in its heartbeat; this gatherer's own, without one, in the settings.
    Raises ConfigurationError where it is not known, because databases of others are not.
    """
    services: list[Service] = []
    unknown: list[str] = []
    for other in names:
        if other == name:
            continue
        try:
            services.append(load_gatherer_service(other))
        except ConfigurationError:
            unknown.append(other)  # it is another host's
    own = load_gatherer_service(name)
    beats = latest_heartbeats([own, *services], _DEADLINE_S, clock)
    own_beat = beats.pop(own.name, None)
    recorded = [beat.market_shard for beat in beats.values() if beat is not None and _is_recording(beat)]
    wanted = config.load_gatherer(name).market_filter.shard if own_beat is None else own_beat.market_shard
    missing = list_missing_parts(recorded, wanted)
    if missing and unknown:
        raise ConfigurationError([f"whether others record is not known: {', '.join(unknown)} is not configured here"])
    return not missing


def _is_recording(beat: LatestHeartbeat) -> bool:
    return beat.state == RUNNING and beat.age_s <= Policy().heartbeat_limit_s
