"""Settings: every problem in one message, names in it, secrets not."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import certifi
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from kalshi_platform import config
from kalshi_platform.errors import ConfigurationError
from kalshi_platform.exchange.settings import PRODUCTION_REST_URL
from kalshi_platform.market.parts import WHOLE, MarketPart
from kalshi_platform.monitoring.settings import EndpointSettings, LogSettings

ROOT = Path(__file__).parents[3]
URL = "postgresql://u:hunter2@127.0.0.1:5432/x"
KEY = ed25519.Ed25519PrivateKey.generate().private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)


def complete(tmp_path: Path) -> dict[str, str]:
    key = tmp_path / "key.pem"
    key.write_bytes(KEY)
    names = [f"KALSHI_G1_{kind}_DATABASE_URL" for kind in ("TIMESERIES", "CATALOG")]
    return {
        "KALSHI_GATHERERS": "g1",
        "KALSHI_API_KEY_ID": "id",
        "KALSHI_PRIVATE_KEY_PATH": str(key),
        "KALSHI_LAKE_ROOT": "file:///lake",
        "KALSHI_PRODUCTION_DATABASE_URL": URL,
        **dict.fromkeys(names, URL),
    }


def problems(environ: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as raised:
        config.load_platform(environ)
    return raised.value.problems


def test_nothing_configured_names_every_missing_setting_once() -> None:
    found = problems({})
    wanted = ["KALSHI_API_KEY_ID", "KALSHI_PRIVATE_KEY_PATH", "KALSHI_PRODUCTION_DATABASE_URL", "KALSHI_LAKE_ROOT"]
    wanted += [
        f"KALSHI_{name}_{kind}_DATABASE_URL" for name in ("G1", "G2", "G3") for kind in ("TIMESERIES", "CATALOG")
    ]
    for name in wanted:
        assert sum(problem.startswith(name) for problem in found) == 1, name
    assert len(found) == len(wanted)


def test_the_merge_and_migrate_use_their_own_logins_where_they_are_given(tmp_path: Path) -> None:
    environ = complete(tmp_path)
    of_gatherer = config.load_deduplicator(environ).sources[0]
    assert (of_gatherer.timeseries_url, of_gatherer.catalog_url) == (URL, URL)
    assert {each.url for each in config.load_owned_databases(environ)} == {URL}

    environ["KALSHI_G1_TIMESERIES_READ_DATABASE_URL"] = reading = URL.replace("u:", "merge:")
    environ["KALSHI_PRODUCTION_OWNER_DATABASE_URL"] = environ["KALSHI_G1_CATALOG_OWNER_DATABASE_URL"] = owning = (
        URL.replace("u:", "owner:")
    )
    of_merge = config.load_deduplicator(environ).sources[0]
    assert (of_merge.timeseries_url, of_merge.catalog_url) == (reading, URL)
    assert config.load_retention(environ).gatherers[0].url == reading
    assert config.load_gatherer("g1", environ).timeseries_url == URL
    owned = {each.name: each.url for each in config.load_owned_databases(environ)}
    assert owned == {"production": owning, "g1 timeseries": URL, "g1 catalog": owning}
    assert "hunter2" not in repr(config.load_owned_databases(environ))


def test_a_host_of_the_merge_alone_needs_no_login_of_a_gatherer(tmp_path: Path) -> None:
    environ = complete(tmp_path)
    for kind in ("TIMESERIES", "CATALOG"):
        environ[f"KALSHI_G1_{kind}_READ_DATABASE_URL"] = environ.pop(f"KALSHI_G1_{kind}_DATABASE_URL")
    assert config.load_deduplicator(environ).sources[0].catalog_url == URL
    environ["KALSHI_G1_CATALOG_READ_DATABASE_URL"] = "mysql://u:hunter2@host/x"
    with pytest.raises(ConfigurationError) as raised:
        config.load_deduplicator(environ)
    (problem, _missing) = raised.value.problems
    assert problem.startswith("KALSHI_G1_CATALOG_READ_DATABASE_URL")
    assert "hunter2" not in problem


def test_a_store_beyond_this_machine_is_reached_by_https_unless_it_is_said_otherwise(tmp_path: Path) -> None:
    environ = complete(tmp_path) | {"KALSHI_LAKE_ROOT": "s3://bucket/prefix"}
    for address in ("https://s3.example.com", "http://127.0.0.1:9000", "http://localhost:9000", "http://[::1]:9000"):
        config.load_lake(environ | {"KALSHI_S3_ENDPOINT_URL": address})
    environ["KALSHI_S3_ENDPOINT_URL"] = "http://u:hunter2@minio.example:9000"
    for problem in (*problems(environ),):
        assert problem.startswith("KALSHI_S3_ENDPOINT_URL is http://minio.example: ")
        assert "KALSHI_S3_ALLOW_HTTP" in problem
    assert config.load_lake(environ | {"KALSHI_S3_ALLOW_HTTP": "yes"}).allow_http


def test_databases_that_may_be_reached_in_plain_text_are_named_before_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    environ = complete(tmp_path) | {
        "KALSHI_PRODUCTION_DATABASE_URL": "postgresql://u:hunter2@db.example/x",
        "DAGSTER_DATABASE_URL": "postgresql://u:hunter2@db.example/y?sslmode=verify-full",
        "OTHER_DATABASE_URL": "postgresql://u:hunter2@db.example/z",
    }
    assert config.unencrypted_databases(environ) == ["KALSHI_PRODUCTION_DATABASE_URL"]
    assert config.unencrypted_databases(environ | {"PGSSLMODE": "require"}) == []
    config.check_before_start(environ, exchange_is_ours=False)
    (record,) = caplog.records
    assert "KALSHI_PRODUCTION_DATABASE_URL" in record.getMessage()
    assert "hunter2" not in record.getMessage()


def test_nothing_listens_for_other_machines_by_default() -> None:
    assert EndpointSettings().host == "127.0.0.1"


def test_complete_settings_load(tmp_path: Path) -> None:
    settings = config.load_platform(complete(tmp_path))
    assert settings.exchange.rest_url == PRODUCTION_REST_URL
    assert list(settings.gatherers) == ["g1"]
    assert settings.deduplicator.sources[0].timeseries_url == URL
    assert settings.lake.root == "file:///lake"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("KALSHI_WS_URL", "https://example", "KALSHI_WS_URL"),
        ("KALSHI_REST_URL", "ftp://example", "KALSHI_REST_URL"),
        ("KALSHI_PRODUCTION_DATABASE_URL", "mysql://u:hunter2@h/x", "KALSHI_PRODUCTION_DATABASE_URL"),
        ("KALSHI_PRODUCTION_DATABASE_URL", "postgresql://u:hunter2@h:notaport/x", "KALSHI_PRODUCTION_DATABASE_URL"),
        ("KALSHI_PRODUCTION_DATABASE_URL", "foo", "KALSHI_PRODUCTION_DATABASE_URL"),
        ("KALSHI_G1_CATALOG_DATABASE_URL", "postgresql://u:hunter2@h", "KALSHI_G1_CATALOG_DATABASE_URL"),
        ("KALSHI_ROLE", "boss", "KALSHI_ROLE"),
        ("KALSHI_PARTITIONS_START", "soon", "KALSHI_PARTITIONS_START"),
        ("KALSHI_REST_SHARE", "abc", "KALSHI_REST_SHARE"),
        ("KALSHI_LAKE_ROOT", "s3:/bucket", "KALSHI_LAKE_ROOT"),
        ("KALSHI_MERGE_INTERVAL_S", "soon", "KALSHI_MERGE_INTERVAL_S"),
        ("KALSHI_MERGE_INTERVAL_S", "0", "KALSHI_MERGE_INTERVAL_S"),
        ("KALSHI_TIME_MARGIN_S", "0", "KALSHI_TIME_MARGIN_S"),
        ("KALSHI_LEAST_AGREEMENT", "90", "KALSHI_LEAST_AGREEMENT"),
        ("KALSHI_BOOK_CONNECTIONS", "1.5", "KALSHI_BOOK_CONNECTIONS"),
        ("KALSHI_JOURNAL_MAX_GIB", "20 GB", "KALSHI_JOURNAL_MAX_GIB"),
        ("KALSHI_JOURNAL_MIN_FREE_GIB", "-1", "KALSHI_JOURNAL_MIN_FREE_GIB"),
        ("KALSHI_GATHERERS", "g1,G 2", "KALSHI_GATHERERS"),
        ("KALSHI_GATHERERS", "g1,g1", "KALSHI_GATHERERS"),
        ("KALSHI_PRIVATE_KEY_PATH", "/nowhere/key.pem", "KALSHI_PRIVATE_KEY_PATH"),
        ("KALSHI_EARLIEST_TIME", "yesterday", "KALSHI_EARLIEST_TIME"),
        ("KALSHI_COMBOS", "perhaps", "KALSHI_COMBOS"),
        ("KALSHI_CHECK_TRADES", "perhaps", "KALSHI_CHECK_TRADES"),
        ("KALSHI_REST_URL", "https://example/trade-api/v2?x=1", "KALSHI_REST_URL holds a ? or #"),
        ("KALSHI_WS_URL", "wss://example/trade-api/ws/v2#x", "KALSHI_WS_URL holds a ? or #"),
        ("KALSHI_S3_ENDPOINT_URL", "minio:9000", "KALSHI_S3_ENDPOINT_URL is not a usable address"),
        ("KALSHI_S3_ENDPOINT_URL", "http://minio:9000/a#b", "KALSHI_S3_ENDPOINT_URL holds a ? or #"),
        ("KALSHI_PRIVATE_KEY_PATH", "~nobody-of-this-name/key.pem", "KALSHI_PRIVATE_KEY_PATH"),
    ],
)
def test_one_wrong_setting_gives_one_line_that_names_it(tmp_path: Path, name: str, value: str, says: str) -> None:
    found = problems({**complete(tmp_path), name: value})
    assert len(found) == 1
    assert found[0].startswith(says)
    assert "hunter2" not in found[0]


def test_dagster_keeps_runs_for_longer_than_its_schedules_look_back(tmp_path: Path) -> None:
    assert config.load_retention(complete(tmp_path) | {"KALSHI_RETENTION_DAGSTER_DAYS": "0"}).dagster_days == 0
    with pytest.raises(ConfigurationError, match="KALSHI_RETENTION_DAGSTER_DAYS is 7: set it to 0"):
        config.load_retention(complete(tmp_path) | {"KALSHI_RETENTION_DAGSTER_DAYS": "7"})


def in_folder(monkeypatch: pytest.MonkeyPatch, folder: Path, content: bytes) -> dict[str, str]:
    (folder / ".env").write_bytes(content)
    monkeypatch.chdir(folder)
    return config.environment()


def test_a_file_of_settings_that_is_not_utf8_is_named_with_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match=r"\.env, line 2 is not UTF-8 \(byte 0xfc\): save the file in UTF-8"):
        in_folder(monkeypatch, tmp_path, b"A=1\n# Schl\xfcssel\nKALSHI_API_KEY_ID=x\n")


def test_a_folder_in_the_place_of_the_settings_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"\.env cannot be read as a file of settings .*: give the folder"):
        config.environment()


def test_a_mark_of_the_byte_order_is_no_part_of_the_first_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_folder(monkeypatch, tmp_path, b"\xef\xbb\xbfFIRST_OF_ALL=1\r\n")["FIRST_OF_ALL"] == "1"


@pytest.mark.parametrize(
    "name", ["KALSHI_CA_FILE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "WEBSOCKET_CLIENT_CA_BUNDLE"]
)
@pytest.mark.parametrize(
    ("file", "says"), [("key.pem", "holds no certificate"), ("gone.pem", "cannot be read: No such")]
)
def test_certificate_authorities_that_are_none_are_one_problem(tmp_path: Path, name: str, file: str, says: str) -> None:
    environ = complete(tmp_path) | {"KALSHI_LAKE_ROOT": "s3://lake", name: str(tmp_path / file)}
    (found,) = problems(environ)
    assert found.startswith(f"{name} names {tmp_path / file}, which {says}")
    with pytest.raises(ConfigurationError, match=name):
        config.check_before_start(environ, exchange_is_ours=True)


def test_every_client_trusts_the_same_and_s3_may_have_a_file_of_its_own(tmp_path: Path) -> None:
    own = tmp_path / "own.pem"
    own.write_bytes(Path(certifi.where()).read_bytes())
    environ = complete(tmp_path) | {"KALSHI_LAKE_ROOT": "s3://lake", "REQUESTS_CA_BUNDLE": certifi.where()}
    trusted = Path(certifi.where())
    settings = config.load_platform(environ)
    assert (settings.exchange.ca_file, settings.lake.ca_file) == (trusted, trusted)
    settings = config.load_platform(environ | {"KALSHI_CA_FILE": str(own)})
    assert (settings.exchange.ca_file, settings.lake.ca_file) == (own, own)
    settings = config.load_platform(environ | {"AWS_CA_BUNDLE": str(own)})
    assert (settings.exchange.ca_file, settings.lake.ca_file) == (trusted, own)


def test_a_gatherer_has_the_shard_of_its_own_variable_before_that_of_all(tmp_path: Path) -> None:
    environ = {**complete(tmp_path), "KALSHI_MARKET_SHARD": "1/2"}
    assert config.load_gatherer("g1", environ).market_filter.shard == MarketPart(1, 2)
    assert config.load_gatherer("g1", {**environ, "KALSHI_G1_MARKET_SHARD": "3/4"}).market_filter.shard == (3, 4)
    assert config.load_gatherer("g1", complete(tmp_path)).market_filter.shard == WHOLE
    for text in ("0/2", "3/2", "2", "a/b", "1/65"):
        (problem,) = problems({**complete(tmp_path), "KALSHI_MARKET_SHARD": text})
        assert (
            problem
            == f"KALSHI_MARKET_SHARD is {text!r}: set it to i/n, such as 1/4, with i from 1 to n and n at most 64"
        )


def test_public_reads_need_no_key() -> None:
    settings = config.load_public_reads({"KALSHI_REST_URL": "http://127.0.0.1:1/trade-api/v2/"})
    assert (settings.rest_url, settings.has_key, settings.sign_public_reads) == (
        "http://127.0.0.1:1/trade-api/v2", False, False
    )  # fmt: skip
    with pytest.raises(ConfigurationError, match="KALSHI_REST_URL"):
        config.load_public_reads({"KALSHI_REST_URL": "ftp://example"})


def test_a_garbled_key_is_named_by_its_variable(tmp_path: Path) -> None:
    environ = complete(tmp_path)
    Path(environ["KALSHI_PRIVATE_KEY_PATH"]).write_text(
        "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----", encoding="utf-8"
    )
    found = problems(environ)
    assert len(found) == 1
    assert found[0].startswith("KALSHI_PRIVATE_KEY_PATH")
    assert "hunter2" not in found[0]


def test_a_local_stack_is_checked_as_a_whole_before_it_starts() -> None:
    given = {
        "KALSHI_MERGE_INTERVAL_S": "abc",
        "KALSHI_ROLE": "boss",
        "KALSHI_HOURS_AHEAD": "-1",
        "KALSHI_HOURS_BEHIND": "0",
        "KALSHI_LAKE_ROOT": "nowhere",
        "KALSHI_COMBOS": "maybe",
        "KALSHI_BOOK_CONNECTIONS": "0",
        "KALSHI_PARTITIONS_START": "soon",
        "KALSHI_REST_SHARE": "abc",
        "KALSHI_G2_TIMESERIES_DATABASE_URL": "foo",
        "DAGSTER_DATABASE_URL": "foo",
    }
    with pytest.raises(ConfigurationError) as raised:
        config.check_before_start(given, exchange_is_ours=True)
    for name in given:
        assert sum(problem.startswith(name) for problem in raised.value.problems) == 1, name
    assert len(raised.value.problems) == len(given)


def test_a_simulated_stack_needs_no_setting_and_a_real_one_a_key() -> None:
    config.check_before_start({}, exchange_is_ours=True)
    with pytest.raises(ConfigurationError, match="KALSHI_API_KEY_ID"):
        config.check_before_start({}, exchange_is_ours=False)


def test_settings_of_a_stack_load_as_they_were_written(tmp_path: Path) -> None:
    stack = config.StackAddresses(
        gatherers={"a": (URL, URL)},
        production_url=URL,
        dagster_url=URL,
        lake_root="file:///lake",
        state_dir=tmp_path,
        dagster_home=tmp_path,
        rest_url="http://127.0.0.1:1/trade-api/v2",
        ws_url="ws://127.0.0.1:1/trade-api/ws/v2",
        key_id="id",
        key_file=Path(complete(tmp_path)["KALSHI_PRIVATE_KEY_PATH"]),
    )
    values = config.settings_of(stack)
    assert values["DAGSTER_DATABASE_URL"].startswith("postgresql+psycopg2://")
    settings = config.load_platform(values)
    assert settings.gatherers["a"].state_dir == tmp_path
    assert settings.exchange.ws_url == stack.ws_url


def test_a_gatherer_that_is_not_named_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'g9' is not in KALSHI_GATHERERS"):
        config.load_gatherer("g9", complete(tmp_path))


@pytest.mark.parametrize(
    ("text", "platform", "g1", "g2"),
    [("all", True, True, True), ("platform", True, False, False), ("gatherer:g1", False, True, False)],
)
def test_a_role_serves_its_parts_and_no_others(text: str, platform: bool, g1: bool, g2: bool) -> None:
    role = config.role({"KALSHI_ROLE": text})
    assert (role.serves_platform(), role.serves_gatherer("g1"), role.serves_gatherer("g2")) == (platform, g1, g2)


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="KALSHI_ROLE"):
        config.role({"KALSHI_ROLE": "gatherer:g7"})


def test_gatherer_names_that_cannot_be_used_are_left_out() -> None:
    assert config.gatherer_names({}) == ("g1", "g2", "g3")
    assert config.gatherer_names({"KALSHI_GATHERERS": "a, b,??"}) == ("a", "b")
    assert config.gatherer_names({"KALSHI_GATHERERS": "G1"}) == ()


def test_metrics_are_off_unless_a_port_is_given_and_each_service_has_its_own(tmp_path: Path) -> None:
    environ = {**complete(tmp_path), "KALSHI_GATHERERS": "g1,east"}
    environ |= {f"KALSHI_EAST_{kind}_DATABASE_URL": URL for kind in ("TIMESERIES", "CATALOG")}
    off = config.load_platform(environ)
    assert {off.deduplicator.endpoint.port, *(each.endpoint.port for each in off.gatherers.values())} == {0}
    on = config.load_platform({**environ, "KALSHI_METRICS_PORT": "9400", "KALSHI_METRICS_HOST": "0.0.0.0"})
    assert on.deduplicator.endpoint == EndpointSettings(host="0.0.0.0", port=9400)
    assert [each.endpoint.port for each in on.gatherers.values()] == [9401, 9402]


def test_a_gatherer_knows_what_its_databases_are_called_in_the_settings(tmp_path: Path) -> None:
    gatherer = config.load_gatherer("g1", complete(tmp_path))
    assert gatherer.timeseries_setting == "KALSHI_G1_TIMESERIES_DATABASE_URL"
    assert gatherer.catalog_setting == "KALSHI_G1_CATALOG_DATABASE_URL"


def test_connections_overlap_for_more_than_two_margins_of_the_merge(tmp_path: Path) -> None:
    usual = config.load_gatherer("g1", complete(tmp_path))
    assert (usual.handover_overlap_s, usual.handover_patience_s) == (4.0, 120.0)
    wide = config.load_platform({**complete(tmp_path), "KALSHI_TIME_MARGIN_S": "60"})
    assert wide.deduplicator.max_out_of_orderness_us == 60_000_000
    assert wide.gatherers["g1"].handover_overlap_s == 122.0
    assert wide.gatherers["g1"].handover_patience_s == 244.0


def test_format_and_level_of_logs_load_and_wrong_ones_are_named(tmp_path: Path) -> None:
    assert config.load_logs({}) == LogSettings()
    given = {"KALSHI_LOG_FORMAT": "JSON", "KALSHI_LOG_LEVEL": "warning"}
    assert config.load_logs(given) == LogSettings(format="json", level="warning")
    wrong = {
        **complete(tmp_path),
        "KALSHI_LOG_FORMAT": "xml",
        "KALSHI_METRICS_PORT": "70000",
        "KALSHI_LOG_LEVEL": "loud",
    }
    found = problems(wrong)
    assert found[0] == "KALSHI_LOG_FORMAT is 'xml': set it to console or json"
    assert found[1] == "KALSHI_LOG_LEVEL is 'loud': set it to debug or info or warning or error"
    assert found[2].startswith("KALSHI_METRICS_PORT is 70000: set it to a whole number from 0 to")


def test_bounds_and_scale_apply_to_the_number_in_the_variable(tmp_path: Path) -> None:
    given = {"KALSHI_JOURNAL_MAX_GIB": "0.5", "KALSHI_ROTATE_HOURS": "0", "KALSHI_BOOK_CONNECTIONS": "1e1"}
    gatherer = config.load_gatherer("g1", complete(tmp_path) | given)
    assert (gatherer.journal_max_bytes, gatherer.rotate_connections_s, gatherer.connections) == (2**29, 0.0, 10)
    bounds = config.load_bounds({"KALSHI_HOURS_AHEAD": "1.5"})
    assert bounds.ahead == timedelta(minutes=90)
    for wrong in ("nan", "inf", "-inf"):
        with pytest.raises(
            ConfigurationError, match=r"KALSHI_HOURS_AHEAD is '?(nan|-?inf)'?: set it to a number from 1"
        ):
            config.load_bounds({"KALSHI_HOURS_AHEAD": wrong})


def test_one_loader_reports_only_the_variables_that_it_reads(tmp_path: Path) -> None:
    wrong = {**complete(tmp_path), "KALSHI_LOG_LEVEL": "loud", "KALSHI_MERGE_INTERVAL_S": "x", "KALSHI_COMBOS": "x"}
    assert config.load_bounds(wrong) == config.load_bounds({})
    with pytest.raises(ConfigurationError) as raised:
        config.load_gatherer("g1", wrong)
    assert raised.value.problems == ("KALSHI_COMBOS is 'x': set it to yes or no",)


def test_importing_the_settings_reads_no_environment(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    wrong = {"KALSHI_GATHERERS": "??", "KALSHI_PARTITIONS_START": "soon", "KALSHI_ROLE": "boss"}
    run = [sys.executable, "-c", "import kalshi_platform.config, kalshi_platform.reference_docs"]
    environ = {**config.process_environment(), **wrong, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(run, cwd=tmp_path, env=environ, check=False).returncode == 0


@pytest.mark.parametrize(
    "address", ["hooks.example/services/marked", "ftp://hooks.example/marked", "https://h/marked?x=1"]
)
def test_a_wrong_webhook_is_refused_without_being_shown(address: str) -> None:
    with pytest.raises(ConfigurationError, match="KALSHI_ALERT_WEBHOOK_URL") as raised:
        config.load_alerts({"KALSHI_ALERT_WEBHOOK_URL": address})
    assert "marked" not in str(raised.value)


def test_the_webhook_of_every_service_is_one_and_in_no_text_of_settings(tmp_path: Path) -> None:
    loaded = config.load_platform({**complete(tmp_path), "KALSHI_ALERT_WEBHOOK_URL": "https://hooks.example/marked"})
    found = {loaded.gatherers["g1"].alerts.webhook_url, loaded.deduplicator.alerts.webhook_url}
    assert found == {"https://hooks.example/marked"}
    assert "marked" not in repr(loaded)
