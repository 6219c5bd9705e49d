"""Who is behind an address: pod, node, machine or Service; its identity, and which policies speak of it."""

from __future__ import annotations

import collections
from collections.abc import Iterator

from agent import reconciler
from agent.model import identity, net, resources
from agent.policy import evaluator, matching, words
from agent.rpc import describe, details, identity_detail

SUBJECTS = collections.defaultdict(
    lambda: "spec.podSelector", CiliumNetworkPolicy="spec.endpointSelector", ClusterNetworkPolicy="spec.subject"
)
TOWARDS = {net.Direction.INGRESS: "from", net.Direction.EGRESS: "to"}


def detail(now: reconciler.Enforcement, address: net.Address) -> details.AddressDetail:
    """Describe `address`; one that nobody has is the world's, and not an error."""
    number = describe.identity_of(address, now.state)
    prefix, found = _found(now, address)
    endpoint = next((one.id for one in now.state.endpoints.values() if address in one.addresses), 0)
    party = evaluator.party_at(now.snapshot, address)
    return details.AddressDetail(
        address=address,
        owners=tuple(_owners(now, address)),
        endpoint=endpoint,
        identity=number,
        reserved=identity_detail.RESERVED.get(number, ("",))[0],
        prefix=prefix,
        found=found,
        services=tuple(_services(now, address)),
        selected_by=tuple(_selected_by(now, party)),
        peer_of=tuple(_peer_of(now, party, address)),
    )


def _found(now: reconciler.Enforcement, address: net.Address) -> tuple[str, str]:
    """Return what the identity was found by: the steps of a datapath (`desired`, step 3)."""
    if address in now.state.hosts:
        return str(net.host_network(address)), "the address itself: a pod's"
    covering = (one for one in now.state.cidrs if one.version == address.version and address in one)
    longest = max(covering, key=lambda one: one.prefixlen, default=None)
    if longest is not None:
        return str(longest), "the longest prefix that a policy names"
    return "", f"nothing: no pod has it and no policy names a prefix of it, so it is the world ({identity.WORLD})"


def _owners(now: reconciler.Enforcement, address: net.Address) -> Iterator[resources.ObjectRef]:
    seen = set()
    for pod in now.snapshot.pods.values():
        if address in pod.addresses and not pod.finished:
            seen.add((pod.namespace, pod.name))
            yield resources.ObjectRef("Pod", pod.namespace, pod.name)
    for endpoint in now.state.endpoints.values():  # the node knows of addresses before the cluster does
        if address in endpoint.addresses and (endpoint.namespace, endpoint.pod) not in seen:
            yield resources.ObjectRef("Pod", endpoint.namespace, endpoint.pod)
    yield from _others(now, address)


def _others(now: reconciler.Enforcement, address: net.Address) -> Iterator[resources.ObjectRef]:
    for node in now.snapshot.nodes.values():
        if address in node.addresses:
            yield resources.ObjectRef("Node", "", node.name)
    for host in now.snapshot.hosts.values():
        if address in host.addresses:
            yield resources.ObjectRef("Host", "", host.name)
    for service in now.snapshot.services.values():
        if address in (*service.cluster_addresses, *service.external_addresses):
            yield resources.ObjectRef("Service", service.namespace, service.name)


def _services(now: reconciler.Enforcement, address: net.Address) -> Iterator[details.ServicePoint]:
    on_node = any(address in node.addresses for node in now.snapshot.nodes.values())
    for service in now.snapshot.services.values():
        ref = resources.ObjectRef("Service", service.namespace, service.name)
        own = address in (*service.cluster_addresses, *service.external_addresses)
        for port in service.ports:
            if own:
                yield details.ServicePoint(port=port.port, protocol=port.protocol.name, service=ref)
            if on_node and port.node_port is not None:
                yield details.ServicePoint(port=port.node_port, protocol=port.protocol.name, service=ref)


def _selected_by(now: reconciler.Enforcement, party: evaluator.Party) -> Iterator[details.PolicyMatch]:
    """Yield the policies whose subject it is; only pods with an identity are (rules A26, A27)."""
    if not isinstance(party, resources.Pod) or not party.has_identity:
        return
    for policy in now.snapshot.policies.values():
        if matching.selects(now.snapshot, policy, party):
            yield details.PolicyMatch(policy=policy.ref, path=SUBJECTS[policy.kind], because=words.subject(policy))


def _peer_of(
    now: reconciler.Enforcement, party: evaluator.Party, address: net.Address
) -> Iterator[details.PolicyMatch]:
    for policy in now.snapshot.policies.values():
        for direction in net.Direction:
            for index, rule in enumerate(policy.counting(direction)):
                path = f"spec.{direction.name.lower()}[{index}].{TOWARDS[direction]}"
                if rule.peers is None:
                    because = f"it is not given: {words.EVERYBODY} (A5)"
                    yield details.PolicyMatch(policy=policy.ref, path=path, because=because)
                for peer in rule.peers or ():
                    finding = matching.match_peer(
                        now.snapshot, peer, policy_namespace=policy.namespace, party=party, address=address
                    )
                    if finding.matches:
                        because = f"{words.peer_text(peer, policy.namespace)}: {finding.because}"
                        yield details.PolicyMatch(policy=policy.ref, path=path, because=because)
