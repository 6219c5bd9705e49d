"""What a node knows of its own pods, from the node itself and never from the API's podIP.

A sandbox is what the container runtime made: a network namespace, a veth, addresses. Rows belong to
the sandbox, not to the pod's UID: a re-created sandbox of one pod has another cookie.
"""

from __future__ import annotations

import dataclasses
import enum

from agent.model import audit as audit_
from agent.model import net


class HoldMode(enum.Enum):
    """What happens to pods and addresses that are not programmed yet (rule A45)."""

    AUTO = "auto"
    """Held in namespaces that have a policy, else pass."""
    STRICT = "strict"
    PERMISSIVE = "permissive"
    """What the cluster does not know passes; held is what may be a pod that it knows and a policy selects."""


class DenyMode(enum.Enum):
    """How a denial shows to the application."""

    REJECT = "reject"
    """connect() and sendmsg() fail at once with EACCES; the packet layer drops what the hooks do not see."""
    DROP = "drop"
    """Silence everywhere, as ClusterNetworkPolicy conformance demands: the hooks only report."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """A pod's network namespace on this node, as the CNI result cache and the kernel show it."""

    namespace: str
    """"" where nobody has said yet whose network namespace it is."""
    pod: str
    """Its network namespace's name where nobody has said yet whose it is."""
    uid: str
    netns_cookie: int
    """u64, SO_NETNS_COOKIE of the pod's network namespace; 0 where the kernel does not tell it."""
    veth_ifindex: int
    """The host side of the pod's veth, in the node's network namespace; 0 where unknown."""
    ingress_ifindex: int
    """The interface PRE_ROUTING sees: the veth, or the bridge it hangs on; 0 where unknown."""
    addresses: tuple[net.Address, ...] = ()
    attached: bool = True
    """False before CNI has said which addresses it has, and after CNI has taken them back."""

    @property
    def identified(self) -> bool:
        """Whether it is known whose it is."""
        return bool(self.namespace)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """Everything compile needs to know of the node it compiles for."""

    name: str
    sandboxes: tuple[Sandbox, ...] = ()
    deny_mode: DenyMode = DenyMode.REJECT
    hold_mode: HoldMode = HoldMode.AUTO
    audit: audit_.Audit = audit_.NOTHING
    learns_names: bool = False
    """Whether the datapath learns which addresses DNS gives a pod; else what is allowed by name is denied."""
    filters_queries: bool = False
    """Whether the datapath reads which names a pod asks for; else what restricts these (rule E17) is denied."""
