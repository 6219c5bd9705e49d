"""A release over its life: upgrades keep what must not change, and its notes say what to look at and how to end it."""

from __future__ import annotations

import pathlib
import shutil
from typing import Any

import pytest

from tests.chart import charts

ALL: dict[str, Any] = {
    "iptables": {"enabled": True},
    "hubble": {"enabled": True},
    "otlp": {"endpoint": "collector:4317"},
    "mountBpffs": True,
}


def selectors(objects: charts.Objects) -> dict[str, Any]:
    """Return what the API server refuses to change."""
    found = {key: one["spec"]["selector"] for key, one in objects.items() if one["kind"] == "DaemonSet"}
    assert found.keys() == {charts.AGENT, charts.UNINSTALL}
    return found


def test_an_upgrade_renders_what_an_installation_does(helm: charts.Helm) -> None:
    assert helm.template("--is-upgrade", **ALL) == helm.template(**ALL)


def test_no_value_and_no_name_changes_a_selector_or_what_roles_are_bound_to(helm: charts.Helm) -> None:
    first, second = helm.template(), helm.template("--is-upgrade", release="other", **ALL)
    assert selectors(first) == selectors(second)
    binding = "ClusterRoleBinding/nodewall-agent"
    assert first[binding]["roleRef"] == second[binding]["roleRef"]


def test_pods_have_the_labels_they_are_selected_by_and_none_of_the_release(helm: charts.Helm) -> None:
    """A label of the chart's version on pods would replace every agent for a chart that changed a comment."""
    rendered = helm.template(**ALL)
    for key, selector in selectors(rendered).items():
        assert rendered[key]["spec"]["template"]["metadata"]["labels"] == selector["matchLabels"]


def test_releases_have_the_same_names_so_that_there_is_one(helm: charts.Helm) -> None:
    """A node takes one agent. Helm lets no release have what another has; test_server shows what it says."""
    assert helm.template(release="one").keys() == helm.template(release="two").keys()


@pytest.fixture(scope="module")
def noted(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Return the chart with its notes as one more document, as helm shows them only to who installs."""
    copied = tmp_path_factory.mktemp("noted") / "helm"
    shutil.copytree(charts.CHART, copied)
    document = '{kind: Notes, metadata: {name: x}, text: {{ include "nodewall/templates/NOTES.txt" . | toJson }}}\n'
    (copied / "templates" / "notes.yaml").write_text(document)
    return copied


def notes(helm: charts.Helm, chart: pathlib.Path, *words: str, **values: Any) -> str:
    return str(helm.template(*words, chart=chart, **values)["Notes/x"]["text"])


def test_notes_say_what_to_look_at(helm: charts.Helm, noted: pathlib.Path) -> None:
    text = notes(helm, noted)
    assert "kubectl -n kube-system rollout status daemonset/nodewall-agent" in text
    assert "kubectl -n kube-system exec ds/nodewall-agent -- agentctl status" in text
    assert "Secret" not in text


def test_notes_say_how_to_uninstall_and_what_stays(helm: charts.Helm, noted: pathlib.Path) -> None:
    text = notes(helm, noted, uninstall={"seconds": 77})
    assert "helm uninstall nodewall -n kube-system" in text
    assert "77 s" in text
    assert "--no-hooks" in text
    text = notes(helm, noted, uninstall={"enabled": False})
    assert "leaves policies in force" in text
    assert "kubectl apply -f daemonset/uninstall.yaml" in text
    assert "--no-hooks" not in text


def test_notes_say_which_secrets_are_wanted(helm: charts.Helm, noted: pathlib.Path) -> None:
    text = notes(helm, noted, hubble={"enabled": True, "secretName": "mine"})
    assert "Secret mine" in text
    assert all(name in text for name in ("tls.crt", "tls.key", "ca.crt"))


def test_notes_speak_of_pod_security_where_it_may_refuse_the_pods(helm: charts.Helm, noted: pathlib.Path) -> None:
    assert "pod-security" not in notes(helm, noted)
    text = notes(helm, noted, "--namespace", "elsewhere")
    assert "kubectl label namespace elsewhere pod-security.kubernetes.io/enforce=privileged" in text


def test_notes_have_no_holes(helm: charts.Helm, noted: pathlib.Path) -> None:
    for values in ({}, ALL, {"uninstall": {"enabled": False}}):
        text = notes(helm, noted, **values)
        assert "<no value>" not in text
        assert "\n\n\n" not in text
        assert all(len(line) <= 120 and line == line.rstrip() for line in text.splitlines())
