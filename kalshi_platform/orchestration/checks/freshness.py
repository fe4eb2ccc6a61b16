"""Check that the gatherers have fresh heartbeats: by the sensor once a minute, or by hand."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.orchestration.failures import as_failure
from kalshi_platform.orchestration.keys import gatherer
from kalshi_platform.orchestration.resources import PlatformResource
from kalshi_platform.orchestration.services import load_gatherer_service
from kalshi_platform.orchestration.supervision.liveness import latest_heartbeats
from kalshi_platform.orchestration.supervision.policy import LatestHeartbeat, Policy

CHECK_NAME = "gatherers_are_fresh"
CHECKED = gatherer("orderbook_deltas")


def judge_freshness(heartbeats: Mapping[str, LatestHeartbeat | None]) -> tuple[bool, dict[str, Any]]:
    """Judge whether all services have a fresh heartbeat; return that and metadata: the age of each one in seconds."""
    limit_s = Policy().heartbeat_limit_s
    ages = {name: None if beat is None else beat.age_s for name, beat in heartbeats.items()}
    silent = sorted(name for name, age in ages.items() if age is None or age > limit_s)
    metadata: dict[str, Any] = {
        f"age_s {name}": dg.MetadataValue.text("no heartbeat") if age is None else round(age, 1)
        for name, age in ages.items()
    }
    return not silent, {"limit_s": limit_s, "silent": ", ".join(silent) or "none", **metadata}


def make_freshness_evaluation(heartbeats: Mapping[str, LatestHeartbeat | None]) -> dg.AssetCheckEvaluation:
    """Make the check's outcome as an event, for the sensor that has the heartbeats at hand."""
    passed, metadata = judge_freshness(heartbeats)
    return dg.AssetCheckEvaluation(
        asset_key=CHECKED,
        check_name=CHECK_NAME,
        passed=passed,
        metadata=metadata,
        severity=dg.AssetCheckSeverity.WARN,
    )


@dg.asset_check(
    asset=CHECKED,
    name=CHECK_NAME,
    description="Every gatherer's heartbeat (table or file) is at most 45 s old.",
)
def gatherers_are_fresh(platform: PlatformResource) -> dg.AssetCheckResult:
    """Judge the newest heartbeat of each gatherer."""
    with as_failure():
        services = [load_gatherer_service(name) for name in platform.gatherer_names()]
    passed, metadata = judge_freshness(latest_heartbeats(services, 6.0, SYSTEM_CLOCK))
    return dg.AssetCheckResult(passed=passed, metadata=metadata, severity=dg.AssetCheckSeverity.WARN)
