"""Asks a running Dagster webserver, as its UI does, for runs and their processes, and launches runs."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kalshi_platform.errors import TransientError
from kalshi_platform.surroundings import loopback

TIMEOUT_S = 20.0
LOCATION, REPOSITORY = "kalshi_platform", "__repository__"
_LAUNCH = """
mutation Launch($location: String!, $repository: String!, $job: String!, $assets: [AssetKeyInput!],
                $tags: [ExecutionTag!]!) {
  launchRun(executionParams: {
    selector: {
      repositoryLocationName: $location, repositoryName: $repository, jobName: $job, assetSelection: $assets
    }
    runConfigData: {}
    executionMetadata: {tags: $tags}
  }) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on Error { message }
  }
}
"""
_RUN = "query Run($id: ID!) { runOrError(runId: $id) { ... on Run { runId status } } }"
_RETRIES = """
query Retries($parent: String!) {
  runsOrError(filter: {tags: [{key: "dagster/parent_run_id", value: $parent}]}) {
    ... on Runs { results { runId status } }
  }
}
"""
_EVENTS = """
query Events($id: ID!) {
  logsForRun(runId: $id) { ... on EventConnection { events { __typename ... on MessageEvent { message } } } }
}
"""
_PID = re.compile(r"\(pid: (\d+)\)")


class DagsterAway(TransientError):
    """The webserver does not answer, or refuses."""


@dataclass(frozen=True)
class Run:
    """A run and its status by Dagster's name, FAILURE say."""

    run_id: str
    status: str


class DagsterClient:
    """A client of the webserver at `url`. Every method raises DagsterAway."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def answers(self) -> bool:
        """Whether the webserver reads the instance's storage."""
        try:
            self._ask("{ runsOrError(limit: 1) { __typename } }")
        except DagsterAway:
            return False
        return True

    def launch(self, job: str, partition: str, assets: Sequence[Sequence[str]]) -> str:
        """Launch a job for one partition and these assets of it; return the run's id."""
        variables = {
            "location": LOCATION,
            "repository": REPOSITORY,
            "job": job,
            "assets": [{"path": list(path)} for path in assets],
            "tags": [{"key": "dagster/partition", "value": partition}],
        }
        answer = self._ask(_LAUNCH, variables)["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            raise DagsterAway(f"run of {job} was not launched: {answer.get('message', answer['__typename'])}")
        return str(answer["run"]["runId"])

    def run(self, run_id: str) -> Run:
        """Return a run."""
        found = self._ask(_RUN, {"id": run_id})["runOrError"]
        return Run(found["runId"], found["status"])

    def retries(self, run_id: str) -> list[Run]:
        """Return the runs that were launched in place of one."""
        found = self._ask(_RETRIES, {"parent": run_id})["runsOrError"]["results"]
        return [Run(each["runId"], each["status"]) for each in found]

    def has_begun(self, run_id: str) -> bool:
        """Whether a step of the run has begun."""
        return any(event["__typename"] == "ExecutionStepStartEvent" for event in self._events(run_id))

    def pid(self, run_id: str) -> int:
        """Return the process that works on a run, from the run's events."""
        found = [match for event in self._events(run_id) if (match := _PID.search(event.get("message") or ""))]
        if not found:
            raise DagsterAway(f"no event of run {run_id} names its process")
        return int(found[-1].group(1))

    def _events(self, run_id: str) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = self._ask(_EVENTS, {"id": run_id})["logsForRun"]["events"]
        return events

    def _ask(self, query: str, variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables or {}}).encode()
        request = urllib.request.Request(  # noqa: S310 - our own loopback address
            f"{self._url}/graphql", body, {"Content-Type": "application/json"}
        )
        try:
            with loopback.open(request, timeout=TIMEOUT_S) as answer:
                content: dict[str, Any] = json.load(answer)
        except (OSError, ValueError) as error:
            raise DagsterAway(f"Dagster's webserver does not answer: {error}") from error
        if content.get("errors") or content.get("data") is None:
            raise DagsterAway(f"Dagster's webserver refuses: {str(content.get('errors'))[:300]}")
        data: dict[str, Any] = content["data"]
        return data
