"""What an agent was told, and by whom."""

from __future__ import annotations

import pathlib

from agent import config, logs, settings
from tests import test_config


def told(tmp_path: pathlib.Path, *more: str, level: str = "info") -> dict[str, tuple[str, str]]:
    arguments = test_config.arguments(tmp_path, *more)
    parsed = config.parse(arguments)
    found = settings.Settings(config=parsed, arguments=tuple(arguments), threshold=logs.Threshold(level))
    return {one.name: (one.value, one.origin.value) for one in found.told()}


def test_every_flag_of_the_agent_is_a_setting(tmp_path: pathlib.Path) -> None:
    parser = config._parser(config.Command.RUN)
    flags = {word.removeprefix("--") for action in parser._actions for word in action.option_strings}
    assert set(told(tmp_path)) == flags - {"help", "-h"}


def test_a_flag_that_was_given_is_told_from_one_that_was_not(tmp_path: pathlib.Path) -> None:
    found = told(tmp_path, "--engine", "auto", "--deny-mode=drop", "--metrics-address", "[::1]:9880")
    assert found["engine"] == ("auto", "command line")
    assert found["deny-mode"] == ("drop", "command line")
    assert found["metrics-address"] == ("[::1]:9880", "command line")
    assert found["health-address"] == ("127.0.0.1:9879", "default")
    assert found["hubble-address"] == ("none", "default")
    assert found["source"][1] == "command line"


def test_a_level_that_was_changed_says_by_whom(tmp_path: pathlib.Path) -> None:
    assert told(tmp_path)["log-level"] == ("info", "default")
    assert told(tmp_path, level="debug")["log-level"] == ("debug", "agentctl")


def test_a_password_in_a_url_is_not_told(tmp_path: pathlib.Path) -> None:
    arguments = ["--node", "n", "--state-dir", str(tmp_path), "--source", "kubernetes"]
    arguments += ["--api-server", "https://me:secret@api:6443"]
    parsed = config.parse(arguments)
    found = settings.Settings(config=parsed, arguments=tuple(arguments), threshold=logs.Threshold("info"))
    values = {one.name: one.value for one in found.told()}
    assert values["api-server"] == "https://api:6443"
    assert values["source"] == "kubernetes"


def test_a_collector_is_shown_with_who_named_it_and_without_its_headers(tmp_path: pathlib.Path) -> None:
    assert told(tmp_path)["otlp-endpoint"] == ("none", "default")
    given = told(tmp_path, "--otlp-endpoint", "http://c:4317", "--otlp-flows=all")
    assert given["otlp-endpoint"] == ("http://c:4317", "command line")
    assert given["otlp-flows"] == ("all", "command line")
    assert given["otlp-certificates"] == ("/etc/nodewall/otlp", "default")
    arguments = test_config.arguments(tmp_path, "--otlp-endpoint=")
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c:4317", "OTEL_EXPORTER_OTLP_HEADERS": "token=secret"}
    parsed = config.parse(arguments, variables)
    found = settings.Settings(config=parsed, arguments=tuple(arguments), threshold=logs.Threshold("info"))
    shown = {one.name: one for one in found.told()}
    assert (shown["otlp-endpoint"].value, shown["otlp-endpoint"].origin.value) == ("https://c:4317", "environment")
    assert "secret" not in str(shown)
    assert "secret" not in str(parsed)
