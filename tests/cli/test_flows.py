"""`agentctl simulate` and `advise` on the demo's traffic: what they say is what the evaluator says of each flow."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterable

import pytest
import yaml
from click import testing

from agent import snapshot
from agent.cli import advise, main
from agent.flows import records, talks
from agent.model import labels
from agent.policy import evaluator
from agent.sources import manifests
from tests.flows import demo, recording

HOSTILE = "evil\x1b]0;x\x07\n---\nkind: Pod"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """The demo on disk, open and closed, and what was recorded of each."""

    base: pathlib.Path
    closed_base: pathlib.Path
    policies: pathlib.Path
    open_flows: pathlib.Path
    closed_flows: pathlib.Path
    open: snapshot.Snapshot
    closed: snapshot.Snapshot


@pytest.fixture(scope="module", name="shop")
def demo_on_disk(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    directory = tmp_path_factory.mktemp("demo")
    base = demo.write(directory / "base", demo.cluster())
    policies = demo.write(directory / "policies", demo.policies())
    closed_base = demo.write(directory / "closed", [*demo.cluster(), *demo.policies()])
    opened, closed = manifests.load([base]), manifests.load([closed_base])
    for name, cluster in (("open", opened), ("closed-flows", closed)):
        (directory / f"{name}.json").write_bytes(demo.lines(recording.judged(cluster, demo.traffic(cluster))))
    return Shop(
        base=base,
        closed_base=closed_base,
        policies=policies,
        open_flows=directory / "open.json",
        closed_flows=directory / "closed-flows.json",
        open=opened,
        closed=closed,
    )


def run(*words: object, code: int = 0) -> str:
    result = testing.CliRunner().invoke(main.root, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


def shown(flows: Iterable[evaluator.Flow]) -> set[tuple[str, str, int]]:
    found = talks.gather(record for flow in flows for record in recording.judged(snapshot.Snapshot(), [flow]))
    return {(talks.ref(one.key.source), talks.ref(one.key.destination), one.key.port) for one in found.talks}


def test_simulation_of_the_demos_policies_finds_exactly_the_flows_they_deny(shop: Shop) -> None:
    said = run(
        *("simulate", "-f", shop.policies, "--base", shop.base, "--flows", shop.open_flows, "-o", "json"), code=3
    )
    document = json.loads(said)
    denied = [flow for flow in demo.traffic(shop.open) if not evaluator.evaluate(shop.closed, flow).allowed]
    found = {(one["source"], one["destination"], one["port"]) for one in document["breaks"]}
    assert found == shown(denied)
    assert document["counts"]["passes"] == len(demo.traffic(shop.open)) - len(denied)
    assert document["opens"] == document["unresolved"] == document["outdated"] == []
    assert document["coverage"]["nodes"] == ["node-1", "node-2"]
    policies = {ref["name"] for one in document["breaks"] for ref in one["policies"]}
    assert "default-deny" in policies


def test_simulation_of_a_deleted_policy_finds_what_would_newly_pass_and_that_is_no_breakage(shop: Shop) -> None:
    words = ("simulate", "--base", shop.closed_base, "--flows", shop.closed_flows, "-o", "json")
    document = json.loads(run(*words, "--delete", "networkpolicy/shop/default-deny"))
    after = dataclasses.replace(
        shop.closed,
        policies={
            ref: one for ref, one in shop.closed.policies.items() if str(ref) != "NetworkPolicy shop/default-deny"
        },
    )
    opened = [
        flow
        for flow in demo.traffic(shop.closed)
        if evaluator.evaluate(after, flow).allowed and not evaluator.evaluate(shop.closed, flow).allowed
    ]
    assert {(one["source"], one["destination"], one["port"]) for one in document["opens"]} == shown(opened)
    assert opened


def test_the_simulation_is_told_with_its_coverage(shop: Shop) -> None:
    said = run("simulate", "-f", shop.policies, "--base", shop.base, "--flows", shop.open_flows, code=3)
    assert "flows would break:" in said
    assert "egress isolated by NetworkPolicy shop/default-deny" in said
    assert "of 2 nodes (node-1, node-2), 2026-11-21T14:16:" in said
    assert "unchanged: " in said
    same = run("simulate", "-f", shop.policies, "--base", shop.closed_base, "--flows", shop.closed_flows)
    assert "nothing that was seen would break" in same


def test_manifests_without_addresses_are_judged_as_those_with_them(shop: Shop, tmp_path: pathlib.Path) -> None:
    written = demo.write(tmp_path / "written", demo.unresolved())
    words = ("-f", shop.policies, "--flows", shop.open_flows, "-o", "json")
    document = json.loads(run("simulate", "--base", written, *words, code=3))
    resolved = json.loads(run("simulate", "--base", shop.base, *words, code=3))
    assert document["breaks"] == resolved["breaks"]
    assert (document["named"], resolved["named"]) == (4, 0)
    assert document["coverage"]["flows_judged"] == document["coverage"]["flows"] > 0
    said = run("simulate", "--base", written, *words[:4], code=3)
    assert "known by its name, as the manifests have no address for it: 4 pods" in said


@pytest.mark.parametrize(
    ("base", "flows", "why"),
    [
        ("strangers", "open", "--base: none of "),
        ("strangers", "nobody", "--flows: no verdict of a policy"),
        ("present", "nobody", "--flows: no verdict of a policy"),
    ],
)
def test_a_simulation_that_judged_nothing_is_no_yes(
    base: str, flows: str, why: str, shop: Shop, tmp_path: pathlib.Path
) -> None:
    strangers = demo.write(tmp_path / "strangers", demo.cluster()[:1])
    (tmp_path / "nobody").touch()
    bases = {"strangers": strangers, "present": shop.base}
    recorded = {"open": shop.open_flows, "nobody": tmp_path / "nobody"}
    words = ["simulate", "-f", shop.policies, "--base", bases[base], "--flows", recorded[flows]]
    result = testing.CliRunner().invoke(main.root, [str(word) for word in words])
    assert result.exit_code == 1
    assert f"agentctl: nothing was judged: {why}" in result.stderr
    assert "would break" not in result.stdout
    assert "unchanged" not in result.stdout
    document = json.loads(testing.CliRunner().invoke(main.root, [*map(str, words), "-o", "json"]).stdout)
    assert document["coverage"]["flows_judged"] == 0


def test_what_could_not_be_judged_is_told_wherever_the_answer_is(shop: Shop, tmp_path: pathlib.Path) -> None:
    first, second = recording.judged(shop.open, demo.traffic(shop.open)[:1])
    gone = dataclasses.replace(first, source=dataclasses.replace(first.source, pod="gone", labels=labels.NO_LABELS))
    (tmp_path / "flows").write_bytes(demo.lines([first, second, gone]))
    words = ("simulate", "-f", shop.base, "--base", shop.base, "--flows", tmp_path / "flows")
    said = run(*words)
    assert "of the flows that could be judged none would break" in said
    assert "  judged: 1 of 2 flows (50 %); nothing is known of the others" in said
    for form, read in (("json", json.loads), ("yaml", yaml.safe_load)):
        result = testing.CliRunner().invoke(main.root, [*map(str, words), "-o", form])
        coverage = read(result.stdout)["coverage"]
        assert (coverage["flows"], coverage["flows_judged"]) == (2, 1)


def test_problems_of_the_new_policies_and_objects_that_do_not_count_are_told(
    shop: Shop, tmp_path: pathlib.Path
) -> None:
    policy = {**demo.policies()[0], "spec": {"podSelector": {}, "ingress": [{"from": [{}]}]}}
    new = demo.write(tmp_path / "new", [policy, *demo.cluster()[2:4]])
    said = run("simulate", "-f", new, "--base", shop.base, "--flows", shop.open_flows, code=3)
    assert "problem: NetworkPolicy edge/default-deny spec.ingress[0].from[0]" in said
    assert "only policies and namespaces count" in said


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "name changed policies"),
        (["--delete", "shop/default-deny"], "write KIND/NAMESPACE/NAME"),
        (["--delete", "NetworkPolicy/shop/other"], "there is NetworkPolicy edge/default-deny"),
        (["--delete", "NetworkPolicy/default-deny"], "write KIND/NAMESPACE/NAME"),
        (["--delete", "clusternetworkpolicy/wide"], "'ClusterNetworkPolicy wide' is not valid: there is"),
        (["--delete", "ClusterNetworkPolicy/shop/wide"], "or ClusterNetworkPolicy/NAME"),
        (["--delete", "NetworkPolicy/shop/default-deny", "--flows", "/nowhere"], "cannot be opened"),
        (["--delete", "NetworkPolicy/shop/default-deny", "--since", "never"], "write how long ago"),
    ],
)
def test_wrong_questions_are_usage(words: list[str], why: str, shop: Shop) -> None:
    flows = [] if "--flows" in words else ["--flows", shop.closed_flows]
    assert why in run("simulate", *words, "--base", shop.closed_base, *flows, code=2)


def test_a_report_has_no_names(shop: Shop) -> None:
    words = ("simulate", "-f", shop.policies, "--base", shop.base, "--flows", shop.open_flows, "-o", "name")
    assert "this has no names" in run(*words, code=2)
    assert "this has no names" in run("policy", "matrix", "-f", shop.base, "-o", "name", code=2)


def test_advice_on_the_demos_traffic_allows_exactly_that_traffic(shop: Shop, tmp_path: pathlib.Path) -> None:
    (tmp_path / "advised.yaml").write_text(run("advise", "--flows", shop.closed_flows))
    advised = manifests.load([tmp_path / "advised.yaml"])
    assert advised.problems == ()
    after = dataclasses.replace(shop.open, policies=advised.policies)
    flows = demo.traffic(shop.open)
    allowed = {flow for flow in flows if evaluator.evaluate(after, flow).allowed}
    assert allowed == {flow for flow in flows if evaluator.evaluate(shop.closed, flow).allowed}
    assert 0 < len(allowed) < len(flows)


def test_advice_as_json_is_one_list_of_the_same_policies(shop: Shop) -> None:
    words = ["advise", "--flows", str(shop.closed_flows)]
    result = testing.CliRunner().invoke(main.root, [*words, "-o", "json"])
    document = json.loads(result.stdout)
    assert (result.exit_code, document["kind"]) == (0, "List")
    assert document["items"] == [one for one in yaml.safe_load_all(run(*words)) if one]
    assert "coverage: " in result.stderr


def test_advice_can_be_for_one_namespace_one_pod_or_cilium(shop: Shop) -> None:
    def named(*words: str) -> list[str]:
        documents = yaml.safe_load_all(run("advise", "--flows", shop.closed_flows, *words))
        return [f"{one['kind']} {one['metadata']['namespace']}/{one['metadata']['name']}" for one in documents if one]

    assert named("-n", "edge") == ["NetworkPolicy edge/ingress-advised"]
    assert named("--pod", "shop/backend") == ["NetworkPolicy shop/backend-advised"]
    assert named("--pod", "shop/backend", "--format", "cilium") == ["CiliumNetworkPolicy shop/backend-advised"]
    run("advise", "--flows", shop.closed_flows, "-n", "nowhere", code=2)
    run("advise", "--flows", shop.closed_flows, "--pod", "backend", code=2)


def test_advice_knows_other_pods_of_the_cluster_and_says_what_was_seen(shop: Shop) -> None:
    said = run("advise", "--flows", shop.closed_flows, "--base", shop.base)
    assert said.startswith("# Advised from verdicts")
    assert "# coverage: " in said
    assert "# 203.0.113.10 is customer; names may get other addresses" in said


def test_hostile_records_stay_in_one_comment_and_make_no_document(shop: Shop, tmp_path: pathlib.Path) -> None:
    (record, *_) = recording.judged(shop.open, demo.traffic(shop.open)[:1])
    end = dataclasses.replace(record.source, pod=HOSTILE, workload=HOSTILE)
    outside = records.End(address=record.destination.address, names=(HOSTILE,))
    hostile = dataclasses.replace(record, source=end, destination=outside, node=HOSTILE)
    (tmp_path / "flows.json").write_bytes(demo.lines([hostile]))
    for dialect in ("k8s", "cilium"):
        said = run("advise", "--flows", tmp_path / "flows.json", "--format", dialect)
        assert said.replace("\n", "").isprintable()
        (document,) = (one for one in yaml.safe_load_all(said) if one)
        assert "Policy" in document["kind"]
    said = run("simulate", "-f", shop.policies, "--base", shop.base, "--flows", tmp_path / "flows.json", code=1)
    assert said.replace("\n", "").isprintable()


@pytest.mark.parametrize("text", ["1e3", "0o17", "yes", "Y", "null", "1_000", "0x1f", "12:30", "a: b", "", "~", ".inf"])
def test_labels_that_look_like_something_else_are_quoted(text: str) -> None:
    said = advise.dump({"matchLabels": {"app": text, text: "x"}})
    assert said.count(f'"{text}"') == 2
    assert yaml.safe_load(said) == {"matchLabels": {"app": text, text: "x"}}
