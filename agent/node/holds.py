"""Network namespaces that nobody has explained: which are held, for how long, and what is told of them.

A runtime binds a pod's namespace seconds before the pod's first instruction, and a CNI result explains it some time in
between. Until then it is held: an endpoint known by its cookie alone, from which nothing goes out (rule A45; whether
it is, is `endpoint.HoldMode`'s business). When it is explained, the pod's own policy replaces the hold.

Not every namespace is ever explained, and one that is no pod's must not be cut off for good. So:

1. Only a namespace that appeared after the agent began to look is held. What was there before and is not explained is
   a leftover, or a pod in the middle of CNI ADD: libcni writes the result before ADD ends, ADD ends before anything
   runs, so that one is explained in time like every other.
2. Only one that has a runtime's name (`namespaces`).
3. Only for `HOLD_LIMIT_S`, after which it passes and a Problem says so for as long as it is there. By the order of
   things in 1 this widens nothing for pods: one that is explained later is under its policy before it runs.
4. A namespace that was explained once is that pod's until it is gone, whatever the cache says: CNI DEL removes the
   result first and the namespace later. It stays under its pod's policy by its cookie (rule A49), but has no address
   and no interface any more, as those may be another pod's by now.

Pure: what is known of each name goes in and comes out as a value, time is a number. It must not know what is enforced.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from agent.model import endpoint, resources

UNKNOWN_COOKIE = 0
"""Never a namespace's: the kernel does not tell it."""
HOLD_LIMIT_S = 120.0
"""As long as kubelet waits for a runtime's answer (runtimeRequestTimeout): by then a sandbox stands or is given up."""
BIND_LIMIT_S = 2.0
"""A name becomes a namespace within milliseconds, 162 at worst in a burst; one that does not is a leftover."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one reading of the node says of network namespaces, by name."""

    present: Mapping[str, int | None] = dataclasses.field(default_factory=dict)
    """Name -> cookie; 0: the kernel does not tell it, None: nothing is bound there."""
    explained: Mapping[str, endpoint.Sandbox] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What is known of one name."""

    since_ns: int
    """Since when it is not explained, or when it was last seen explained; nanoseconds of the monotonic clock."""
    appeared: bool
    """False: it was there at the first look."""
    sandbox: endpoint.Sandbox | None = None
    """What explained it last."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What is known of every name that is there; empty before the first look."""

    begun: bool = False
    sightings: Mapping[str, Sighting] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """The ledger after a look, and what follows from it beside the sandboxes that are explained."""

    ledger: Ledger
    sandboxes: tuple[endpoint.Sandbox, ...] = ()
    problems: tuple[resources.Problem, ...] = ()
    unbound: bool = False
    """Whether a name may become a namespace any moment, of which nothing tells."""
    due_ns: int | None = None
    """When time alone changes the outcome; None: never."""


def follow(ledger: Ledger, look: Look, *, now_ns: int) -> Followed:
    """Bring the ledger up to date with a look at `now_ns`."""
    sightings = {name: _sighting(ledger, look, name, now_ns) for name in look.present}
    after = Ledger(begun=True, sightings=sightings)
    sandboxes, problems, due, unbound = [], [], [], False
    for name, sighting in sorted(sightings.items()):
        cookie = look.present[name]
        limit_ns = sighting.since_ns + int(HOLD_LIMIT_S * 1e9)
        late = now_ns >= limit_ns
        if name in look.explained or cookie == UNKNOWN_COOKIE:
            continue
        if cookie is None:
            unbound = unbound or _may_be_bound(sighting, now_ns)
            continue
        if sighting.sandbox is not None:
            sandboxes.append(_taken_down(sighting.sandbox))
            problems += [_abandoned(sighting.sandbox, name)] if late else []
        elif sighting.appeared and not late:
            sandboxes.append(_unknown(name, cookie))
        elif sighting.appeared:
            problems.append(_unexplained(name))
        due += [limit_ns] if (sighting.sandbox or sighting.appeared) and not late else []
    return Followed(
        ledger=after,
        sandboxes=tuple(sandboxes),
        problems=tuple(problems),
        unbound=unbound,
        due_ns=min(due, default=None),
    )


def _sighting(ledger: Ledger, look: Look, name: str, now_ns: int) -> Sighting:
    """Return what is known of a name from now on."""
    before = ledger.sightings.get(name)
    known, cookie = look.explained.get(name), look.present[name]
    if known is not None:
        return Sighting(since_ns=now_ns, appeared=before is None or before.appeared, sandbox=known)
    if before is None:
        return Sighting(since_ns=now_ns, appeared=ledger.begun)
    if before.sandbox is not None and before.sandbox.netns_cookie != cookie:
        return Sighting(since_ns=now_ns, appeared=True)  # another namespace, or none yet, in the pod's place
    return before


def _may_be_bound(sighting: Sighting, now_ns: int) -> bool:
    return sighting.appeared and now_ns < sighting.since_ns + int(BIND_LIMIT_S * 1e9)


def _unknown(name: str, cookie: int) -> endpoint.Sandbox:
    return endpoint.Sandbox(
        namespace="", pod=name, uid="", netns_cookie=cookie, veth_ifindex=0, ingress_ifindex=0, attached=False
    )


def _taken_down(sandbox: endpoint.Sandbox) -> endpoint.Sandbox:
    return dataclasses.replace(sandbox, veth_ifindex=0, ingress_ifindex=0, addresses=(), attached=False)


def _unexplained(name: str) -> resources.Problem:
    reason = (
        f"has a container runtime's name, and in {HOLD_LIMIT_S:.0f} s neither the CNI result cache nor the runtime has "
        "said whose it is; it is not held any longer, and no policy is enforced on it; if a pod is in it, see "
        "--cni-results and --cri-socket"
    )
    return resources.Problem(ref=resources.ObjectRef("NetworkNamespace", "", name), path="", reason=reason)


def _abandoned(sandbox: endpoint.Sandbox, name: str) -> resources.Problem:
    ref = resources.ObjectRef("Pod", sandbox.namespace, sandbox.pod)
    reason = (
        f"its CNI result is gone for {HOLD_LIMIT_S:.0f} s and its network namespace {name} is not: what its processes "
        "send stays under its policy, but its addresses are not known any more; delete the pod"
    )
    return resources.Problem(ref=ref, path="", reason=reason)
