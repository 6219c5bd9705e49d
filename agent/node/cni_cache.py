"""The CNI result cache: what the container runtime wrote down when it gave a pod its network.

libcni writes `NETWORK-CONTAINER-IFNAME` at the end of ADD, seconds before the pod's first instruction, and deletes it
first thing in DEL. It is the one place that joins pod, network namespace, addresses and host interfaces, and it does
so before the API server knows the pod's address. Decoding is pure; a file that cannot be used is a Problem, never an
exception: one bad file must not hide the other pods of the node.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import pathlib

import msgspec

from agent.model import net, resources

KIND = "cniCacheV1"
LOOPBACK = "lo"
"""Runtimes add every pod to a loopback network first: that file says whose namespace it is, long before addresses."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """One interface of one pod, as CNI reported it."""

    namespace: str
    pod: str
    uid: str
    """"" where the runtime does not tell it."""
    container: str
    """The sandbox's id at the runtime; "" where it is not told."""
    interface: str
    """Inside the pod: `eth0`, or `lo`."""
    netns: pathlib.Path
    host_interfaces: tuple[str, ...]
    """In the node's network namespace: the veth, with the bridge CNI the bridge too."""
    addresses: tuple[net.Address, ...]
    """None of a loopback: those are everybody's."""

    @property
    def is_loopback(self) -> bool:
        """Whether only the pod's identity is known from this."""
        return self.interface == LOOPBACK


class _Interface(msgspec.Struct):
    name: str
    sandbox: str = ""


class _Address(msgspec.Struct):
    address: str
    interface: int | None = None


class _Result(msgspec.Struct, rename="camel"):
    interfaces: list[_Interface] = []
    ips: list[_Address] = []


class _File(msgspec.Struct, rename="camel"):
    kind: str
    if_name: str
    container_id: str = ""
    netns: str = ""
    cni_args: list[tuple[str, str]] | None = None
    result: _Result | None = None


def decode(content: bytes, *, name: str) -> Attachment | resources.Problem | None:
    """Decode the cache file called `name`; None for what is no pod's interface (other users of CNI)."""
    try:
        file = msgspec.json.decode(content, type=_File)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:  # the last: too deep to be passed over
        return _problem(name, "", f"not a CNI cache file: {error}; its pod is unknown to the agent")
    if file.kind != KIND:
        return _problem(name, "kind", f"{file.kind!r} is not known; its pod is unknown to the agent")
    arguments = dict(file.cni_args or ())
    namespace, pod = arguments.get("K8S_POD_NAMESPACE", ""), arguments.get("K8S_POD_NAME", "")
    if not namespace or not pod:
        return None
    loopback = file.if_name == LOOPBACK
    netns = file.netns or _sandbox(file)
    if not netns.startswith("/") or file.result is None:
        reason = "neither network namespace nor result; the pod is unknown to the agent"
        return None if loopback else _problem(name, "netns", reason)  # a pod has one more file than its loopback's
    try:
        addresses = () if loopback else _addresses(file.result)
    except ValueError as error:
        return _problem(name, "result.ips", f"{error}; the pod is unknown to the agent")
    return Attachment(
        namespace=namespace,
        pod=pod,
        uid=arguments.get("K8S_POD_UID", ""),
        container=file.container_id,
        interface=file.if_name,
        netns=pathlib.Path(netns),
        host_interfaces=tuple(one.name for one in file.result.interfaces if not one.sandbox),
        addresses=addresses,
    )


def _sandbox(file: _File) -> str:
    """Return the namespace of the pod's interface as the plugin tells it; containerd 1.6 writes it nowhere else."""
    interfaces = file.result.interfaces if file.result is not None else []
    return next((one.sandbox for one in interfaces if one.sandbox and one.name == file.if_name), "")


def _addresses(result: _Result) -> tuple[net.Address, ...]:
    """Return the pod's addresses: those of interfaces in a sandbox, and those that name no interface."""
    inside = {number for number, interface in enumerate(result.interfaces) if interface.sandbox}
    found = (ipaddress.ip_interface(one.address).ip for one in result.ips if one.interface in {None, *inside})
    return tuple(dict.fromkeys(net.normalize(address) for address in found))


def _problem(name: str, path: str, reason: str) -> resources.Problem:
    return resources.Problem(ref=resources.ObjectRef("CNIResult", "", name), path=path, reason=reason)
