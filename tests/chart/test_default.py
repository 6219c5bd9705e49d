"""By default the chart installs what daemonset/install.yaml does, and uninstalls what daemonset/uninstall.yaml does.

Needs helm (scripts/helm finds or builds it) and skips without.
"""

from __future__ import annotations

import pathlib
import re
from typing import Any

import pytest
import yaml

from tests.chart import charts

SERVICE = "Service/hubble-peer"
"""Cilium has one of this name: the chart has it only where it is asked for, the base always."""
SETTINGS = "ConfigMap/nodewall-agent"


def base() -> charts.Objects:
    """Return what is installed without helm, its ConfigMap named as the chart does.

    Kustomize puts a checksum of the settings at the end of that name, the chart into an annotation of the pods: under a
    name that changes, helm would delete what pods of the version before still start from.
    """
    text = (charts.SHIPPED / "install.yaml").read_text()
    [suffixed] = set(re.findall(r"name: (nodewall-agent-\w{10})$", text, re.MULTILINE))
    return charts.read(text.replace(suffixed, "nodewall-agent"))


@pytest.fixture(scope="module")
def rendered(helm: charts.Helm) -> charts.Objects:
    return helm.template()


def test_lint_finds_nothing_to_warn_of(helm: charts.Helm) -> None:
    done = helm.run("lint", "--strict", charts.CHART)
    assert done.returncode == 0, done.stdout
    assert re.findall(r"\[(?:WARNING|ERROR)\].*", done.stdout) == []


def test_by_default_helm_installs_what_kustomize_does(rendered: charts.Objects) -> None:
    installed = {key: charts.plain(one) for key, one in rendered.items() if not charts.is_hook(one)}
    assert installed == {key: one for key, one in base().items() if key != SERVICE}


def test_with_flows_for_other_machines_there_is_the_service_too(helm: charts.Helm) -> None:
    rendered = helm.template(hubble={"enabled": True})
    assert charts.plain(rendered[SERVICE]) == base()[SERVICE]


def test_every_object_says_which_release_it_is_of(rendered: charts.Objects) -> None:
    chart = yaml.safe_load((charts.CHART / "Chart.yaml").read_text())
    for key, one in rendered.items():
        labels = one["metadata"]["labels"]
        assert [labels[label] for label in charts.LABELS] == [
            charts.RELEASE,
            "Helm",
            chart["appVersion"],
            f"{chart['name']}-{chart['version']}",
        ], key


def test_labels_stay_text_whatever_a_release_is_called(helm: charts.Helm) -> None:
    rendered = helm.template(release="123")
    assert {one["metadata"]["labels"]["app.kubernetes.io/instance"] for one in rendered.values()} == {"123"}


def test_everything_goes_into_the_namespace_of_the_release(helm: charts.Helm) -> None:
    rendered = helm.template("--namespace", "elsewhere", hubble={"enabled": True})
    cluster = {"ClusterRole/nodewall-agent", "ClusterRoleBinding/nodewall-agent"}
    assert {key for key, one in rendered.items() if "namespace" not in one["metadata"]} == cluster
    assert {rendered[key]["metadata"]["namespace"] for key in rendered.keys() - cluster} == {"elsewhere"}
    [subject] = rendered["ClusterRoleBinding/nodewall-agent"]["subjects"]
    assert subject["namespace"] == "elsewhere"


def test_the_hook_uninstalls_as_without_helm(rendered: charts.Objects) -> None:
    shipped = charts.read((charts.SHIPPED / "uninstall.yaml").read_text())
    assert {charts.UNINSTALL: charts.plain(rendered[charts.UNINSTALL])} == shipped


def test_hooks_run_after_the_agents_are_deleted_the_job_last_and_leave_nothing(rendered: charts.Objects) -> None:
    hooks = {key: one["metadata"]["annotations"] for key, one in rendered.items() if charts.is_hook(one)}
    assert {key: (one["helm.sh/hook"], one["helm.sh/hook-weight"]) for key, one in hooks.items()} == {
        charts.UNINSTALL: ("post-delete", "0"),
        charts.WAIT: ("post-delete", "1"),
    }
    for one in hooks.values():
        assert one["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"


def test_who_applies_what_helm_renders_can_leave_the_hooks_out(helm: charts.Helm, rendered: charts.Objects) -> None:
    """Applied beside the agents they would take out of force what these enforce."""
    installed = {key: one for key, one in rendered.items() if not charts.is_hook(one)}
    assert helm.template("--no-hooks") == installed


def checksum(objects: charts.Objects) -> str:
    return str(charts.at(objects, charts.AGENT, ("spec", "template", "metadata", "annotations", charts.CHECKSUM)))


@pytest.mark.parametrize(
    ("values", "same"),
    [
        ({"denyMode": "drop"}, False),
        ({"audit": {"namespaces": ["shop"]}}, False),
        ({"otlp": {"endpoint": "collector:4317"}}, False),
        ({"maxUnavailable": 3}, True),
        ({"uninstall": {"enabled": False}}, True),
    ],
)
def test_pods_are_replaced_when_a_setting_changes(
    helm: charts.Helm, rendered: charts.Objects, values: dict[str, Any], *, same: bool
) -> None:
    changed = helm.template(**values)
    assert (changed[SETTINGS]["data"] == rendered[SETTINGS]["data"]) is same
    assert (checksum(changed) == checksum(rendered)) is same


def test_the_chart_brings_no_definitions_of_others(helm: charts.Helm, rendered: charts.Objects) -> None:
    """They belong to Cilium and the SIG; see daemonset/README.md."""
    assert helm.template("--include-crds") == rendered


def test_a_packaged_chart_renders_the_same(helm: charts.Helm, rendered: charts.Objects, tmp_path: pathlib.Path) -> None:
    done = helm.run("package", charts.CHART, "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    [archive] = tmp_path.iterdir()
    assert helm.template(chart=archive) == rendered


def test_the_chart_may_be_a_part_of_another(
    helm: charts.Helm, rendered: charts.Objects, tmp_path: pathlib.Path
) -> None:
    """Helm adds a value then, `global`, that no chart need know."""
    (tmp_path / "charts").mkdir()
    (tmp_path / "charts" / "nodewall").symlink_to(charts.CHART)
    (tmp_path / "Chart.yaml").write_text("{apiVersion: v2, name: whole, version: 1.0.0}")
    whole = helm.run("template", charts.RELEASE, tmp_path, "--namespace", charts.NAMESPACE, values={"global": {"x": 1}})
    assert whole.returncode == 0, whole.stderr
    assert charts.read(whole.stdout) == rendered
