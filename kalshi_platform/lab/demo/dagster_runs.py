"""Launches runs of Dagster through its webserver, as its pages do, and waits for them."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from kalshi_platform.clock import Clock
from kalshi_platform.errors import TransientError
from kalshi_platform.surroundings import loopback

LOCATION, REPOSITORY, ANY_ASSETS = "kalshi_platform", "__repository__", "__ASSET_JOB"
TIMEOUT_S = 30.0
_ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
_BATCH = {"kalshi/kind": "batch"}

_LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on Error { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
_STATUS = "query Status($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"


class DagsterRefused(TransientError):
    """Dagster's webserver does not answer, or refused a request, or a run did not succeed."""


class DagsterRuns:
    """The runs of one webserver. All of it raises DagsterRefused."""

    def __init__(self, ui_url: str, clock: Clock) -> None:
        self._url = ui_url
        self._clock = clock

    def launch(
        self,
        job: str,
        assets: Sequence[str] = (),
        partitions: tuple[str, str] | None = None,
        run_config: Mapping[str, Any] | None = None,
    ) -> str:
        """Launch a batch; return the id of its run. `assets`: keys such as lake/tables; without, all of the job.

        `partitions`: the first and the last key of a range.
        """
        tags = dict(_BATCH)
        if partitions is not None:
            first, last = partitions
            if first == last:
                tags["dagster/partition"] = first
            else:
                tags |= {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
        selector: dict[str, Any] = {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY, "jobName": job}
        if assets:
            selector["assetSelection"] = [{"path": key.split("/")} for key in assets]
        params = {
            "selector": selector, "mode": "default", "runConfigData": dict(run_config or {}),
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
        }  # fmt: skip
        result = self._ask(_LAUNCH, {"params": params})["launchRun"]
        if result["__typename"] != "LaunchRunSuccess":
            raise DagsterRefused(f"Dagster did not launch {job}: {result.get('message') or result}")
        return str(result["run"]["runId"])

    def status(self, run_id: str) -> str:
        """Return Dagster's status of a run."""
        return str(self._ask(_STATUS, {"id": run_id})["runOrError"].get("status", "unknown"))

    def wait(self, run_id: str, stop: threading.Event) -> bool:
        """Wait until a run has ended; return whether it succeeded. False also on `stop`."""
        while not self._clock.wait(stop, 0.5):
            status = self.status(run_id)
            if status in _ENDED:
                return status == "SUCCESS"
        return False

    def _ask(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(  # noqa: S310 - our own loopback address
            f"{self._url}/graphql", body, {"Content-Type": "application/json"}
        )
        try:
            with loopback.open(request, timeout=TIMEOUT_S) as answer:
                content: dict[str, Any] = json.load(answer)
        except (OSError, ValueError, urllib.error.HTTPError) as error:
            raise DagsterRefused(f"Dagster's webserver does not answer: {error}") from error
        if content.get("errors"):
            raise DagsterRefused(f"Dagster's webserver refused: {content['errors'][0]['message']}")
        data: dict[str, Any] = content["data"]
        return data
