"""Credentials: a pod's, or a kubeconfig's, and no more of the client than each needs."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

from agent import errors
from agent.sources.kubernetes import access

POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
PACKAGES = ("kubernetes", "pydantic", "requests", "urllib3")
LOADED = f"import sys; print(*(name for name in {PACKAGES!r} if name in sys.modules))"


@pytest.fixture
def account(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "token").write_text("abc")
    (tmp_path / "ca.crt").write_text("a certificate")
    return tmp_path


def test_a_pod_finds_server_token_and_certificate(account: pathlib.Path) -> None:
    found = access.Access(service_account=account, environment=POD).configuration()
    assert found.host == "https://10.96.0.1:443"
    assert found.ssl_ca_cert == str(account / "ca.crt")
    assert found.verify_ssl
    assert found.retries is False
    (header,) = found.auth_settings().values()
    assert (header["key"], header["value"]) == ("authorization", "bearer abc")


def test_an_ipv6_service_address_is_bracketed(account: pathlib.Path) -> None:
    environment = POD | {"KUBERNETES_SERVICE_HOST": "fd00::1"}
    assert (
        access.Access(service_account=account, environment=environment).configuration().host == "https://[fd00::1]:443"
    )


def test_the_server_can_be_set(account: pathlib.Path) -> None:
    made = access.Access(
        service_account=account, environment=POD, server="https://192.0.2.1:6443/", tls_server_name="kubernetes"
    )
    found = made.configuration()
    assert (found.host, found.tls_server_name) == ("https://192.0.2.1:6443", "kubernetes")


def test_a_token_that_was_replaced_is_read(account: pathlib.Path) -> None:
    made = access.Access(service_account=account, environment=POD)
    (account / "new").write_text("def")
    (account / "new").replace(account / "token")
    (header,) = made.configuration().auth_settings().values()
    assert header["value"] == "bearer def"


@pytest.mark.parametrize("missing", ["token", "ca.crt"])
def test_credentials_that_are_not_there_are_named(account: pathlib.Path, missing: str) -> None:
    (account / missing).unlink()
    with pytest.raises(errors.InvalidInput, match="API credentials"):
        access.Access(service_account=account, environment=POD)


def test_outside_a_pod_is_said(account: pathlib.Path) -> None:
    with pytest.raises(errors.InvalidInput, match="host/port is not set"):
        access.Access(service_account=account, environment={})


@pytest.mark.parametrize("server", ["192.0.2.1:6443", "http://192.0.2.1"])
def test_a_token_is_never_sent_in_the_clear(account: pathlib.Path, server: str) -> None:
    with pytest.raises(errors.InvalidInput, match="https"):
        access.Access(service_account=account, environment=POD, server=server)


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.InvalidInput, match="absent"):
        access.Access(kubeconfig=tmp_path / "absent")


def test_a_kubeconfig_gives_server_and_token(tmp_path: pathlib.Path) -> None:
    content = {
        "clusters": [{"name": "x", "cluster": {"server": "https://192.0.2.1:6443"}}],
        "users": [{"name": "x", "user": {"token": "abc"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "current-context": "x",
    }
    (tmp_path / "config").write_text(json.dumps(content))
    found = access.Access(kubeconfig=tmp_path / "config").configuration()
    assert found.host == "https://192.0.2.1:6443"
    (header,) = found.auth_settings().values()
    assert header["value"].lower() == "bearer abc"


def loaded(code: str) -> list[str]:
    """Return which packages a new process has imported after some code."""
    script = f"{code}\n{LOADED}"
    return subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()


def test_the_client_is_imported_only_when_it_is_used() -> None:
    assert loaded("import agent.daemon, agent.sources.kubernetes.source") == []


def test_a_pod_imports_no_models(account: pathlib.Path) -> None:
    code = f"""
import pathlib
from agent.sources.kubernetes import access
access.Access(service_account=pathlib.Path({str(account)!r}), environment={POD!r})
"""
    assert loaded(code) == ["urllib3"]


def test_who_imports_the_client_later_gets_all_of_it(account: pathlib.Path) -> None:
    code = f"""
import pathlib
from agent.sources.kubernetes import access
access.Access(service_account=pathlib.Path({str(account)!r}), environment={POD!r})
import kubernetes
assert kubernetes.client.CoreV1Api and kubernetes.config.load_kube_config and kubernetes.client.Configuration
"""
    assert "kubernetes" in loaded(code)
