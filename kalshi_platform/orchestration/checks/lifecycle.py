"""Do the bucket's rules read back as they should?"""

from typing import TYPE_CHECKING, Any

import dagster as dg

from kalshi_platform.orchestration.failures import as_failure
from kalshi_platform.orchestration.keys import LIFECYCLE_RULES
from kalshi_platform.orchestration.resources import LakeResource

if TYPE_CHECKING:
    from kalshi_platform.lake.lifecycle import LifecycleReport


@dg.asset_check(
    asset=LIFECYCLE_RULES,
    name="lifecycle_reads_back",
    description="The rules read from the bucket are the rules this platform wants. A folder has none and passes.",
)
def lifecycle_reads_back(lake: LakeResource) -> dg.AssetCheckResult:
    from kalshi_platform.lake.lifecycle import read_back

    with as_failure():
        report = read_back(lake.settings())
    return dg.AssetCheckResult(passed=not report.differences, metadata=lifecycle_metadata(report))


def lifecycle_metadata(report: "LifecycleReport") -> dict[str, Any]:
    """What the bucket's rules look like beside ours."""
    return {
        "applicable": report.applicable,
        "changed": report.changed,
        "differences": "; ".join(report.differences) or "none",
        "warnings": "; ".join(report.warnings) or "none",
        "note": report.note or "none",
    }
