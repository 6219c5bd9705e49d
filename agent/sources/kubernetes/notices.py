"""Which problems of policies this node tells the cluster of, and when: what becomes an Event, decided without I/O.

A NetworkPolicy has no status, and that of other kinds is one for all nodes; an Event is where their authors look
(`kubectl describe`). The problem: every node of the cluster sees the same problems at the same time, problems last for
weeks, Events for an hour, and somebody may write policies in a loop. The rules:

- Two nodes tell of a policy: the next ones on a ring of the digests of all nodes (consistent hashing). All nodes know
  the same nodes, so no word between them is needed; two, for the first may run no agent; and not the nodes whose pods
  it selects, for a policy that is refused may select pods on every node, or on none. A node that is not in the list
  of nodes tells of everything.
- An Event's name is a digest of policy and problem, not of the node: where both tell, the server has one object, and
  the second only counts it up.
- A problem that lasts is told again each REPEAT_S, as the same Event with its count raised, so that it does not expire.
- One policy has a bucket of tokens, all together have one; what finds no token waits, and is told later if it is still
  a problem. What failed is tried again, later and later.
- At most REMEMBERED problems are minded; the rest is in `agentctl policy list`, in the log and counted there.

It must not know how an Event is sent.
"""

from __future__ import annotations

import bisect
import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Mapping

from agent.model import resources
from agent.sources.kubernetes import api

KINDS = frozenset(one.kind for one in api.POLICIES)
TELLERS = 2
REPEAT_S = 2400.0
"""Events are kept for an hour [kube-apiserver --event-ttl]."""
POLICY_TOKENS = 5.0
POLICY_EVERY_S = 300.0
"""A token for one policy comes back in this time."""
TOKENS = 20.0
EVERY_S = 2.0
RETRY_FIRST_S = 10.0
RETRY_MOST_S = 600.0
REMEMBERED = 1024
"""Problems minded at one time; and problems remembered that are gone, for one that comes and goes in a loop."""
MESSAGE_MAX = 1024
"""The API server takes no longer one."""
NAME_MAX = 253
_DIGEST_BYTES = 8


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """An Event to be."""

    policy: resources.ObjectRef
    uid: str
    """"" where the policy could not be read at all."""
    name: str
    message: str
    count: int
    """0: as far as this node knows nobody has told of it yet."""


@dataclasses.dataclass(slots=True, kw_only=True)
class _Told:
    """What became of one problem."""

    count: int = 0
    due_s: float = 0.0
    failures: int = 0


@dataclasses.dataclass(slots=True)
class _Bucket:
    """Tokens, which come back with time."""

    most: float
    every_s: float
    tokens: float
    filled_s: float

    def ready_s(self, now_s: float) -> float:
        """Return in how many seconds there is a token; 0: now."""
        self.tokens = min(self.most, self.tokens + max(0.0, now_s - self.filled_s) / self.every_s)
        self.filled_s = now_s
        return max(0.0, (1.0 - self.tokens) * self.every_s)


class Ring:
    """The nodes of the cluster by their digests; which of them tell of a policy."""

    def __init__(self, nodes: tuple[str, ...]) -> None:
        """Take the nodes, in any order."""
        self.nodes = nodes
        self._known = frozenset(nodes)
        points = sorted((_digest(node), node) for node in self._known)
        self._digests = [digest for digest, _ in points]
        self._owners = [node for _, node in points]

    def tells(self, node: str, policy: resources.ObjectRef) -> bool:
        """Tell whether it is this node's to tell of the policy."""
        if node not in self._known:
            return True
        place = bisect.bisect(self._digests, _digest(policy.kind, policy.namespace, policy.name))
        count = len(self._owners)
        return any(self._owners[(place + step) % count] == node for step in range(min(TELLERS, count)))


class Notices:
    """What is wrong, and what was told of it; times are seconds of a clock that only grows."""

    def __init__(self, *, node: str, now_s: float) -> None:
        """Start as a node that has told nothing."""
        self._node = node
        self._ring = Ring(())
        self._present: dict[str, Notice] = {}
        self._told: collections.OrderedDict[str, _Told] = collections.OrderedDict()
        self._bucket = _Bucket(TOKENS, EVERY_S, TOKENS, now_s)
        self._buckets: collections.OrderedDict[resources.ObjectRef, _Bucket] = collections.OrderedDict()

    @property
    def waiting(self) -> int:
        """How many problems there are that this node shall tell of and has not."""
        return sum(name not in self._told or not self._told[name].count for name in self._present)

    def see(
        self,
        problems: Iterable[resources.Problem],
        *,
        nodes: tuple[str, ...],
        uids: Mapping[resources.ObjectRef, str],
    ) -> None:
        """Take what is wrong now, in place of what was; `nodes` are the cluster's."""
        if nodes != self._ring.nodes:
            self._ring = Ring(nodes)
        present: dict[str, Notice] = {}
        for problem in problems:
            if len(present) >= REMEMBERED:
                break
            if problem.ref.kind in KINDS and self._ring.tells(self._node, problem.ref):
                uid = uids.get(problem.ref, "")
                name = name_of(problem, uid)
                present[name] = Notice(policy=problem.ref, uid=uid, name=name, message=message_of(problem), count=0)
        self._present = present

    def due(self, now_s: float) -> tuple[Notice | None, float]:
        """Return what to send now, if anything; else in how many seconds to ask again, at the latest."""
        wait_s = REPEAT_S
        common_s = self._bucket.ready_s(now_s)
        for name, notice in self._present.items():
            told = self._told.get(name) or _Told()
            this_s = max(told.due_s - now_s, common_s, self._of(notice.policy, now_s).ready_s(now_s))
            if this_s <= 0:
                return dataclasses.replace(notice, count=told.count), 0.0
            wait_s = min(wait_s, this_s)
        return None, wait_s

    def sent(self, notice: Notice, now_s: float, *, count: int) -> None:
        """Note that the Event is there, told `count` times by now."""
        self._spend(notice, now_s)
        self._note(notice, _Told(count=max(1, count), due_s=now_s + REPEAT_S))

    def failed(self, notice: Notice, now_s: float) -> None:
        """Note that it could not be sent."""
        self._spend(notice, now_s)
        told = self._told.get(notice.name) or _Told()
        delay_s = min(RETRY_MOST_S, RETRY_FIRST_S * 2.0 ** min(told.failures, 16))
        self._note(notice, _Told(count=told.count, due_s=now_s + delay_s, failures=told.failures + 1))

    def _note(self, notice: Notice, told: _Told) -> None:
        self._told[notice.name] = told
        self._told.move_to_end(notice.name)
        while len(self._told) > 2 * REMEMBERED:
            self._told.popitem(last=False)

    def _spend(self, notice: Notice, now_s: float) -> None:
        for bucket in (self._bucket, self._of(notice.policy, now_s)):
            bucket.ready_s(now_s)
            bucket.tokens -= 1.0

    def _of(self, policy: resources.ObjectRef, now_s: float) -> _Bucket:
        """Return the policy's bucket; those not asked for longest are forgotten, and so full again."""
        found = self._buckets.get(policy)
        if found is None:
            found = self._buckets[policy] = _Bucket(POLICY_TOKENS, POLICY_EVERY_S, POLICY_TOKENS, now_s)
            if len(self._buckets) > 2 * REMEMBERED:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(policy)
        return found


def name_of(problem: resources.Problem, uid: str) -> str:
    """Name the Event: the same on every node, another for another policy of the same name."""
    ref = problem.ref
    digest = _digest(ref.kind, ref.namespace, ref.name, uid, problem.path, problem.reason).hex()
    return f"{ref.name[: NAME_MAX - len(digest) - 1].rstrip('-.')}.{digest}"


def message_of(problem: resources.Problem) -> str:
    """Say where and why, in one printable line that the API server takes."""
    text = f"{problem.path}: {problem.reason}" if problem.path else problem.reason
    text = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
    encoded = text.encode(errors="replace")
    return text if len(encoded) <= MESSAGE_MAX else encoded[: MESSAGE_MAX - 3].decode(errors="ignore") + "..."


def _digest(*parts: str) -> bytes:
    text = "\0".join(parts).encode(errors="surrogatepass")
    return hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest()
