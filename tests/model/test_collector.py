"""Where flow logs go: flags and OpenTelemetry's variables, and what is refused in words that keep secrets."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import pytest

from agent import errors
from agent.model import collector

GENERAL = "OTEL_EXPORTER_OTLP_"
LOGS = "OTEL_EXPORTER_OTLP_LOGS_"


def read(endpoint: str = "", environment: Mapping[str, str] | None = None) -> collector.Collector | None:
    return collector.collector(
        endpoint, flows=collector.Flows.DENIED, certificates=pathlib.Path("/c"), environment=environment or {}
    )


def there(endpoint: str = "", environment: Mapping[str, str] | None = None) -> collector.Collector:
    found = read(endpoint, environment)
    assert found is not None
    return found


def test_nothing_is_sent_unless_told_and_no_variable_is_read_then() -> None:
    assert read() is None
    assert read("none", {f"{GENERAL}ENDPOINT": "http://c:4317"}) is None
    assert read("", {f"{GENERAL}ENDPOINT": "none", f"{GENERAL}TIMEOUT": "soon"}) is None
    assert read("", {f"{GENERAL}ENDPOINT": "  "}) is None


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("collector:4317", "https://collector:4317"),
        ("collector.observability.svc.:4317", "https://collector.observability.svc.:4317"),
        ("http://collector", "http://collector:4317"),
        ("https://collector/", "https://collector:4317"),
        ("http://10.0.0.7:55680", "http://10.0.0.7:55680"),
        ("https://[fd00::7]:4317", "https://[fd00::7]:4317"),
        ("[fd00::7]:4317", "https://[fd00::7]:4317"),
    ],
)
def test_it_is_encrypted_unless_the_scheme_says_otherwise(text: str, url: str) -> None:
    assert there(text).url == url


def test_insecure_is_for_endpoints_without_a_scheme_alone() -> None:
    said = {f"{GENERAL}INSECURE": "true"}
    assert there("c:4317", said).url == "http://c:4317"
    assert there("https://c:4317", said).url == "https://c:4317"
    with pytest.raises(errors.InvalidInput, match=f"{GENERAL}INSECURE: 'yes' .* true or false"):
        read("c:4317", {f"{GENERAL}INSECURE": "yes"})


def test_the_flag_goes_before_the_variable_for_logs_and_that_before_the_general_one() -> None:
    said = {f"{GENERAL}ENDPOINT": "http://general", f"{LOGS}ENDPOINT": "http://logs"}
    assert (there("http://flag", said).host, there("http://flag", said).said_by) == ("flag", "--otlp-endpoint")
    assert (there("", said).host, there("", said).said_by) == ("logs", f"{LOGS}ENDPOINT")
    del said[f"{LOGS}ENDPOINT"]
    assert (there("", said).host, there("", said).said_by) == ("general", f"{GENERAL}ENDPOINT")


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("collector", "HOST:PORT"),
        ("c:0", "HOST:PORT"),
        ("c:65536", "HOST:PORT"),
        ("c:http", "HOST:PORT"),
        ("unix:///run/otel.sock", "HOST:PORT"),
        ("grpc://c:4317", "HOST:PORT"),
        ("http://a b:4317", "HOST:PORT"),
        ("http://-c:4317", "HOST:PORT"),
        ("10.0.0.256:4317", "HOST:PORT"),
        ("[fe80::1%eth0]:4317", "HOST:PORT"),
        ("http://[::1:4317", "HOST:PORT"),
        ("http://c:4318/v1/logs", "this is gRPC"),
        ("http://c:4317?x=1", "this is gRPC"),
    ],
)
def test_another_endpoint_is_refused_with_a_remedy(text: str, remedy: str) -> None:
    with pytest.raises(errors.InvalidInput, match=remedy) as caught:
        read(text)
    assert caught.value.field == "--otlp-endpoint"


def test_a_password_in_the_endpoint_is_refused_and_not_repeated() -> None:
    with pytest.raises(errors.InvalidInput, match="HEADERS") as caught:
        read("https://me:secret@c:4317")
    assert "secret" not in str(caught.value)


def test_headers_are_read_as_open_telemetry_writes_them() -> None:
    said = {f"{GENERAL}HEADERS": "X-Tenant=a%20b, authorization = Bearer%20abc==,"}
    assert there("http://c", said).headers == {"x-tenant": "a b", "authorization": "Bearer abc=="}
    assert "abc" not in repr(there("http://c", said))


@pytest.mark.parametrize(
    "text", ["token", "a b=secret", "grpc-timeout=secret", "x-bin=secret", "x=secret%0a", "=secret"]
)
def test_a_wrong_header_is_refused_and_its_value_not_repeated(text: str) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        read("http://c", {f"{LOGS}HEADERS": text})
    assert caught.value.field == f"{LOGS}HEADERS"
    assert "secret" not in str(caught.value)
    assert "token" not in str(caught.value)


def test_files_compression_timeout_and_resource_are_read() -> None:
    found = there(
        "https://c",
        {
            f"{GENERAL}CERTIFICATE": "/a.crt",
            f"{GENERAL}CLIENT_CERTIFICATE": "/b.crt",
            f"{LOGS}CLIENT_KEY": "/b.key",
            f"{LOGS}COMPRESSION": "gzip",
            f"{GENERAL}TIMEOUT": "2500",
            "OTEL_RESOURCE_ATTRIBUTES": "k8s.cluster.name=east,service.name=other",
            "OTEL_SERVICE_NAME": "wall",
        },
    )
    assert [str(one) for one in (found.authority, found.certificate, found.key)] == ["/a.crt", "/b.crt", "/b.key"]
    assert (found.compression, found.timeout_ms) == (collector.Compression.GZIP, 2500)
    assert found.resource == {"service.name": "wall", "k8s.cluster.name": "east"}
    assert there("http://c").resource == {"service.name": "nodewall-agent"}
    assert there("http://c").timeout_ms == 10_000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PROTOCOL", "http/protobuf"),
        ("COMPRESSION", "zstd"),
        ("TIMEOUT", "0"),
        ("TIMEOUT", "10s"),
        ("TIMEOUT", "9" * 400),
        ("CLIENT_KEY", "/alone.key"),
    ],
)
def test_another_value_of_a_variable_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        read("http://c", {f"{GENERAL}{name}": value})
    assert (caught.value.field, caught.value.value) == (f"{GENERAL}{name}", value)


def test_a_wrong_resource_attribute_is_refused() -> None:
    with pytest.raises(errors.InvalidInput, match="OTEL_RESOURCE_ATTRIBUTES: 'east'"):
        read("http://c", {"OTEL_RESOURCE_ATTRIBUTES": "east"})
