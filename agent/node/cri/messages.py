"""What is asked of a container runtime and what it answers: CRI v1 (runtime.v1.RuntimeService), pure.

Field numbers are those of k8s.io/cri-api. Where a sandbox's network namespace is, only the verbose answer says, in JSON
that each runtime words its own way; containerd and CRI-O both put the OCI specification there. An answer that cannot be
read raises InvalidAnswer: half an answer is none.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import pathlib

import msgspec

from agent import errors
from agent.model import net
from agent.node.cri import wire

SERVICE = "/runtime.v1.RuntimeService/"
LIST, STATUS = f"{SERVICE}ListPodSandbox", f"{SERVICE}PodSandboxStatus"
LIST_READY = wire.delimited(1, wire.delimited(2, b""))
"""ListPodSandboxRequest{filter{state{SANDBOX_READY}}}: that state is 0, which is not written."""
NETWORK_OF_NODE = 2
"""NamespaceMode.NODE."""
INFO = "info"
"""The key of the verbose answer."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A sandbox as a list names it."""

    id: str
    namespace: str
    pod: str
    uid: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What a runtime says of one sandbox."""

    sandbox: Listed
    host_network: bool
    netns: pathlib.Path | None
    """None where the runtime does not say."""
    host_interfaces: tuple[str, ...] = ()
    """In the node's network namespace, as far as the runtime says."""
    addresses: tuple[net.Address, ...] = ()


class _Namespace(msgspec.Struct):
    type: str
    path: str = ""


class _Linux(msgspec.Struct):
    namespaces: list[_Namespace] = []


class _Spec(msgspec.Struct):
    linux: _Linux | None = None


class _Interface(msgspec.Struct, rename="pascal"):
    sandbox: str = ""


class _Result(msgspec.Struct, rename="pascal"):
    interfaces: dict[str, _Interface] | None = None


class _Info(msgspec.Struct, rename="camel"):
    runtime_spec: _Spec | None = None
    cni_result: _Result | None = None


def status_request(sandbox: str) -> bytes:
    """Encode PodSandboxStatusRequest for a sandbox's id, verbose."""
    return wire.delimited(1, sandbox.encode()) + wire.number(2, 1)


def decode_list(answer: bytes) -> tuple[Listed, ...]:
    """Decode ListPodSandboxResponse; raises InvalidAnswer."""
    return tuple(map(_listed, wire.every(answer, 1)))


def decode_status(answer: bytes) -> Status:
    """Decode PodSandboxStatusResponse; raises InvalidAnswer."""
    status = wire.last(answer, 1)
    options = wire.last(wire.last(wire.last(status, 6), 1), 2)  # linux.namespaces.options
    network = wire.last(status, 5)
    texts = [wire.text(network, 1), *(wire.text(one, 1) for one in wire.every(network, 2))]
    info = _info({wire.text(entry, 1): wire.last(entry, 2) for entry in wire.every(answer, 2)}.get(INFO, b"{}"))
    interfaces = info.cni_result.interfaces if info.cni_result is not None else None
    return Status(
        sandbox=_listed(status),
        host_network=wire.last_number(options, 1) == NETWORK_OF_NODE,
        netns=_netns(info),
        host_interfaces=tuple(sorted(name for name, one in (interfaces or {}).items() if not one.sandbox)),
        addresses=tuple(dict.fromkeys(_address(text) for text in texts if text)),
    )


def _listed(message: bytes) -> Listed:
    """Read what PodSandbox and PodSandboxStatus have in common: id = 1, metadata = 2."""
    metadata = wire.last(message, 2)
    found = Listed(
        id=wire.text(message, 1),
        namespace=wire.text(metadata, 3),
        pod=wire.text(metadata, 1),
        uid=wire.text(metadata, 2),
    )
    if not (found.id and found.namespace and found.pod):
        raise errors.InvalidAnswer(what="sandbox", why=f"{found.id!r} has no id, or its pod has no name")
    return found


def _info(content: bytes) -> _Info:
    try:
        return msgspec.json.decode(content, type=_Info)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:  # the last: too deep to be passed over
        raise errors.InvalidAnswer(what="verbose status of a sandbox", why=str(error)) from error


def _netns(info: _Info) -> pathlib.Path | None:
    linux = info.runtime_spec.linux if info.runtime_spec is not None else None
    paths = [one.path for one in (linux.namespaces if linux is not None else []) if one.type == "network"]
    return next((pathlib.Path(path) for path in paths if path.startswith("/")), None)


def _address(text: str) -> net.Address:
    try:
        return net.normalize(ipaddress.ip_address(text))
    except ValueError as error:
        raise errors.InvalidAnswer(what="status of a sandbox", why=f"{text!r} is no address") from error
