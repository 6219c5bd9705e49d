"""The loader of truth tables reads them as `tests/cases/README.md` says, and refuses tables that check nothing."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
import yaml

from agent.model import net
from tests.support import cases

POLICY = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p", "namespace": "x"}}
PODS = {"x/a", "x/b", "x/c", "y/a", "y/b"}


@pytest.fixture(name="table")
def path_of_a_table(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "table.yaml"


def read(path: pathlib.Path, *steps: dict[str, Any], **more: object) -> cases.Case:
    path.write_text(yaml.safe_dump({"name": "n", "fixture": "two-nodes", "steps": list(steps), **more}))
    return cases.load(path)


def expected(path: pathlib.Path, check: dict[str, Any]) -> dict[cases.Pair, bool]:
    (step,) = read(path, {"expect": [check]}).steps
    return dict(step.checks[0].expected)


def labels_of(step: cases.Step, kind: str, name: str) -> dict[str, str]:
    (found,) = (d for d in step.documents() if d["kind"] == kind and d["metadata"]["name"] == name)
    return dict(found["metadata"]["labels"])


def test_without_open_every_other_pair_of_pods_must_connect(table: pathlib.Path) -> None:
    found = expected(table, {"port": "80/TCP", "blocked": [{"from": "x/*", "to": "y/a", "exceptFrom": ["x/c"]}]})
    assert {pair for pair, open_ in found.items() if not open_} == {("x/a", "y/a"), ("x/b", "y/a")}
    assert set(found) == {(source, target) for source in PODS for target in PODS if source != target}


def test_with_open_only_what_is_named_is_checked(table: pathlib.Path) -> None:
    found = expected(
        table, {"port": "80/TCP", "open": [{"from": "host/*", "to": "x/a"}], "blocked": [{"from": "*", "to": "x/b"}]}
    )
    assert {pair for pair, open_ in found.items() if open_} == {("host/near", "x/a"), ("host/far", "x/a")}
    assert {target for (_, target), open_ in found.items() if not open_} == {"x/b"}


def test_only_destinations_that_declare_the_port_are_judged(table: pathlib.Path) -> None:
    pod = {
        "kind": "Pod",
        "metadata": {"name": "odd", "namespace": "x"},
        "spec": {"containers": [{"ports": [{"containerPort": 7}]}]},
        "status": {"podIP": "10.244.1.99"},
    }
    (step,) = read(table, {"objects": [pod], "expect": [{"port": "7/TCP", "blocked": []}]}).steps
    assert set(step.checks[0].expected) == {(source, "x/odd") for source in PODS}


def test_labels_are_set_and_removed_and_kept_for_later_steps(table: pathlib.Path) -> None:
    first, second = read(
        table,
        {"label": [{"pod": "x/a", "set": {"app": None, "new": "1"}}, {"namespace": "y", "set": {"team": "green"}}]},
        {},
    ).steps
    for step in (first, second):
        assert labels_of(step, "Namespace", "y") == {"team": "green"}
        (pod,) = (
            d for d in step.documents() if d["metadata"] | {"labels": 0} == {"name": "a", "namespace": "x", "labels": 0}
        )
        assert pod["metadata"]["labels"] == {"tier": "front", "new": "1"}


def test_policies_are_the_whole_set_of_each_step(table: pathlib.Path) -> None:
    first, second = read(table, {"policies": [POLICY]}, {}).steps
    kinds = [[document["kind"] for document in step.documents()].count("NetworkPolicy") for step in (first, second)]
    assert kinds == [1, 0]


def test_a_deleted_namespace_takes_its_pods_along_and_finished_pods_are_no_ends(table: pathlib.Path) -> None:
    check = {"port": "80/TCP", "blocked": []}
    changes = {"delete": [{"namespace": "y"}], "pods": [{"pod": "x/c", "phase": "Succeeded"}], "expect": [check]}
    (step,) = read(table, changes).steps
    assert set(step.checks[0].expected) == {("x/a", "x/b"), ("x/b", "x/a")}


def test_documents_are_the_callers_to_change(table: pathlib.Path) -> None:
    (step,) = read(table, {"policies": [POLICY]}).steps
    step.documents()[0]["metadata"]["name"] = "changed"
    assert step.documents()[0]["metadata"]["name"] != "changed"


def test_services_problems_needs_and_rules_are_read(table: pathlib.Path) -> None:
    step = {
        "services": [{"service": "x/web", "port": "80/TCP", "all": ["x/a"], "none": ["y/*"]}],
        "problems": [{"policy": "x/p", "path": "spec"}],
    }
    case = read(table, step, needs=["fqdn"], rules=["A42"])
    (check,) = case.steps[0].services
    assert check.reached == {"x/a": "all", "y/a": "none", "y/b": "none"}
    assert (check.namespace, check.service, check.port, check.protocol) == ("x", "web", 80, net.Protocol.TCP)
    assert case.steps[0].problems == {("x/p", "spec")}
    assert case.needs == {"fqdn"}
    assert case.rules == ("A42",)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"expects": []}, "unknown keys expects"),
        ({"expect": [{"port": "80/TCP", "bloked": []}]}, "unknown keys bloked"),
        ({"expect": [{"port": "80/TCP", "blocked": [{"from": "*", "to": "*", "exept": []}]}]}, "unknown keys exept"),
        ({"expect": [{"port": "9/TCP", "blocked": []}]}, "nothing is checked on 9/TCP"),
        (
            {
                "expect": [
                    {"port": "80/TCP", "open": [{"from": "*", "to": "*"}], "blocked": [{"from": "*", "to": "x/a"}]}
                ]
            },
            "both open and blocked on 80/TCP",
        ),
        ({"label": [{"pod": "x/nobody", "set": {}}]}, "there is no pod x/nobody"),
        ({"services": [{"service": "x/web", "port": "80/TCP", "all": ["z/*"]}]}, "nothing is checked of service x/web"),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_its_name(
    table: pathlib.Path, step: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        read(table, step)
    assert str(table) in str(refused.value)


def test_the_suite_of_kubernetes_and_the_seeds_are_all_there() -> None:
    groups = [path.parent.name for path in cases.paths()]
    assert groups.count("networkpolicy") == 48
    assert groups.count("seeds") == 7


def test_what_is_in_audit_is_annotated_for_that_step_and_who_is_told_of_must_connect(table: pathlib.Path) -> None:
    told = {"port": "80/TCP", "audited": [{"from": "x/b", "to": "x/a"}]}
    first, second = read(
        table,
        {"policies": [POLICY], "audit": ["x/p", "y"], "expect": [told]},
        {"policies": [POLICY], "expect": [{"port": "80/TCP", "blocked": []}]},
    ).steps
    asking = {one["metadata"]["name"] for one in first.documents() if one["metadata"].get("annotations")}
    assert asking == {"p", "y"}
    assert first.checks[0].audited == {("x/b", "x/a")}
    assert not [one for one in second.documents() if one["metadata"].get("annotations")]
    for wrong in (
        {"expect": [told | {"blocked": [{"from": "x/*", "to": "x/a"}]}]},
        {"expect": [{"port": "80/TCP", "audited": [{"from": "x/nobody", "to": "*"}]}]},
        {"audit": ["x/none"]},
    ):
        with pytest.raises(ValueError, match="audit"):
            read(table, wrong)
