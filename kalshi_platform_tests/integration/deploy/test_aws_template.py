"""The templates of deploy/aws: a linter accepts them, their parts fit, and they say what the documents promise."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from kalshi_platform.lake import lifecycle
from kalshi_platform.lake.settings import BucketRoot
from kalshi_platform.reference_docs import SECTIONS, documented
from kalshi_platform_tests.integration.deploy.stack import AWS, REFUSED, ROOT, by_make_deployment, flattened

INSTANCE_DIFFERENCES = {"run_launcher", "compute_logs", "local_artifact_storage", "concurrency"}


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return flattened("platform")


def of_type(whole: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    """The properties of all resources of a type."""
    return {key: each["Properties"] for key, each in whole["Resources"].items() if each["Type"] == f"AWS::{kind}"}


def statements(policy: dict[str, Any]) -> list[dict[str, Any]]:
    found = policy["PolicyDocument"]["Statement"]
    return list(found)


@by_make_deployment
def test_the_linter_finds_nothing() -> None:
    # W3002: a nested template by its file's name is what `aws cloudformation package` wants.
    templates = [
        str(path) for path in sorted(AWS.glob("*.yaml")) if path.name not in ("dagster.yaml", "workspace.yaml")
    ]
    program = "import sys; from cfnlint.runner import main; sys.argv[0] = 'cfn-lint'; main()"
    result = subprocess.run(
        [sys.executable, "-c", program, "--ignore-checks", "W3002", "--", *templates],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_moto_makes_all_but_what_it_is_known_to_refuse(whole: dict[str, Any]) -> None:
    # test_ecs_runs.py creates the stack: a type that moto does not know is a warning there, and fails.
    assert {each["Type"] for each in whole["Resources"].values()} >= REFUSED, "a type that is in no template any more"


def test_the_buckets_rules_are_those_that_the_asset_reads_back(whole: dict[str, Any]) -> None:
    configuration = of_type(whole, "S3::Bucket")["Lake"]["LifecycleConfiguration"]
    found = []
    for rule in configuration["Rules"]:
        said: dict[str, Any] = {"ID": rule["Id"], "Status": rule["Status"], "Filter": {"Prefix": rule["Prefix"]}}
        if "Transitions" in rule:
            said["Transitions"] = [
                {"Days": each["TransitionInDays"], "StorageClass": each["StorageClass"]} for each in rule["Transitions"]
            ]
        if "AbortIncompleteMultipartUpload" in rule:
            said["AbortIncompleteMultipartUpload"] = rule["AbortIncompleteMultipartUpload"]
        found.append(said)
    assert found == lifecycle.rules(BucketRoot("any", "lake"))
    assert configuration["TransitionDefaultMinimumObjectSize"] == "all_storage_classes_128K"


def test_databases_are_private_encrypted_and_ask_for_tls(whole: dict[str, Any]) -> None:
    servers = of_type(whole, "RDS::DBInstance")
    assert set(servers) == {
        "G1DatabaseServer",
        "G2DatabaseServer",
        "G3DatabaseServer",
        "ProductionServer",
        "DagsterServer",
    }
    for server in servers.values():
        assert server["StorageEncrypted"] is True
        assert server["PubliclyAccessible"] is False
        assert server["DeletionProtection"] is True
        assert "resolve:secretsmanager" in str(server["MasterUserPassword"])
    assert of_type(whole, "RDS::DBParameterGroup")["DatabaseParameters"]["Parameters"]["rds.force_ssl"] == "1"
    urls = [text for each in of_type(whole, "SecretsManager::Secret").values() for text in [str(each)] if "://" in text]
    assert len(urls) == 6
    for text in urls:
        assert text.count("postgresql") == text.count("?${Tls}")
        assert "sslmode=verify-full" in text


def test_what_holds_a_password_changes_with_the_version_of_passwords(whole: dict[str, Any]) -> None:
    # CloudFormation resolves a reference to a secret again only in a resource of which a property changes.
    holders = {key: each for key, each in whole["Resources"].items() if "resolve:secretsmanager" in str(each)}
    assert set(holders) == {
        *("PlatformUrls", "OwnerUrls", "DagsterUrl", "G1CaptureUrls", "G2CaptureUrls", "G3CaptureUrls"),
        *of_type(whole, "RDS::DBInstance"),
    }
    for name, each in holders.items():
        assert re.search(r"\$\{PasswordsVersion\}|'Ref': 'PasswordsVersion'", str(each["Properties"])), name


@pytest.mark.parametrize("name", ["G1", "G2", "G3", "Platform", "Webserver", "Daemon", "Migrate"])
def test_a_task_gets_secrets_by_reference_and_only_what_its_role_may_read(whole: dict[str, Any], name: str) -> None:
    definition = of_type(whole, "ECS::TaskDefinition")[f"{name}Task"]
    role = definition["ExecutionRoleArn"]["Fn::GetAtt"][0]
    (policy,) = of_type(whole, "IAM::Role")[role]["Policies"]
    (statement,) = statements(policy)
    assert statement["Action"] == "secretsmanager:GetSecretValue"
    allowed = set(re.findall(r"(\w+)", str(statement["Resource"])))
    for container in definition["ContainerDefinitions"]:
        assert container["ReadonlyRootFilesystem"] is True
        assert not [each for each in container.get("Environment", []) if re.search("URL|PASSWORD|KEY_ID", each["Name"])]
        for secret in container["Secrets"]:
            text = str(secret["Fn::If"][1] if "Fn::If" in secret else secret)
            names = set(re.findall(r"\w+", text)) & set(of_type(whole, "SecretsManager::Secret")) | (
                set(re.findall(r"\w+SecretArn", text))
            )
            assert names, text
            assert names <= allowed, text


def test_only_migrate_knows_the_owners_of_tables(whole: dict[str, Any]) -> None:
    for name, definition in of_type(whole, "ECS::TaskDefinition").items():
        assert ("OWNER_DATABASE_URL" in str(definition)) == (name == "MigrateTask"), name


def test_dagster_may_run_only_the_code_locations_tasks_and_pass_only_their_roles(whole: dict[str, Any]) -> None:
    (policy,) = of_type(whole, "IAM::Role")["DagsterTaskRole"]["Policies"]
    by_action = {str(each["Action"]): each for each in statements(policy)}
    families = {each["Fn::Sub"].split("task-definition/")[1] for each in by_action["ecs:RunTask"]["Resource"]}
    assert families == {f"${{AWS::StackName}}-{name}:*" for name in ("g1", "g2", "g3", "platform")}
    passed = {each["Fn::GetAtt"][0] for each in by_action["iam:PassRole"]["Resource"]}
    used = set()
    for name in ("G1Task", "G2Task", "G3Task", "PlatformTask"):
        definition = of_type(whole, "ECS::TaskDefinition")[name]
        used |= {definition[key]["Fn::GetAtt"][0] for key in ("ExecutionRoleArn", "TaskRoleArn")}
    assert passed == used


def test_no_policy_allows_every_action_and_a_star_says_why(whole: dict[str, Any]) -> None:
    policies = [each for role in of_type(whole, "IAM::Role").values() for each in role["Policies"]]
    policies += [{"PolicyDocument": each["PolicyDocument"]} for each in of_type(whole, "IAM::ManagedPolicy").values()]
    for policy in policies:
        for statement in statements(policy):
            assert "*" not in str(statement["Action"])
    text = "".join((AWS / name).read_text() for name in ("platform.yaml", "gatherer.yaml"))
    assert all("#" in line for line in re.findall(r'.*Resource: "\*".*', text) if "Principal" not in line)


def dimensions(alarm: dict[str, Any]) -> list[Any]:
    return [each["Value"] for each in alarm.get("Dimensions", [])]


def test_every_server_and_service_has_its_alarms(whole: dict[str, Any]) -> None:
    alarms = of_type(whole, "CloudWatch::Alarm")
    for name in of_type(whole, "RDS::DBInstance"):
        watched = {each["MetricName"] for each in alarms.values() if {"Ref": name} in dimensions(each)}
        assert watched == {"FreeStorageSpace", "FreeableMemory", "CPUUtilization"}, name
    for name in of_type(whole, "ECS::Service"):
        value = {"Fn::GetAtt": [name, "Name"]}
        assert [each for each in alarms.values() if value in dimensions(each)], name
    assert all(each["AlarmActions"] == [{"Ref": "AlarmTopic"}] for each in alarms.values())


def test_locations_have_the_settings_that_they_read(whole: dict[str, Any]) -> None:
    known = {each.setting.name for section in SECTIONS for each in documented(section)}
    known |= {name.replace("{GATHERER}", f"G{number}") for name in known for number in (1, 2, 3)}
    known |= {"KALSHI_RUN_LOGS_BUCKET", "DAGSTER_CONTAINER_CONTEXT"}  # Dagster's, and that of its instance file
    for name in ("G1Task", "PlatformTask"):
        containers = {
            each["Name"]: each for each in of_type(whole, "ECS::TaskDefinition")[name]["ContainerDefinitions"]
        }
        variables = [*containers["dagster"]["Environment"], *containers["dagster"]["Secrets"]]
        given = [str(each.get("Name") or each["Fn::If"][1]["Name"]) for each in variables]
        given = [re.sub(r".*(KALSHI_)\$\{Capitals\}(\w+_URL).*", r"\1G1\2", each) for each in given]
        assert set(given) <= known | {"KALSHI_ALERT_WEBHOOK_URL"}, set(given) - known


def test_dagster_finds_the_locations_by_the_names_that_the_stack_gives(whole: dict[str, Any]) -> None:
    servers = [each["grpc_server"] for each in yaml.safe_load((AWS / "workspace.yaml").read_text())["load_from"]]
    addresses = of_type(whole, "ServiceDiscovery::Service")
    namespace = of_type(whole, "ServiceDiscovery::PrivateDnsNamespace")["Namespace"]["Name"]
    assert {each["host"] for each in servers} == {f"{each['Name']}.{namespace}" for each in addresses.values()}
    for server in servers:
        name = server["location_name"]
        assert server["host"] == f"{name}.{namespace}"
        definition = of_type(whole, "ECS::TaskDefinition")[f"{name.capitalize()}Task"]
        command = str(definition["ContainerDefinitions"][-1]["Command"])
        assert f"--port={server['port']}" in command
        assert "--location-name=" in command


def test_the_instance_file_differs_from_the_shipped_one_only_where_ecs_does() -> None:
    shipped = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    ours = yaml.safe_load((AWS / "dagster.yaml").read_text())
    assert {key for key in shipped | ours if shipped.get(key) != ours.get(key)} == INSTANCE_DIFFERENCES
    shipped["concurrency"]["runs"]["tag_concurrency_limits"][1]["limit"] = 8
    assert shipped == {key: ours[key] for key in shipped}


def test_the_image_copies_what_exists() -> None:
    allowed = {line[1:] for line in (AWS / "Dockerfile.dockerignore").read_text().split("\n") if line[:1] == "!"}
    (copied,) = re.findall(r"^COPY --chown=\S+ (.+) /opt/dagster/$", (AWS / "Dockerfile").read_text(), re.MULTILINE)
    assert set(copied.split()) == allowed
    assert all((ROOT / name).exists() for name in allowed), allowed
