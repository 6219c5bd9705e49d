"""Who else answers: alone on a socket, every node of the cluster on a port."""

from __future__ import annotations

import ipaddress

from agent import snapshot
from agent.api.peer import peer_pb2 as pb
from agent.hubble import peers
from agent.model import resources

N1 = resources.Node(name="n1", addresses=(ipaddress.ip_address("192.168.0.1"),))
N2 = resources.Node(
    name="n2.example.com", addresses=(ipaddress.ip_address("fd00::2"), ipaddress.ip_address("10.0.0.1"))
)
BARE = resources.Node(name="n3")


def of(*nodes: resources.Node) -> dict[str, pb.ChangeNotification]:
    return dict(peers.peers(snapshot.build(nodes), 4244))


def told(before: dict[str, pb.ChangeNotification], now: dict[str, pb.ChangeNotification]) -> set[tuple[str, str, str]]:
    return {
        (pb.ChangeNotificationType.Name(change.type), change.name, change.address)
        for change in peers.changes(before, now)
    }


def test_every_node_with_an_address_is_a_peer_with_the_name_its_certificate_is_for() -> None:
    found = of(N1, N2, BARE)
    assert {name: (peer.address, peer.tls.server_name) for name, peer in found.items()} == {
        "n1": ("192.168.0.1:4244", "n1.default.hubble-grpc.cilium.io"),
        "n2.example.com": ("[fd00::2]:4244", "n2-example-com.default.hubble-grpc.cilium.io"),
    }


def test_changes_are_told_and_nothing_else() -> None:
    moved = resources.Node(name="n1", addresses=(ipaddress.ip_address("192.168.0.9"),))
    assert told({}, of(N1)) == {("PEER_ADDED", "n1", "192.168.0.1:4244")}
    assert told(of(N1, N2), of(moved)) == {
        ("PEER_UPDATED", "n1", "192.168.0.9:4244"),
        ("PEER_DELETED", "n2.example.com", "[fd00::2]:4244"),
    }
    assert told(of(N1, N2), of(N1, N2)) == set()
