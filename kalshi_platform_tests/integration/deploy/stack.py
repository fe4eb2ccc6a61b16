"""The CloudFormation stack of deploy/aws, created on moto as `aws cloudformation package` and `deploy` would.

What moto's CloudFormation refuses is left out, and stands for it a name: see REFUSED and UNREAD.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

ROOT = Path(__file__).parents[3]
AWS = ROOT / "deploy" / "aws"
NAME = "kalshi"
REGION = "us-east-1"
ACCOUNT = "123456789012"
IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/kalshi-platform:1"
KEY_SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:kalshi/api-key-AbCdEf"
WEBHOOK_SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:kalshi/webhook-AbCdEf"
REFUSED = {
    "AWS::CloudWatch::Alarm",
    "AWS::EC2::SecurityGroupEgress",
    "AWS::Logs::MetricFilter",
    "AWS::S3::BucketPolicy",
    "AWS::SNS::Subscription",
    "AWS::SecretsManager::Secret",
    "AWS::ServiceDiscovery::PrivateDnsNamespace",
    "AWS::ServiceDiscovery::Service",
}
"""Types of the templates that moto 5.2 does not make."""
by_make_deployment = pytest.mark.skipif(
    os.environ.get("TEST_DEPLOYMENT") != "yes", reason="it takes several seconds: `make deployment` runs it"
)
"""Marks what is no part of the default suite."""
UNREAD = {"AWS::RDS::DBInstance": "DBParameterGroupName"}
"""A property that moto 5.2 fails at: it looks for text where it has made an object."""


@dataclass
class Stack:
    """What was created: outputs of the root stack, and the subnets it was given."""

    outputs: dict[str, str]
    subnets: list[str]

    def task_definition(self, family: str) -> dict[str, Any]:
        """The newest task definition of a family, by the family's name without the stack's."""
        answer = boto3.client("ecs").describe_task_definition(taskDefinition=f"{NAME}-{family}")
        return dict(answer["taskDefinition"])

    def container(self, family: str, name: str = "dagster") -> dict[str, Any]:
        """One container of a task definition."""
        (container,) = [each for each in self.task_definition(family)["containerDefinitions"] if each["name"] == name]
        return dict(container)


def template(name: str) -> dict[str, Any]:
    """A template with its short forms (!Ref, !Sub) written out."""
    return dict(yaml.load((AWS / f"{name}.yaml").read_text(), Loader=_Loader))


class _Loader(yaml.SafeLoader):
    """Reads CloudFormation's short forms as the functions that they are short for."""


def _long_form(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt":
        value = value.split(".", 1)
    return {suffix if suffix == "Ref" else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _long_form)


def stand_in(logical_id: str) -> str:
    """What stands for a resource that moto refuses."""
    return f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{logical_id}"


@contextmanager
def no_account() -> Iterator[None]:
    """Credentials of nobody, so that no test can reach an account."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            patch.setenv(name, "nobody")
        patch.setenv("AWS_DEFAULT_REGION", REGION)
        patch.setenv("AWS_REGION", REGION)
        patch.delenv("AWS_PROFILE", raising=False)
        yield


def create_stack() -> Stack:
    """Create the stack. Call it within moto's `mock_aws`; a type that moto does not know is a warning there."""
    subnets = boto3.client("ec2").describe_subnets()["Subnets"]
    parameters = {
        "VpcId": subnets[0]["VpcId"],
        "SubnetA": subnets[0]["SubnetId"],
        "SubnetB": subnets[1]["SubnetId"],
        "Image": IMAGE,
        "Started": "yes",
        "ApiKeySecretArn": KEY_SECRET,
        "AlertWebhookSecretArn": WEBHOOK_SECRET,
        "AlarmEmail": "on-call@example.com",
    }
    client = boto3.client("cloudformation")
    client.create_stack(
        StackName=NAME,
        TemplateBody=json.dumps(as_moto_takes_it(flattened("platform"))),
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    (stack,) = client.describe_stacks(StackName=NAME)["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    outputs = {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]}
    _complete_task_definitions()
    return Stack(outputs, [subnets[0]["SubnetId"], subnets[1]["SubnetId"]])


def _complete_task_definitions() -> None:
    """Register the task definitions again with what moto's CloudFormation leaves out, and its ECS keeps."""
    cloudformation, ecs, iam = boto3.client("cloudformation"), boto3.client("ecs"), boto3.client("iam")

    def role(value: dict[str, Any] | None) -> str | None:
        if value is None:
            return None
        resource = cloudformation.describe_stack_resource(StackName=NAME, LogicalResourceId=value["Fn::GetAtt"][0])
        name = resource["StackResourceDetail"]["PhysicalResourceId"]
        return str(iam.get_role(RoleName=name)["Role"]["Arn"])

    for logical_id, each in flattened("platform")["Resources"].items():
        if each["Type"] != "AWS::ECS::TaskDefinition":
            continue
        detail = cloudformation.describe_stack_resource(StackName=NAME, LogicalResourceId=logical_id)
        arn = detail["StackResourceDetail"]["PhysicalResourceId"]
        made = ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"]
        properties = each["Properties"]
        roles = {
            "taskRoleArn": role(properties.get("TaskRoleArn")),
            "executionRoleArn": role(properties["ExecutionRoleArn"]),
        }
        ecs.register_task_definition(
            family=made["family"],
            containerDefinitions=[
                {"memoryReservation": 512, **each} for each in made["containerDefinitions"]
            ],  # moto adds it
            volumes=made["volumes"],
            networkMode=properties["NetworkMode"],
            requiresCompatibilities=properties["RequiresCompatibilities"],
            cpu=properties["Cpu"],
            memory=properties["Memory"],
            **{key[0].lower() + key[1:]: found for key, found in roles.items() if found},
        )


def flattened(name: str) -> dict[str, Any]:
    """A template with the resources of its nested stacks in it: moto's nested stacks have no outputs.

    Their conditions are those of the root, by the same names.
    """
    whole = template(name)
    for stack, each in list(whole["Resources"].items()):
        if each["Type"] != "AWS::CloudFormation::Stack":
            continue
        del whole["Resources"][stack]
        inner = flattened(each["Properties"]["TemplateURL"].removesuffix(".yaml"))
        assert set(inner["Parameters"]) == set(each["Properties"]["Parameters"]), stack
        assert set(inner.get("Conditions", {})) <= set(whole.get("Conditions", {})), stack
        names = {key: {"Ref": stack + key} for key in inner["Resources"]} | each["Properties"]["Parameters"]
        for key, resource in inner["Resources"].items():
            whole["Resources"][stack + key] = _with_names(resource, names, stack)
        outputs = {key: _with_names(output["Value"], names, stack) for key, output in inner["Outputs"].items()}
        whole = _with_outputs(whole, stack, outputs)
    return whole


def _with_names(value: Any, names: dict[str, Any], stack: str) -> Any:
    """Replace references to parameters and resources of a nested stack by what they are in the root."""
    if isinstance(value, list):
        return [_with_names(each, names, stack) for each in value]
    if not isinstance(value, dict):
        return value
    if value.get("Ref") in names:
        return names[value["Ref"]]
    if "Fn::GetAtt" in value:
        resource, attribute = value["Fn::GetAtt"]
        return {"Fn::GetAtt": [stack + resource, attribute]}
    if isinstance(value.get("Fn::Sub"), str):
        used = {key: names[key] for key in re.findall(r"\$\{(\w+)\}", value["Fn::Sub"]) if key in names}
        return {"Fn::Sub": [value["Fn::Sub"], used]} if used else value
    return {key: _with_names(each, names, stack) for key, each in value.items()}


def _with_outputs(value: Any, stack: str, outputs: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_with_outputs(each, stack, outputs) for each in value]
    if not isinstance(value, dict):
        return value
    if value.get("Fn::GetAtt", [""])[0] == stack:
        return outputs[value["Fn::GetAtt"][1].removeprefix("Outputs.")]
    return {key: _with_outputs(each, stack, outputs) for key, each in value.items()}


def as_moto_takes_it(given: dict[str, Any]) -> dict[str, Any]:
    """Leave out what moto refuses, and put a name in the place of each reference to it."""
    refused = {key: stand_in(key) for key, each in given["Resources"].items() if each["Type"] in REFUSED}

    def replaced(value: Any) -> Any:
        if isinstance(value, list):
            return [replaced(each) for each in value]
        if not isinstance(value, dict):
            return value
        if value.get("Ref") in refused:
            return refused[value["Ref"]]
        if "Fn::GetAtt" in value and value["Fn::GetAtt"][0] in refused:
            return refused[value["Fn::GetAtt"][0]]
        if isinstance(value.get("Fn::Sub"), str):
            return {"Fn::Sub": re.sub(r"\$\{(\w+)\}", lambda m: refused.get(m[1], m[0]), value["Fn::Sub"])}
        return {key: replaced(each) for key, each in value.items()}

    resources = {key: each for key, each in given["Resources"].items() if key not in refused}
    for each in resources.values():
        each["Properties"].pop(UNREAD.get(each["Type"], ""), None)
    return dict(replaced({**given, "Resources": resources}))
