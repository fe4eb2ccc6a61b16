"""Sets and reads back what S3 does with the lake as it ages.

| objects below the lake's prefix | after | become |
|---|---|---|
| raw/ | 30 days | GLACIER |
| processed/ | 90 days | STANDARD_IA |
| uploads that never ended | 7 days | removed |

Objects under 128 KB stay where they are (S3's own default, asked for by name), so that manifests and small partitions
can always be read. Rules of others on the same bucket are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import botocore.exceptions

from kalshi_platform.lake.settings import BucketRoot, LakeSettings, parse_root
from kalshi_platform.lake.store.s3 import client, error_code, translated
from kalshi_platform.monitoring.event_log import event_logger

RAW_TO_GLACIER_DAYS = 30
PROCESSED_TO_INFREQUENT_ACCESS_DAYS = 90
ABORT_UPLOADS_DAYS = 7
_KEEP_SMALL = "all_storage_classes_128K"
_log = event_logger(__name__)


@dataclass(frozen=True)
class LifecycleReport:
    """Whether the root has a lifecycle at all, and how the bucket's rules differ from ours.

    `differences` is empty when our rules are in place; `apply` removes them all. `warnings` name what others set on the
    bucket and what harms the lake; nothing here changes that. `changed` says whether the call wrote anything.
    """

    applicable: bool
    differences: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    changed: bool = False
    note: str = ""


def rules(root: BucketRoot) -> list[dict[str, Any]]:
    """The rules for a lake, in S3's own words."""
    return [
        _rule(root, "raw", {"Transitions": [{"Days": RAW_TO_GLACIER_DAYS, "StorageClass": "GLACIER"}]}),
        _rule(
            root,
            "processed",
            {"Transitions": [{"Days": PROCESSED_TO_INFREQUENT_ACCESS_DAYS, "StorageClass": "STANDARD_IA"}]},
        ),
        _rule(root, "", {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": ABORT_UPLOADS_DAYS}}),
    ]


def apply(settings: LakeSettings) -> LifecycleReport:
    """Put our rules beside those of others and read them back. Does nothing where they are in place already."""
    root = parse_root(settings.root)
    if not isinstance(root, BucketRoot):
        return _no_bucket(settings)
    before = read_back(settings)
    if not before.differences:
        return before
    s3 = client(settings)
    with translated(root, settings):
        configuration = _configuration(s3, root)
        ours = rules(root)
        own_ids = {rule["ID"] for rule in ours}
        others = [rule for rule in configuration.get("Rules", []) if rule.get("ID") not in own_ids]
        # The treatment of small objects is the bucket's, not a rule's: others who chose one keep it.
        minimum = configuration.get("TransitionDefaultMinimumObjectSize") if others else None
        s3.put_bucket_lifecycle_configuration(
            Bucket=root.bucket,
            LifecycleConfiguration={"Rules": [*others, *ours]},
            TransitionDefaultMinimumObjectSize=minimum or _KEEP_SMALL,
        )
    for difference in before.differences:
        _log.info("lifecycle_rule_corrected", lake=settings.root, difference=difference)
    after = read_back(settings)
    return LifecycleReport(True, after.differences, after.warnings, changed=True)


def read_back(settings: LakeSettings) -> LifecycleReport:
    """Compare the bucket's rules with ours."""
    root = parse_root(settings.root)
    if not isinstance(root, BucketRoot):
        return _no_bucket(settings)
    s3 = client(settings)
    with translated(root, settings):
        configuration = _configuration(s3, root)
    ours = rules(root)
    found = {rule.get("ID"): rule for rule in configuration.get("Rules", [])}
    differences = [text for rule in ours for text in _differences(rule, found.get(rule["ID"]))]
    own_ids = {rule["ID"] for rule in ours}
    others = [rule for rule in configuration.get("Rules", []) if rule.get("ID") not in own_ids]
    warnings = [text for rule in others for text in _harm(root, rule)]
    if configuration.get("TransitionDefaultMinimumObjectSize", _KEEP_SMALL) != _KEEP_SMALL:
        warnings.append("the bucket lets objects under 128 KB move too: manifests of raw/ will need restoring")
    return LifecycleReport(True, tuple(differences), tuple(warnings))


def _rule(root: BucketRoot, layer: str, action: dict[str, Any]) -> dict[str, Any]:
    # The name carries the prefix: two lakes can share a bucket.
    name = "/".join(part for part in ("kalshi-platform", root.prefix, layer or "uploads") if part)
    prefix = root.key(f"{layer}/" if layer else "")
    return {"ID": name[:255], "Status": "Enabled", "Filter": {"Prefix": prefix}, **action}


def _configuration(s3: Any, root: BucketRoot) -> dict[str, Any]:
    try:
        return dict(s3.get_bucket_lifecycle_configuration(Bucket=root.bucket))
    except botocore.exceptions.ClientError as error:
        if error_code(error) == "NoSuchLifecycleConfiguration":
            return {}
        raise


def _differences(wanted: dict[str, Any], found: dict[str, Any] | None) -> list[str]:
    name = wanted["ID"]
    if found is None:
        return [f"rule {name} is missing"]
    return [
        f"rule {name}: {field} is {found.get(field)!r}, not {wanted.get(field)!r}"
        for field in sorted((set(wanted) | set(found)) - {"ID", "Prefix"})
        if found.get(field) != wanted.get(field)
    ]


def _harm(root: BucketRoot, rule: dict[str, Any]) -> list[str]:
    if rule.get("Status") != "Enabled" or "Expiration" not in rule:
        return []
    chosen = rule.get("Filter", {})
    prefix = str(chosen.get("Prefix") or chosen.get("And", {}).get("Prefix") or rule.get("Prefix") or "")
    lake = root.key("")
    if not (lake.startswith(prefix) or prefix.startswith(lake)):
        return []
    return [f"rule {rule.get('ID')!r} of another owner deletes objects below {prefix or 'the whole bucket'!r}"]


def _no_bucket(settings: LakeSettings) -> LifecycleReport:
    return LifecycleReport(False, note=f"{settings.root} is a folder: there is no lifecycle to apply")
