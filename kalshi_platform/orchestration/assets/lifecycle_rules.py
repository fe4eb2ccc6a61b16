"""What S3 does with the lake as it ages: cold storage for raw data, cheaper storage for processed data."""

from typing import TYPE_CHECKING, Any

import dagster as dg

from kalshi_platform.orchestration.failures import RETRY, as_failure
from kalshi_platform.orchestration.keys import LIFECYCLE_RULES, OWNERS
from kalshi_platform.orchestration.resources import LakeResource

if TYPE_CHECKING:
    from kalshi_platform.lake.lifecycle import LifecycleReport


@dg.asset(
    key=LIFECYCLE_RULES,
    group_name="lake",
    owners=OWNERS,
    kinds={"s3"},
    retry_policy=RETRY,
    description=(
        "The bucket's lifecycle: raw/ to Glacier after 30 days, processed/ to Infrequent Access after 90 days, "
        "uploads that never ended removed after 7. A lake in a folder has none."
    ),
)
def lifecycle_rules(lake: LakeResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
    from kalshi_platform.lake.lifecycle import apply

    with as_failure():
        report = apply(lake.settings())
    return dg.MaterializeResult(metadata=lifecycle_metadata(report))


def lifecycle_metadata(report: "LifecycleReport") -> dict[str, Any]:
    """What the bucket's rules look like beside ours."""
    return {
        "applicable": report.applicable,
        "changed": report.changed,
        "differences": "; ".join(report.differences) or "none",
        "warnings": "; ".join(report.warnings) or "none",
        "note": report.note or "none",
    }
