"""Metrics and health over HTTP."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kalshi_platform.local.processes.ports import free_port
from kalshi_platform.monitoring.endpoint import Endpoint, Health
from kalshi_platform.monitoring.metrics import (
    LatencyBuckets,
    LatencyHistogram,
    MetricFamily,
    by_label,
    counter,
    gauge,
    gauges,
    histogram,
)
from kalshi_platform.monitoring.settings import EndpointSettings
from kalshi_platform_tests.fixtures.exchange import eventually

METRICS = (
    counter("x_rows", "Rows.", 7),
    gauges("x_age_seconds", "Ages.", ["connection"], by_label({"feed": 1.5, "books-0": None})),
    gauge("x_unknown", "Not known.", None),
    histogram("x_lag_seconds", "Lags.", LatencyBuckets(up_to_s=[(0.1, 2), (1, 5)], count=6, total_s=4.25)),
)


WELL = Health(service="g1", state="running", health="ok")


@contextmanager
def serving(health: Health = WELL) -> Iterator[Endpoint]:
    endpoint = Endpoint(EndpointSettings(port=free_port()), "g1", lambda: METRICS, lambda: health)
    assert endpoint.ensure()
    try:
        yield endpoint
    finally:
        endpoint.close()


def get(endpoint: Endpoint, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_metrics_are_what_prometheus_reads() -> None:
    with serving() as endpoint:
        status, text = get(endpoint, "/metrics")
        assert status == 200
        families = {family.name: family for family in text_string_to_metric_families(text)}
        assert [(s.name, s.value) for s in families["x_rows"].samples] == [("x_rows_total", 7.0)]
        assert [(s.labels, s.value) for s in families["x_age_seconds"].samples] == [({"connection": "feed"}, 1.5)]
        assert families["x_unknown"].samples == []
        lags = [(s.name, s.labels.get("le"), s.value) for s in families["x_lag_seconds"].samples]
        assert lags == [
            ("x_lag_seconds_bucket", "0.1", 2.0),
            ("x_lag_seconds_bucket", "1", 5.0),
            ("x_lag_seconds_bucket", "+Inf", 6.0),
            ("x_lag_seconds_count", None, 6.0),
            ("x_lag_seconds_sum", None, 4.25),
        ]
        assert "process_resident_memory_bytes" in families


@pytest.mark.parametrize(("reasons", "status"), [([], 200), (["stalled"], 503)])
def test_health_is_a_status_with_its_reasons(reasons: list[str], status: int) -> None:
    health = Health(service="gatherer/g1", state="stalled", health="whatever", reasons=reasons, troubles=["full"])
    with serving(health) as endpoint:
        code, text = get(endpoint, "/healthz")
        assert (code, json.loads(text)) == (status, {
            "service": "gatherer/g1", "state": "stalled", "health": "whatever", "reasons": reasons,
            "troubles": ["full"],
        })  # fmt: skip
        assert get(endpoint, "/")[0] == 404


def test_metrics_that_raise_are_a_warning_and_the_next_scrape_is_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    faults = [ZeroDivisionError()]

    def metrics() -> Iterable[MetricFamily]:
        if faults:
            raise faults.pop()
        return METRICS

    endpoint = Endpoint(EndpointSettings(port=free_port()), "g1", metrics, lambda: WELL)
    assert endpoint.ensure()
    try:
        with caplog.at_level(logging.WARNING):
            with pytest.raises((OSError, http.client.HTTPException)):
                get(endpoint, "/metrics")
            eventually(lambda: caplog.records, what="a warning")
        assert "ZeroDivisionError" in caplog.text
        assert get(endpoint, "/metrics")[0] == 200
    finally:
        endpoint.close()


def test_a_taken_port_is_logged_once_and_used_as_soon_as_it_is_free(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        endpoint = Endpoint(EndpointSettings(port=port), "g1", tuple, lambda: WELL)
        with caplog.at_level(logging.WARNING):
            assert not endpoint.ensure()
            assert not endpoint.ensure()
    (message,) = caplog.messages
    assert message.startswith("metrics_not_served owner=g1 ")
    assert f"port={port}" in message
    assert "KALSHI_METRICS_PORT" in message
    try:
        assert endpoint.ensure()
    finally:
        endpoint.close()


def ask_as(endpoint: Endpoint, host: str | None, path: str = "/healthz") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port or 0, timeout=10)
    try:
        connection.putrequest("GET", path, skip_host=True)
        if host is not None:
            connection.putheader("Host", host)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/"])
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9400", "127.0.0.1.evil.example", "localhost.evil.example", "", "["]
)
def test_a_request_by_a_foreign_host_name_is_refused(host: str, path: str) -> None:
    with serving() as endpoint:
        status, text = ask_as(endpoint, host, path)
    assert status == 421
    assert "KALSHI_METRICS_NAMES" in json.loads(text)["reason"]


@pytest.mark.parametrize(
    "host", [None, "localhost", "LOCALHOST:1", "127.0.0.1:9", "[::1]:9400", "10.1.2.3", "Merge-1:9400"]
)
def test_addresses_localhost_and_configured_names_are_answered(host: str | None) -> None:
    settings = EndpointSettings(port=free_port(), names=("merge-1",))
    endpoint = Endpoint(settings, "g1", lambda: METRICS, lambda: WELL)
    assert endpoint.ensure()
    try:
        assert ask_as(endpoint, host)[0] == 200
    finally:
        endpoint.close()


def test_port_0_serves_nothing() -> None:
    endpoint = Endpoint(EndpointSettings(port=0), "g1", tuple, lambda: WELL)
    assert not endpoint.ensure()
    assert endpoint.port is None
    endpoint.close()


def test_latencies_are_counted_by_bucket_and_the_latest_give_quantiles() -> None:
    latencies = LatencyHistogram(latest=2)
    assert latencies.quantiles_ms(0.5, 1.0) == [None, None]
    for latency_s in (0.1, 0.101, 10_000.0):
        latencies.observe(latency_s)
    assert latencies.quantiles_ms(0.0, 1.0) == [101.0, 10_000_000.0]
    buckets = latencies.buckets()
    assert (buckets.count, buckets.total_s) == (3, 10_000.201)
    assert buckets.up_to_s[:3] == [(0.05, 0), (0.1, 1), (0.15, 2)]
    assert buckets.up_to_s[-1] == (3_600.0, 2)
