"""Launches runs of Dagster through its webserver, as its pages do, and waits for them."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from kalshi_platform.clock import Clock
from kalshi_platform.errors import TransientError
from kalshi_platform.surroundings import loopback

LOCATION, REPOSITORY, ANY_ASSETS = "kalshi_platform", "__repository__", "__ASSET_JOB"
REQUEST_TAG = "kalshi/demo_request"
"""Names one launch, so that its run is found where its answer got lost."""
TIMEOUT_S = 30.0
LAUNCH_TIMEOUT_S = 900.0
"""A launch that is given up goes on in the webserver, unseen; so its answer is waited for."""
_PAUSE_S = 5.0
_NEVER_STARTS = "NOT_STARTED"
"""The status of a run that was made, and whose launch then failed."""
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
_FIND = """
query Find($filter: RunsFilter!) {
  runsOrError(filter: $filter) { __typename ... on Runs { results { runId status } } ... on Error { message } }
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
        request: str = "",
    ) -> str:
        """Launch a batch; return the id of its run. `assets`: keys such as lake/tables; without, all of the job.

        `partitions`: the first and the last key of a range. `request`: by which `find` knows the run.
        """
        tags = _BATCH | ({REQUEST_TAG: request} if request else {})
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
            "selector": selector, "mode": "default", "runConfigData": {},
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
        }  # fmt: skip
        result = self._ask(_LAUNCH, {"params": params}, LAUNCH_TIMEOUT_S)["launchRun"]
        if result["__typename"] != "LaunchRunSuccess":
            raise DagsterRefused(f"Dagster did not launch {job}: {result.get('message') or result}")
        return str(result["run"]["runId"])

    def find(self, request: str) -> str | None:
        """Return the id of the run that a launch made under the name `request`; None: it made none that starts."""
        filters = {"tags": [{"key": REQUEST_TAG, "value": request}]}
        found = self._ask(_FIND, {"filter": filters})["runsOrError"]
        if found["__typename"] != "Runs":
            raise DagsterRefused(f"Dagster does not show its runs: {found.get('message') or found}")
        return next((str(run["runId"]) for run in found["results"] if run["status"] != _NEVER_STARTS), None)

    def launch_surely(
        self,
        job: str,
        assets: Sequence[str],
        partitions: tuple[str, str] | None,
        stop: threading.Event,
        patience_s: float,
    ) -> str | None:
        """Launch a batch once, however often Dagster has to be asked; return the id of its run, None on `stop`.

        Raises what the last attempt met, `patience_s` after the first.
        """
        request, began = uuid4().hex, self._clock.monotonic()
        while not stop.is_set():
            try:
                return self.find(request) or self.launch(job, assets, partitions, request)
            except DagsterRefused:  # its code server, say, is being started again
                if self._clock.monotonic() - began >= patience_s:
                    raise
                self._clock.wait(stop, _PAUSE_S)
        return None

    def status(self, run_id: str) -> str:
        """Return Dagster's status of a run."""
        return str(self._ask(_STATUS, {"id": run_id})["runOrError"].get("status", "unknown"))

    def wait(self, run_id: str, stop: threading.Event, patience_s: float = 0.0) -> bool:
        """Wait until a run has ended; return whether it succeeded. False also on `stop`.

        Raises once Dagster has not shown the run for `patience_s`.
        """
        shown_at = self._clock.monotonic()
        while not self._clock.wait(stop, 0.5):
            try:
                status = self.status(run_id)
            except DagsterRefused:
                if self._clock.monotonic() - shown_at >= patience_s:
                    raise
                continue
            shown_at = self._clock.monotonic()
            if status in _ENDED:
                return status == "SUCCESS"
        return False

    def _ask(self, query: str, variables: Mapping[str, Any], timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(  # noqa: S310 - our own loopback address
            f"{self._url}/graphql", body, {"Content-Type": "application/json"}
        )
        try:
            with loopback.open(request, timeout=timeout_s) as answer:
                content: dict[str, Any] = json.load(answer)
        except (OSError, ValueError, urllib.error.HTTPError) as error:
            raise DagsterRefused(f"Dagster's webserver does not answer: {error}") from error
        if content.get("errors"):
            raise DagsterRefused(f"Dagster's webserver refused: {content['errors'][0]['message']}")
        data: dict[str, Any] = content["data"]
        return data
