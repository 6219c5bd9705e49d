"""`agentctl trace` reads the kernel: it agrees with the matrix over all pairs, and names a row that was tampered with.

The agent is not told of what is done to its maps and rules here; what it remembers is what it wrote. The iptables
engine repairs what others do within seconds, so that it is asked at once, and again if the repair was faster.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import os
import pathlib
import subprocess
from collections.abc import Callable, Iterator

import pytest
from click import testing

from agent import desired, snapshot
from agent.cli import main
from agent.datapath import plan, tracing
from agent.datapath.bpf import layout, rows, syscalls
from agent.datapath.iptables import commands
from agent.lab import demo, files, lab
from agent.model import identity, net, verdict
from agent.policy import asked, reachability
from agent.rpc import client, traces
from agent.sources import manifests
from tests.system import conftest, engines

pytestmark = pytest.mark.root

MANIFESTS = pathlib.Path(demo.__file__).parent
SOURCE, DESTINATION, PORT = "edge/ingress", "shop/frontend", "8443/TCP"
NODE = "node-1"
TRIES = 8
RULES = (engines.NFT, engines.LEGACY)


@contextlib.contextmanager
def demo_lab(engine: engines.Engine) -> Iterator[lab.Lab]:
    with engine.lab(conftest.lab_name(f"t{engine.variant}"), families=list(net.Family)) as built:
        built.down()
        built.up(files.load([MANIFESTS]))
        conftest.check_engine(built, engine)
        yield built


@pytest.fixture(scope="module")
def bpf() -> Iterator[lab.Lab]:
    with demo_lab(engines.NFBPF) as built:
        yield built


@pytest.fixture(scope="module", params=RULES, ids=lambda one: str(one.name))
def rules(request: pytest.FixtureRequest) -> Iterator[tuple[lab.Lab, engines.Engine]]:
    with demo_lab(request.param) as built:
        yield built, request.param


def traced(running: lab.Lab, node: str, source: str, destination: str, port: str) -> traces.Traced:
    with client.AgentClient(running.paths.agent_socket(node)) as agent:
        return agent.trace(source, destination, port)


def first(running: lab.Lab) -> traces.FlowTrace:
    """Trace the flow that is tampered with, in IPv4."""
    return next(
        one for one in traced(running, NODE, SOURCE, DESTINATION, PORT).flows if one.source_address.version == 4
    )


def agree(running: lab.Lab) -> int:
    """Compare every pair of the matrix with what the kernels of its nodes hold; return how many there are."""
    known: snapshot.Snapshot = manifests.load([running.paths.manifests])
    checked = 0
    for reach in reachability.reach(known, reachability.declared(known)):
        ends = {reach.source, reach.destination}
        nodes = {pod.node for pod in known.pods.values() if f"{pod.namespace}/{pod.name}" in ends}
        said = []
        for node in sorted(name for name in nodes if name):
            found = traced(running, node, reach.source, reach.destination, asked.shown(reach.port))
            (flow,) = (one for one in found.flows if net.family_of(one.destination_address) is reach.family)
            assert flow.disagreements == (), flow
            assert flow.allowed is reach.decision.allowed, flow
            assert flow.layers
            said += [layer.loaded.allowed for layer in flow.layers]
        assert all(said) is reach.decision.allowed, reach
        checked += 1
    return checked


def test_over_all_pairs_the_bpf_maps_say_what_the_matrix_says(bpf: lab.Lab) -> None:
    assert agree(bpf) >= 12


def test_over_all_pairs_rules_and_sets_say_what_the_matrix_says(rules: tuple[lab.Lab, engines.Engine]) -> None:
    assert agree(rules[0]) >= 12


def test_what_a_pod_sends_to_its_own_node_is_traced_at_the_node_s_input(bpf: lab.Lab) -> None:
    found = traced(bpf, NODE, SOURCE, f"node/{NODE}", "53/UDP")
    assert {flow.path for flow in found.flows} == {"local_in"}
    assert not any(flow.disagreements or flow.allowed for flow in found.flows)


def test_what_the_node_itself_sends_passes_by_position(bpf: lab.Lab) -> None:
    found = traced(bpf, NODE, f"node/{NODE}", DESTINATION, PORT)
    assert {flow.path for flow in found.flows} == {""}
    assert all(flow.allowed and not flow.layers for flow in found.flows)


# One map row each, by hand.


class Rows:
    """The rows of one pinned map of the node, written behind the agent's back."""

    def __init__(self, running: lab.Lab, table: plan.Table) -> None:
        """Take the IPv4 map of a table that has two."""
        self.codec = layout.CODECS[table][0]
        self._pin = running.paths.bpffs / "nodewall" / NODE / f"v{layout.ABI}" / self.codec.name

    @contextlib.contextmanager
    def changed(self, wanted: Callable[[object, object], bool], to: Callable[[object], object] | None) -> Iterator[str]:
        """Change the one row that is wanted (None: delete it), and put it back; gives its key."""
        with syscalls.owned(syscalls.open_pin(self._pin)) as descriptor:
            found = [
                (key, value)
                for key, value in rows.dump(descriptor)
                if wanted(self.codec.decode_key(key), self.codec.decode_value(value))
            ]
            ((key, value),) = found
            if to is None:
                rows.delete(descriptor, key)
            else:
                rows.update(descriptor, key, self.codec.encode_value(to(self.codec.decode_value(value))))
            try:
                yield str(self.codec.decode_key(key))
            finally:
                rows.update(descriptor, key, value)


def is_the_row(running: lab.Lab) -> Callable[[object, object], bool]:
    """Return what finds the row that allows the flow's egress: the one trace says it is."""
    number = int(next(look.value.split()[1] for look in looked(first(running)) if look.table == "ipcache_host4"))
    return lambda key, _: (
        isinstance(key, plan.PolicyKey)
        and (key.identity, key.direction, key.port) == (number, net.Direction.EGRESS, 8443)
    )


def looked(flow: traces.FlowTrace) -> list[tracing.Looked]:
    return [look for layer in flow.layers if layer.layer is verdict.Layer.PACKET for look in layer.loaded.lookups]


def packet(flow: traces.FlowTrace) -> tracing.Layer:
    return next(layer for layer in flow.layers if layer.layer is verdict.Layer.PACKET)


def check_denied(flow: traces.FlowTrace, table: str, row: str, expected: str, found: str) -> None:
    layer = packet(flow)
    assert layer.compiled.allowed
    assert not layer.loaded.allowed
    assert any("model and kernel disagree" in line for line in flow.disagreements), flow.disagreements
    assert [one.table for one in layer.differences] == [table]
    (difference,) = layer.differences
    assert row in difference.row
    assert expected in difference.expected
    assert found in difference.found


def test_a_policy_row_that_was_deleted_is_named(bpf: lab.Lab) -> None:
    assert first(bpf).allowed
    with Rows(bpf, plan.Table.POLICY).changed(is_the_row(bpf), None):
        flow = first(bpf)
        check_denied(flow, "policy", "egress, identity", "allow by NetworkPolicy edge/front-door egress[0]", "no entry")
        check_exit(bpf, 1, "model and kernel disagree", "policy [set ", "found    no entry")
    assert not first(bpf).disagreements
    check_exit(bpf, 0, "ALLOWED")


def test_a_row_whose_action_was_turned_over_is_named(bpf: lab.Lab) -> None:
    def deny(value: object) -> object:
        assert isinstance(value, desired.Row)
        return dataclasses.replace(value, action=desired.Action.DENY)

    with Rows(bpf, plan.Table.POLICY).changed(is_the_row(bpf), deny):
        check_denied(first(bpf), "policy", "8443/TCP", "allow by", "deny by NetworkPolicy edge/front-door egress[0]")


def test_an_ipcache_entry_that_points_to_another_identity_is_named(bpf: lab.Lab) -> None:
    address = bpf.plan.addresses(DESTINATION)[0]
    with Rows(bpf, plan.Table.IPCACHE_HOST).changed(
        lambda key, _: key == ipaddress.ip_address(str(address)), lambda _: (identity.WORLD, identity.WORLD)
    ):
        check_denied(first(bpf), "ipcache_host4", str(address), "namespace shop: app=frontend", "world")


def test_an_endpoint_whose_set_was_changed_is_named(bpf: lab.Lab) -> None:
    def other(value: object) -> object:
        assert isinstance(value, plan.EndpointValue)
        moved = [dataclasses.replace(slot, egress_set=77) if slot else None for slot in value.slots]
        return dataclasses.replace(value, slots=(moved[0], moved[1]))

    number = next(int(look.value.split()[1]) for look in looked(first(bpf)) if look.table == "ep_by_ip4")
    with Rows(bpf, plan.Table.ENDPOINTS).changed(lambda key, _: key == number, other):
        check_denied(first(bpf), "endpoints", SOURCE, "NetworkPolicy edge/front-door", "egress: set 77 (unknown)")


def check_exit(running: lab.Lab, code: int, *texts: str) -> None:
    words = ["trace", "--from", SOURCE, "--to", DESTINATION, "--port", PORT]
    ended = testing.CliRunner().invoke(main.root, [*words, "--socket", str(running.paths.agent_socket(NODE))])
    assert ended.exit_code == code, ended.output
    assert all(text in ended.output for text in texts), ended.output


# One rule or member each, by hand.


def in_node(running: lab.Lab, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XTABLES_LOCKFILE": str(running.paths.xtables_lock(NODE))}
    netns = f"--net={running.paths.node_netns(NODE)}"
    return subprocess.run(["nsenter", netns, *command], env=environment, capture_output=True, text=True, check=False)


def until_seen(running: lab.Lab, tamper: Callable[[], object]) -> traces.FlowTrace:
    """Tamper and ask at once; where the agent was faster, again."""
    for _ in range(TRIES):
        tamper()
        flow = first(running)
        if flow.disagreements:
            return flow
    raise AssertionError(f"not seen in {TRIES} tries: {flow}")


def test_a_member_taken_out_of_a_set_is_named(rules: tuple[lab.Lab, engines.Engine]) -> None:
    running, _ = rules
    name, member = next(
        (look.table.removeprefix("set "), look.entry)
        for look in looked(first(running))
        if look.table.startswith("set NW4-N-")
    )

    def tamper() -> None:
        for version in "ab":
            in_node(running, "ipset", "del", name + version, member)

    with client.AgentClient(running.paths.agent_socket(NODE)) as agent:
        assert [row.key for row in agent.rows(name)] == [member]
    flow = until_seen(running, tamper)
    check_denied(flow, f"set {name}", member, "a member", "no member matches")


def test_a_rule_deleted_from_a_chain_is_named(rules: tuple[lab.Lab, engines.Engine]) -> None:
    running, engine = rules
    chain = next(look.table.split()[1] for look in looked(first(running)) if look.table.startswith("filter NW-SET-"))
    tool = f"{commands.PREFIXES[net.Family.IPV4]}-{engine.variant}"
    flow = until_seen(running, lambda: in_node(running, tool, "-w", "-D", chain, "1"))
    check_denied(flow, f"filter {chain} (IPv4)", "rule 1", "--dport 8443", "not there")
