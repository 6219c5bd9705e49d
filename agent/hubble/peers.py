"""peer.Peer: who answers for flows in this cluster. Relays ask it, and stay to hear of changes.

Each node's agent answers for its own node alone. Where it does so on this machine only, there is one peer. Where it
listens for other machines, every agent of the cluster is taken to listen on the same port of its node's address, with
a certificate for the name that Hubble's relay expects.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import grpc

from agent import snapshot as snapshot_
from agent.api.peer import peer_pb2 as pb
from agent.hubble import agent_events, records
from agent.model import net

NAME = "peer.Peer"
LOOK_S = 1.0
"""How late a change is told."""
DOMAIN = "hubble-grpc.cilium.io"


class PeerService:
    """Names the peers; `handlers` is what a server needs of it."""

    def __init__(self, node: agent_events.Node, *, name: str, local: str, port: int | None) -> None:
        """Answer for the node called `name`: on `local` (as gRPC writes it), and on `port` to other machines."""
        self._node, self._name = node, name
        self._alone = {name: pb.ChangeNotification(name=name, address=local, type=pb.PEER_ADDED)}
        self._port = port

    def handlers(self) -> grpc.GenericRpcHandler[Any, Any]:
        """Return the calls by name."""
        notify = grpc.unary_stream_rpc_method_handler(
            self.notify, pb.NotifyRequest.FromString, pb.ChangeNotification.SerializeToString
        )
        return grpc.method_handlers_generic_handler(NAME, {"Notify": notify})

    async def notify(self, _request: pb.NotifyRequest, _context: Any) -> AsyncIterator[pb.ChangeNotification]:
        """Tell of the peers there are, then of every change until the client goes."""
        told: Mapping[str, pb.ChangeNotification] = {}
        while True:
            now = self._peers()
            for change in changes(told, now):
                yield change
            told = now
            await asyncio.sleep(LOOK_S)

    def own(self) -> pb.ChangeNotification:
        """Return where this node is to be asked: by other machines, if they may; for others on its socket."""
        return self._peers()[self._name]

    def _peers(self) -> Mapping[str, pb.ChangeNotification]:
        enforcement = self._node.enforcement
        if self._port is None or enforcement is None:
            return self._alone
        return {**self._alone, **peers(enforcement.snapshot, self._port)}


def peers(snapshot: snapshot_.Snapshot, port: int) -> Mapping[str, pb.ChangeNotification]:
    """Return the peers of a cluster by name, as added ones: each node that has an address."""
    return {
        node.name: pb.ChangeNotification(
            name=node.name,
            address=target(node.addresses[0], port),
            type=pb.PEER_ADDED,
            tls=pb.TLS(server_name=server_name(node.name)),
        )
        for node in snapshot.nodes.values()
        if node.addresses
    }


def changes(
    before: Mapping[str, pb.ChangeNotification], now: Mapping[str, pb.ChangeNotification]
) -> Iterator[pb.ChangeNotification]:
    """Yield what makes `now` of `before`."""
    for name in before.keys() - now.keys():
        yield pb.ChangeNotification(name=name, address=before[name].address, type=pb.PEER_DELETED)
    for name, peer in now.items():
        if name not in before:
            yield peer
        elif peer != before[name]:
            updated = pb.ChangeNotification()
            updated.CopyFrom(peer)
            updated.type = pb.PEER_UPDATED
            yield updated


def target(address: net.Address, port: int) -> str:
    """Write an address and a port as gRPC does."""
    return f"[{address}]:{port}" if address.version == net.Family.IPV6.value else f"{address}:{port}"


def server_name(node: str) -> str:
    """Return the name that a node's certificate is for; dots in a node's name would make it several labels."""
    return f"{node.replace('.', '-')}.{records.CLUSTER}.{DOMAIN}"
