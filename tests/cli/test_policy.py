"""`agentctl policy`: pictures and reasons from manifests alone."""

from __future__ import annotations

import json
import pathlib

import pytest
import yaml
from click import testing

from agent.cli import policy as policy_cli
from agent.cli import tables
from tests.support import cases

POLICY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "web", "namespace": "x"},
    "spec": {
        "podSelector": {"matchLabels": {"app": "a"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "b"}}}], "ports": [{"port": "web"}]}],
    },
}


def run(*arguments: str) -> testing.Result:
    return testing.CliRunner().invoke(policy_cli.policy, arguments)


@pytest.fixture(name="cluster")
def manifests_of_a_cluster(tmp_path: pathlib.Path) -> str:
    fixture = (cases.DIRECTORY / cases.FIXTURES / "two-nodes.yaml").read_text()
    (tmp_path / "cluster.yaml").write_text(fixture)
    (tmp_path / "policies.yaml").write_text(yaml.safe_dump(POLICY))
    return str(tmp_path)


@pytest.fixture(name="services")
def manifests_with_services() -> str:
    return str(cases.DIRECTORY / cases.FIXTURES / "services.yaml")


def test_the_matrix_is_a_picture_with_one_grid_a_port_and_a_summary(cluster: str) -> None:
    """Rule A15."""
    found = run("matrix", "-f", cluster, "--port", "80/TCP", "--port", "81")
    assert found.exit_code == 0, found.output
    assert found.stdout.startswith(
        """\
80/TCP     ┌ x/a
           │ ┌ x/b
           │ │ ┌ x/c
           │ │ │ ┌ y/a
           │ │ │ │ ┌ y/b
           │ │ │ │ │ ┌ host/far
           │ │ │ │ │ │ ┌ host/near
x/a        · ✓ ✓ ✓ ✓ ✓ ✓
x/b        ✓ · ✓ ✓ ✓ ✓ ✓
x/c        ✗ ✓ · ✓ ✓ ✓ ✓
y/a        ✗ ✓ ✓ · ✓ ✓ ✓
y/b        ✗ ✓ ✓ ✓ · ✓ ✓
host/far   ✗ ✓ ✓ ✓ ✓ · ·
host/near  ✗ ✓ ✓ ✓ ✓ · ·

81/TCP     ┌ x/a
"""
    )
    assert found.stdout.endswith("70 pairs, 59 reach, 11 blocked; 7 ends, 1 policies\n")
    assert "\x1b" not in found.stdout


def test_without_ports_the_declared_ones_are_judged(cluster: str) -> None:
    """Rule A34: others are not asked for, since nothing listens there."""
    found = json.loads(run("matrix", "-f", cluster, "-o", "json").stdout)
    assert {(one["port"], one["protocol"]) for one in found["probes"]} == {
        (80, "TCP"),
        (81, "TCP"),
        (80, "UDP"),
        (80, "SCTP"),
    }


def test_the_json_of_the_matrix_names_rule_and_reason(cluster: str) -> None:
    """Rule A16."""
    found = json.loads(run("matrix", "-f", cluster, "--port", "80", "-o", "json").stdout)
    by_pair = {(one["from"], one["to"]): one for one in found["probes"]}
    allowed = by_pair["x/b", "x/a"]
    assert allowed | {"because": ""} == {
        "from": "x/b",
        "to": "x/a",
        "port": 80,
        "protocol": "TCP",
        "family": "IPv4",
        "allowed": True,
        "reason": "rule_allowed",
        "direction": "ingress",
        "rule": "NetworkPolicy x/web ingress[0]",
        "isolating": ["NetworkPolicy x/web"],
        "because": "",
        "would_deny": "",
    }
    blocked = by_pair["host/near", "x/a"]
    assert not blocked["allowed"]
    assert blocked["rule"] is None
    assert blocked["reason"] == "policy_denied"
    assert by_pair["x/a", "x/b"]["reason"] == "not_isolated"


def test_the_yaml_of_the_matrix_says_what_the_json_says(cluster: str) -> None:
    as_yaml = yaml.safe_load(run("matrix", "-f", cluster, "--port", "80", "-o", "yaml").stdout)
    assert as_yaml == json.loads(run("matrix", "-f", cluster, "--port", "80", "-o", "json").stdout)


def test_where_the_picture_is_too_wide_there_is_a_list(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "PIPE_WIDTH", 33)
    monkeypatch.setattr(tables, "paint", lambda _renderable: "the list")
    found = run("matrix", "-f", cluster, "--port", "80")
    assert found.stdout == "the list\n\n40 pairs, 35 reach, 5 blocked; 7 ends, 1 policies\n"
    monkeypatch.setattr(tables, "PIPE_WIDTH", 34)
    monkeypatch.setattr(tables, "paint", str)
    assert "┌ host/near" in run("matrix", "-f", cluster, "--port", "80").stdout


def test_a_pair_that_one_family_alone_lets_through_shows_the_family(tmp_path: pathlib.Path) -> None:
    """Rule A24."""
    ipv6_only = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "six", "namespace": "x"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "a"}},
            "ingress": [{"from": [{"ipBlock": {"cidr": "fd00::/8"}}]}],
        },
    }
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(ipv6_only))
    fixture = str(cases.DIRECTORY / cases.FIXTURES / "dual-stack.yaml")
    found = run("matrix", "-f", fixture, "-f", str(path), "--port", "80")
    lines = {line.split()[0]: line.split()[1:] for line in found.stdout.splitlines() if "/" in line}
    assert lines["x/b"][0] == "6"
    assert lines["y/four"][0] == "✗"
    assert lines["y/six"][0] == "✓"


def test_pods_without_an_address_are_judged_and_the_summary_says_so(tmp_path: pathlib.Path) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a", "namespace": "x"},
        "spec": {"containers": [{"name": "c", "image": "example/serve", "ports": [{"containerPort": 80}]}]},
    }
    other = pod | {"metadata": {"name": "b", "namespace": "x"}}
    (tmp_path / "pods.yaml").write_text(yaml.safe_dump_all([pod, other]))
    found = run("matrix", "-f", str(tmp_path))
    assert found.stdout.endswith(
        "2 pairs, 2 reach, 0 blocked; 2 ends, 0 policies;"
        " 2 pods have no address yet and were judged with placeholders\n"
    )


def test_problems_of_the_manifests_are_shown_on_stderr_with_control_characters_escaped(tmp_path: pathlib.Path) -> None:
    """Rule A50."""
    broken = POLICY | {"spec": {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "\x1b[31m"}}]}]}}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(broken))
    fixture = str(cases.DIRECTORY / cases.FIXTURES / "two-nodes.yaml")
    found = run("matrix", "-f", str(tmp_path), "-f", fixture, "--port", "80", "-o", "json")
    assert found.exit_code == 0
    assert "problem: NetworkPolicy x/web spec.ingress[0].from[0].ipBlock.cidr: " in found.stderr
    assert "\x1b" not in found.stderr
    assert json.loads(found.stdout)["probes"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "99"], "--port: '99/TCP' is not valid: name a port that some pod declares: 80/TCP"),
        (["--port", "http"], "--port: 'http' is not valid: write a number"),
        (["--port", "80/QUIC"], "--port: '80/QUIC' is not valid"),
        (["--port", "0"], "--port: '0' is not valid"),
        (["--port", "65536"], "--port: '65536' is not valid"),
        (["--port", "²"], "--port: '²' is not valid"),
        (["-f", "/nonexistent"], "path: '/nonexistent' is not valid"),
    ],
)
def test_wrong_input_names_field_value_and_remedy_and_exits_with_two(
    cluster: str, arguments: list[str], message: str
) -> None:
    found = run("matrix", "-f", cluster, *arguments)
    assert found.exit_code == 2
    assert found.stderr.startswith(f"agentctl: {message}")


def test_a_cluster_without_pods_has_nothing_to_judge(tmp_path: pathlib.Path) -> None:
    found = run("matrix", "-f", str(tmp_path))
    assert found.exit_code == 2
    assert "give manifests that hold the pods, too" in found.stderr


def test_an_explanation_tells_the_way_to_the_verdict(cluster: str) -> None:
    """Rule A20."""
    found = run("explain", "-f", cluster, "--from", "y/b", "--to", "x/a", "--port", "80/TCP")
    assert found.exit_code == 0
    assert found.stdout.startswith("y/b (10.244.1.20) to x/a (10.244.1.10) port 80/TCP: blocked\n")
    assert "✗ peer: y/b is not in the policy's namespace x (A20)" in found.stdout
    assert "✓ port: port web of x/a is 80" in found.stdout


def test_an_address_is_explained_as_whoever_has_it(cluster: str) -> None:
    """Rules A22, A37."""
    own_node = run("explain", "-f", cluster, "--from", "192.168.60.11", "--to", "x/a", "--port", "80")
    assert "node node-1 is on x/a's own node, which always reaches it (A37)" in own_node.stdout
    outside = run("explain", "-f", cluster, "--from", "192.0.2.99", "--to", "10.244.1.10", "--port", "80")
    assert outside.stdout.startswith("192.0.2.99 to x/a (10.244.1.10) port 80/TCP: blocked\n")


@pytest.mark.parametrize("sender", ["host/near", "node/node-2"])
def test_machines_and_nodes_are_explained_by_name(cluster: str, sender: str) -> None:
    """Rule A18."""
    found = json.loads(
        run("explain", "-f", cluster, "--from", sender, "--to", "x/a", "--port", "80", "-o", "json").stdout
    )
    (flow,) = found["flows"]
    assert flow["allowed"] is False
    assert flow["egress"]["subject"] is None
    assert flow["ingress"]["isolating"] == ["NetworkPolicy x/web"]


def test_the_address_of_a_service_is_explained_backend_by_backend(services: str) -> None:
    """Rule A42."""
    found = run("explain", "-f", services, "--from", "y/client", "--to", "10.96.0.11", "--port", "80", "-o", "json")
    reached = [(flow["to"], flow["port"], flow["via_service"]) for flow in json.loads(found.stdout)["flows"]]
    assert reached == [("x/web-1", 8080, True), ("x/web-2", 9090, True)]


def test_a_service_without_endpoints_is_refused_by_no_policy(services: str) -> None:
    """Rule A42."""
    found = run("explain", "-f", services, "--from", "y/client", "--to", "10.96.0.13", "--port", "80")
    assert found.exit_code == 2
    assert "Service x/empty has no endpoint there" in found.stderr


ASKING = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: asks, namespace: x}
spec:
  endpointSelector: {}
  egress:
    - toEntities: [all]
      toPorts:
        - ports: [{port: "53", protocol: UDP}]
          rules: {dns: [{matchPattern: "*.example.com"}]}
"""


def test_a_query_is_explained_beside_the_flow_that_carries_it(cluster: str, tmp_path: pathlib.Path) -> None:
    """Rule E17."""
    path = tmp_path / "asks.yaml"
    path.write_text(ASKING)
    words = ("explain", "-f", cluster, "-f", str(path), "--from", "x/a", "--to", "y/b", "--port", "53/UDP")
    for name, said, allowed in (("API.example.com.", "let through", True), ("example.com", "refused", False)):
        found = run(*words, "--asks", name)
        assert found.stdout.startswith("x/a (10.244.1.10) to y/b (10.244.1.20) port 53/UDP: allowed\n")
        assert f"\na DNS query for {name.lower().rstrip('.')}: {said}\n  DNS queries for *.example.com" in found.stdout
        (flow,) = json.loads(run(*words, "--asks", name, "-o", "json").stdout)["flows"]
        assert flow["query"]["allowed"] is allowed
    for wrong in (("--asks", "not a name"), ("--asks", "a.example.com", "--port", "53/TCP")):
        assert run(*words, *wrong).exit_code == 2


def test_icmp_is_explained_without_a_port(cluster: str) -> None:
    """Rule A41."""
    found = run("explain", "-f", cluster, "--from", "x/b", "--to", "x/a", "--port", "icmp")
    assert found.stdout.startswith("x/b (10.244.2.10) to x/a (10.244.1.10) port ICMP: blocked\n")


def test_an_end_that_is_not_there_is_named_with_those_that_are(cluster: str) -> None:
    found = run("explain", "-f", cluster, "--from", "x/nobody", "--to", "x/a", "--port", "80")
    assert found.exit_code == 2
    assert "--from: 'x/nobody' is not valid" in found.stderr
    assert "x/a, x/b, x/c" in found.stderr


def test_ends_of_different_families_are_refused(cluster: str) -> None:
    """Rule A24."""
    found = run("explain", "-f", cluster, "--from", "x/a", "--to", "2001:db8::1", "--port", "80")
    assert found.exit_code == 2
    assert "of the same family as x/a" in found.stderr


AUDITED = {
    **POLICY,
    "metadata": {"name": "web", "namespace": "x", "annotations": {"nodewall.io/audit": "true"}},
}


@pytest.fixture(name="audited")
def manifests_with_an_annotated_policy(tmp_path: pathlib.Path, cluster: str) -> str:
    (tmp_path / "policies.yaml").write_text(yaml.safe_dump(AUDITED))
    return cluster


@pytest.mark.parametrize(
    "flags", [("--allow-audit-annotations",), ("--audit-policy", "x/web"), ("--audit-namespace", "x")]
)
def test_the_matrix_shows_what_reaches_only_for_an_audit(audited: str, flags: tuple[str, ...]) -> None:
    """Rule A51."""
    found = run("matrix", "-f", audited, "--port", "80", *flags)
    assert found.exit_code == 0, found.output
    assert "\nx/c        ~ ✓ · ✓ ✓ ✓ ✓\n" in found.stdout
    assert "\nx/b        ✓ · ✓ ✓ ✓ ✓ ✓\n" in found.stdout
    assert "40 pairs, 40 reach, 0 blocked; 7 ends, 1 policies; 5 reach only for an audit: ~\n" in found.stdout
    probes = json.loads(run("matrix", "-f", audited, "--port", "80", "-o", "json", *flags).stdout)["probes"]
    would = {(one["from"], one["to"]): one["would_deny"] for one in probes if one["would_deny"]}
    assert len(would) == 5
    assert "is isolated for ingress by NetworkPolicy x/web, and no rule allows it (A15)" in would["x/c", "x/a"]


def test_an_annotation_that_does_not_count_is_told_and_its_policy_enforced(audited: str) -> None:
    """Rule A51, CVE-2022-28224."""
    found = run("matrix", "-f", audited, "--port", "80")
    assert "x/c        ✗" in found.stdout
    assert found.stderr == (
        "problem: NetworkPolicy x/web metadata.annotations[nodewall.io/audit]: "
        "does not count without --allow-audit-annotations: it is enforced\n"
    )


def test_a_list_of_pairs_says_what_would_be_denied(audited: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule A51."""
    monkeypatch.setattr(tables, "PIPE_WIDTH", 33)
    assert "WOULD" in run("matrix", "-f", audited, "--port", "80", "--audit-namespace", "x").stdout
    assert "WOULD" not in run("matrix", "-f", audited, "--port", "80").stdout


def test_an_explanation_tells_what_policies_in_audit_would_say(audited: str) -> None:
    """Rule A51."""
    words = ("explain", "-f", audited, "--from", "x/c", "--to", "x/a", "--port", "80", "--allow-audit-annotations")
    found = run(*words)
    assert found.exit_code == 0, found.output
    assert found.stdout.startswith("x/c (10.244.1.11) to x/a (10.244.1.10) port 80/TCP: allowed in audit, and would be")
    assert "✗ were the policies in audit enforced: blocked, as x/a is isolated for ingress by" in found.stdout
    assert "; it is in audit and decides nothing (A51)" in found.stdout
    (flow,) = json.loads(run(*words, "-o", "json").stdout)["flows"]
    assert (flow["allowed"], flow["would_deny"], flow["egress"]["would"]) == (True, True, None)
    assert flow["ingress"]["would"]["isolating"] == ["NetworkPolicy x/web"]
    assert flow["ingress"]["tiers"][0]["policies"][0]["in_audit"] is True


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--audit-policy", "web"), "--audit-policy: 'web' is not valid: write NAMESPACE/NAME"),
        (("--audit-policy", "x/other"), "--audit-policy: 'x/other' is not valid: there is NetworkPolicy x/web"),
        (("--audit-namespace", "y"), "--audit-namespace: 'y' is not valid: there is NetworkPolicy x/web"),
        (("--audit-namespace", "x/web"), "--audit-namespace: 'x/web' is not valid: write a namespace, or use"),
    ],
)
def test_what_cannot_be_in_audit_is_refused(audited: str, flags: tuple[str, ...], message: str) -> None:
    for words in (("matrix",), ("explain", "--from", "x/c", "--to", "x/a", "--port", "80")):
        found = run(*words, "-f", audited, *flags)
        assert found.exit_code == 2
        assert found.stderr.startswith(f"agentctl: {message}")
