"""Runs on Kubernetes: Dagster's own launcher, by the instance that the chart makes, against an API server of ours.

Needs dagster-k8s: `make deployment` has it.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.launcher.base import LaunchRunContext
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin

from kalshi_platform_tests.integration.deploy.chart import NAMESPACE, container_context, instance, values

pytest.importorskip("dagster_k8s", reason="dagster-k8s is not installed: `make deployment` has it")


class ApiServer:
    """Takes Jobs, as Kubernetes' API server does, and keeps them."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, dict[str, Any]]] = []
        jobs = self.jobs

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                jobs.append((self.path.split("?")[0], json.loads(body)))
                self.send_response(201)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002 - http.server's signature

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="module")
def api() -> Iterator[ApiServer]:
    server = ApiServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def daemon(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """The instance as the daemon has it, but for its storage and the way to the API server."""
    home: Path = tmp_path_factory.mktemp("home")
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "ours", "cluster": {"server": api.address}}],
        "users": [{"name": "us", "user": {"token": "of-a-test"}}],
        "contexts": [{"name": "here", "context": {"cluster": "ours", "user": "us"}}],
        "current-context": "here",
    }
    (home / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    made = instance(values())
    launcher = made["run_launcher"]["config"]
    launcher |= {"load_incluster_config": False, "kubeconfig_file": str(home / "kubeconfig")}
    (home / "dagster.yaml").write_text(yaml.safe_dump(made))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        with dg.DagsterInstance.from_config(str(home)) as made_instance:
            yield made_instance


@dg.job
def gather() -> None:
    """Stands for the job of that name: what is launched is named, not run."""


def launch(daemon: dg.DagsterInstance, api: ApiServer, location: str, tags: dict[str, str]) -> dict[str, Any]:
    """Launch a run of a code location as the daemon does; return the Job that the API server got."""
    origin = JobPythonOrigin(
        gather.name,
        RepositoryPythonOrigin(
            executable_path=sys.executable,
            code_pointer=ModuleCodePointer("kalshi_platform.definitions", "defs", "/opt/dagster"),
            container_image="registry.example/kalshi-platform:0.1.0",
            entry_point=["dagster"],
            container_context=container_context(values(), location),
        ),
    )
    run = daemon.create_run_for_job(gather, job_code_origin=origin, tags=tags)
    daemon.run_launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=None))
    path, job = api.jobs[-1]
    assert path == f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
    assert job["metadata"]["labels"]["dagster/run-id"] == run.run_id
    return job


def test_a_gatherers_run_is_a_job_with_its_own_secrets_key_and_journal(
    daemon: dg.DagsterInstance, api: ApiServer
) -> None:
    job = launch(daemon, api, "g1", {"kalshi/service": "gatherer/g1"})

    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == "registry.example/kalshi-platform:0.1.0"
    assert container["args"][:3] == ["dagster", "api", "execute_run"]
    environment = {each["name"]: each.get("value") for each in container["env"]}
    assert environment["KALSHI_ROLE"] == "gatherer:g1"
    secrets = [each["secretRef"]["name"] for each in container["envFrom"] if "secretRef" in each]
    assert secrets == ["kalshi-g1", "kalshi-alerts"]
    assert "OWNER" not in json.dumps(job)
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert volumes["key"]["secret"]["secretName"] == "kalshi-api-key"
    assert volumes["state"]["persistentVolumeClaim"]["claimName"] == "kalshi-g1-state"
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert mounts["state"] == environment["KALSHI_STATE_DIR"]
    assert pod["terminationGracePeriodSeconds"] == 120
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert job["spec"]["ttlSecondsAfterFinished"] == 86400


def test_processor_and_memory_are_the_charts_unless_the_runs_tag_says_others(
    daemon: dg.DagsterInstance, api: ApiServer
) -> None:
    def resources(tags: dict[str, str]) -> dict[str, Any]:
        (container,) = launch(daemon, api, "platform", tags)["spec"]["template"]["spec"]["containers"]
        return dict(container["resources"])

    usual = values()["runLauncher"]["config"]["k8sRunLauncher"]["resources"]
    assert resources({}) == usual
    large = {"requests": {"cpu": "4", "memory": "24Gi"}, "limits": {"memory": "32Gi"}}
    assert resources({"dagster-k8s/config": json.dumps({"container_config": {"resources": large}})}) == large
