"""Reads the environment (variables, and `.env` in the working folder) into the frozen settings of each room.

It is the only room that reads the environment, and importing it reads nothing. Which variables there are is declared
beside the fields that they fill, in each room's settings (`kalshi_platform.setting` says how).
"""

from kalshi_platform.config.deployment import DeploymentSettings, Role
from kalshi_platform.config.environment import env_file_text, environment, environment_with, process_environment
from kalshi_platform.config.loaders import (
    OwnedDatabase,
    PlatformSettings,
    catalog_variable,
    check_before_start,
    gatherer_names,
    load_bounds,
    load_deduplicator,
    load_exchange,
    load_gatherer,
    load_iceberg,
    load_lake,
    load_logs,
    load_owned_databases,
    load_platform,
    load_production_url,
    load_public_reads,
    load_retention,
    metrics_port,
    partitions_start,
    role,
    state_dir,
    stop_limit_s,
    timeseries_variable,
)
from kalshi_platform.config.stack import StackAddresses, deployment_file, settings_of

__all__ = [
    "DeploymentSettings",
    "OwnedDatabase",
    "PlatformSettings",
    "Role",
    "StackAddresses",
    "catalog_variable",
    "check_before_start",
    "deployment_file",
    "env_file_text",
    "environment",
    "environment_with",
    "gatherer_names",
    "load_bounds",
    "load_deduplicator",
    "load_exchange",
    "load_gatherer",
    "load_iceberg",
    "load_lake",
    "load_logs",
    "load_owned_databases",
    "load_platform",
    "load_production_url",
    "load_public_reads",
    "load_retention",
    "metrics_port",
    "partitions_start",
    "process_environment",
    "role",
    "settings_of",
    "state_dir",
    "stop_limit_s",
    "timeseries_variable",
]
