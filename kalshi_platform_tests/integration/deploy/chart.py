"""What Dagster's Helm chart makes of deploy/kubernetes/values.yaml: the instance file, and what runs get of a location.

Written after the chart's templates (configmap-instance.yaml, _run-launcher.tpl and k8sContainerContext of the user
deployments, June 2026), for the parts that values.yaml sets: there is no Helm where the tests run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
KUBERNETES = ROOT / "deploy" / "kubernetes"
RELEASE = "dagster"
NAMESPACE = "kalshi"


def values() -> dict[str, Any]:
    """The values as they stand."""
    return dict(yaml.safe_load((KUBERNETES / "values.yaml").read_text()))


def location(given: dict[str, Any], name: str) -> dict[str, Any]:
    """The values of one code location."""
    (found,) = [each for each in given["dagster-user-deployments"]["deployments"] if each["name"] == name]
    return dict(found)


def instance(given: dict[str, Any]) -> dict[str, Any]:
    """The chart's dagster.yaml, without its storage: that is dagster-postgres on the server in `postgresql`."""
    daemon, launcher = given["dagsterDaemon"], given["runLauncher"]["config"]["k8sRunLauncher"]
    monitoring, retries = daemon["runMonitoring"], daemon["runRetries"]
    concurrency, pod = given["concurrency"], launcher["runK8sConfig"]
    assert given["runLauncher"]["type"] == "K8sRunLauncher"
    assert daemon["runCoordinator"]["type"] == "CustomRunCoordinator"
    assert given["computeLogManager"]["type"] == "S3ComputeLogManager"
    logs = given["computeLogManager"]["config"]["s3ComputeLogManager"]
    return {
        "run_launcher": {
            "module": "dagster_k8s",
            "class": "K8sRunLauncher",
            "config": {
                "load_incluster_config": launcher.get("loadInclusterConfig", True),
                "job_namespace": NAMESPACE,
                "image_pull_policy": launcher["imagePullPolicy"],
                "service_account_name": RELEASE,
                "dagster_home": given["global"]["dagsterHome"],
                "instance_config_map": f"{RELEASE}-instance",
                "postgres_password_secret": given["global"]["postgresqlSecretName"],
                "resources": launcher["resources"],
                "security_context": launcher["securityContext"],
                "run_k8s_config": {
                    "pod_spec_config": pod["podSpecConfig"],
                    "job_spec_config": pod["jobSpecConfig"],
                },
            },
        },
        "run_coordinator": daemon["runCoordinator"]["config"]["customRunCoordinator"],
        "compute_logs": {
            "module": "dagster_aws.s3.compute_log_manager",
            "class": "S3ComputeLogManager",
            "config": {
                "bucket": logs["bucket"],
                "prefix": logs["prefix"],
                "skip_empty_files": logs["skipEmptyFiles"],
                "upload_interval": logs["uploadInterval"],
            },
        },
        "run_monitoring": {
            "enabled": monitoring["enabled"],
            "start_timeout_seconds": monitoring["startTimeoutSeconds"],
            "cancel_timeout_seconds": monitoring["cancelTimeoutSeconds"],
            "max_resume_run_attempts": monitoring["maxResumeRunAttempts"],
            "poll_interval_seconds": monitoring["pollIntervalSeconds"],
            "free_slots_after_run_end_seconds": monitoring["freeSlotsAfterRunEndSeconds"],
        },
        "run_retries": {
            "enabled": retries["enabled"],
            "max_retries": retries["maxRetries"],
            "retry_on_asset_or_op_failure": retries["retryOnAssetOrOpFailure"],
        },
        "concurrency": {
            "pools": {
                "granularity": concurrency["pools"]["granularity"],
                "default_limit": concurrency["pools"]["defaultLimit"],
            },
            "runs": {
                "max_concurrent_runs": concurrency["runs"]["maxConcurrentRuns"],
                "tag_concurrency_limits": concurrency["runs"]["tagConcurrencyLimits"],
            },
        },
        "sensors": _threads(daemon["sensors"]),
        "schedules": _threads(daemon["schedules"]),
        "telemetry": given["telemetry"],
        "retention": {
            name: {"purge_after_days": given["retention"][name]["purgeAfterDays"]} for name in ("schedule", "sensor")
        },
        **given["additionalInstanceConfig"],
    }


def container_context(given: dict[str, Any], name: str) -> dict[str, Any]:
    """What the chart hands to the code server of a location (--container-context), for the Jobs of its runs."""
    of = location(given, name)
    return {
        "k8s": {
            "image_pull_policy": of["image"]["pullPolicy"],
            "env_config_maps": [f"{RELEASE}-dagster-user-deployments-{name}-user-env"],
            "env_secrets": [each["name"] for each in of["envSecrets"]],
            "volume_mounts": of["volumeMounts"],
            "volumes": of["volumes"],
            "namespace": NAMESPACE,
            "service_account_name": f"{RELEASE}-dagster-user-deployments-user-deployments",
            "env": of["env"],
            "run_k8s_config": {
                "pod_spec_config": {
                    "automount_service_account_token": True,
                    "security_context": of["podSecurityContext"],
                }
            },
        }
    }


def _threads(given: dict[str, Any]) -> dict[str, Any]:
    return {"use_threads": given["useThreads"], "num_workers": given["numWorkers"]}
