"""Runs on ECS: Dagster's own launcher, by deploy/aws/dagster.yaml, against moto's ECS with the stack in it."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import dagster as dg
import pytest
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.launcher.base import LaunchRunContext
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from moto import mock_aws

from kalshi_platform.orchestration.services import gatherer_service_name, service_tags
from kalshi_platform.orchestration.supervision.supervisor import policy_of
from kalshi_platform_tests.integration.deploy.stack import (
    AWS,
    IMAGE,
    NAME,
    Stack,
    by_make_deployment,
    create_stack,
    no_account,
    stand_in,
)

pytestmark = by_make_deployment

OVERRIDES_LIMIT = 8192
"""Characters of a task's overrides, by ECS's RunTask."""


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with no_account(), mock_aws():
        yield create_stack()


@dataclass
class Deployment:
    """The stack with its daemon running, and the instance as the daemon has it."""

    stack: Stack
    instance: dg.DagsterInstance

    def launch(self, job: dg.JobDefinition, location: str, tags: dict[str, str]) -> tuple[str, dict[str, Any]]:
        """Launch a run of a code location as the daemon does; return its id and the task that ECS got."""
        environment = {each["name"]: each["value"] for each in self.stack.container(location)["environment"]}
        origin = JobPythonOrigin(
            job.name,
            RepositoryPythonOrigin(
                executable_path=sys.executable,
                code_pointer=ModuleCodePointer("kalshi_platform.definitions", "defs", "/opt/dagster"),
                container_image=None,
                entry_point=["dagster"],
                container_context=json.loads(environment["DAGSTER_CONTAINER_CONTEXT"]),
            ),
        )
        run = self.instance.create_run_for_job(job, job_code_origin=origin, tags=tags)
        self.instance.run_launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=None))
        return run.run_id, self.task_of(run.run_id)

    def task_of(self, run_id: str) -> dict[str, Any]:
        """The task that a run's tags name."""
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        answer = boto3.client("ecs").describe_tasks(
            cluster=run.tags["ecs/cluster"], tasks=[run.tags["ecs/task_arn"]], include=["TAGS"]
        )
        (task,) = answer["tasks"]
        return dict(task)


@pytest.fixture(scope="module")
def deployment(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    ecs = boto3.client("ecs")
    ecs_task = ecs.run_task(
        cluster=stack.outputs["ClusterName"],
        taskDefinition=f"{NAME}-daemon",
        launchType="FARGATE",
        networkConfiguration={
            "awsvpcConfiguration": {
                "subnets": stack.subnets[:1],
                "securityGroups": [stack.outputs["TasksSecurityGroup"]],
                "assignPublicIp": "DISABLED",
            }
        },
    )["tasks"][0]
    home = tmp_path_factory.mktemp("home")
    shutil.copy(AWS / "dagster.yaml", home)
    with pytest.MonkeyPatch.context() as patch, metadata_endpoint(ecs_task) as address:
        patch.setenv("ECS_CONTAINER_METADATA_URI_V4", address)
        patch.setenv("KALSHI_STATE_DIR", str(home / "state"))
        patch.setenv("KALSHI_RUN_LOGS_BUCKET", "logs")
        patch.delenv("DAGSTER_DATABASE_URL", raising=False)
        with dg.DagsterInstance.from_config(str(home)) as instance:
            yield Deployment(stack, instance)


class metadata_endpoint:  # noqa: N801 - used as a function
    """What ECS tells a container about its task (task metadata endpoint, version 4)."""

    def __init__(self, task: dict[str, Any]) -> None:
        answers = {
            "/": {"Name": "dagster"},
            "/task": {"Cluster": task["clusterArn"], "TaskARN": task["taskArn"]},
        }

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(answers[self.path or "/"]).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002 - http.server's signature

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@dg.job
def gather() -> None:
    """Stands for the job of that name: what is launched is named, not run."""


def test_a_gatherers_run_is_a_task_of_its_own_definition_with_its_own_secrets_and_role(deployment: Deployment) -> None:
    tags = service_tags(gatherer_service_name("g1"))
    run_id, task = deployment.launch(gather, "g1", tags)

    definition = deployment.stack.task_definition("g1")
    assert task["taskDefinitionArn"] == definition["taskDefinitionArn"]
    (override,) = task["overrides"]["containerOverrides"]
    assert override["name"] == "dagster"
    assert override["command"][:3] == ["dagster", "api", "execute_run"]
    assert run_id in override["command"][3]
    assert len(json.dumps(task["overrides"])) < OVERRIDES_LIMIT
    assert "kalshi_platform.definitions" in override["command"][3]
    container = deployment.stack.container("g1")
    assert container["image"] == IMAGE
    environment = {each["name"]: each["value"] for each in container["environment"]}
    assert environment["KALSHI_ROLE"] == "gatherer:g1"
    secrets = {each["name"]: each["valueFrom"] for each in container["secrets"]}
    assert secrets["KALSHI_G1_TIMESERIES_DATABASE_URL"] == stand_in("G1CaptureUrls") + ":timeseries::"
    assert not [name for name in secrets if "_G2_" in name or "OWNER" in name or "PRODUCTION" in name]
    assert definition["taskRoleArn"].split("/")[-1].startswith("kalshi-G1TaskRole")
    assert definition["executionRoleArn"].split("/")[-1].startswith("kalshi-G1ExecutionRole")
    propagated = {each["key"]: each["value"] for each in task["tags"]}
    assert propagated["dagster/run_id"] == run_id
    assert propagated["kalshi/service"] == "gatherer/g1"


def test_a_run_is_in_the_daemons_network_on_fargate(deployment: Deployment) -> None:
    _, task = deployment.launch(gather, "g2", {})

    assert task["launchType"] == "FARGATE"
    assert task["clusterArn"].endswith(deployment.stack.outputs["ClusterName"])
    (attachment,) = task["attachments"]
    details = {each["name"]: each["value"] for each in attachment["details"]}
    assert details["subnetId"] == deployment.stack.subnets[0]
    interface = boto3.resource("ec2").NetworkInterface(details["networkInterfaceId"])
    assert [group["GroupId"] for group in interface.groups] == [deployment.stack.outputs["TasksSecurityGroup"]]


@pytest.mark.parametrize(
    ("location", "tags", "cpu", "memory"),
    [
        ("g1", {}, 1024, 4096),
        ("platform", {}, 2048, 8192),
        ("platform", {"ecs/cpu": "4096", "ecs/memory": "30720"}, 4096, 30720),
    ],
)
def test_processor_and_memory_are_the_locations_unless_the_runs_tags_say_others(
    deployment: Deployment, location: str, tags: dict[str, str], cpu: int, memory: int
) -> None:
    _, task = deployment.launch(gather, location, tags)

    (override,) = task["overrides"]["containerOverrides"]
    assert (override["cpu"], override["memory"]) == (cpu, memory)
    assert (task["overrides"]["cpu"], task["overrides"]["memory"]) == (str(cpu), str(memory))


def test_a_supervised_run_has_as_long_to_start_as_its_task_needs(deployment: Deployment) -> None:
    assert policy_of(deployment.instance).start_limit_s == 300


def test_terminating_a_run_stops_its_task(deployment: Deployment) -> None:
    run_id, _ = deployment.launch(gather, "g1", {})

    assert deployment.instance.run_launcher.terminate(run_id)

    assert deployment.task_of(run_id)["lastStatus"] == "STOPPED"
