"""A recording of verdicts, line by line: what `agentctl observe -o json` and `hubble observe -o json` print.

A line is Hubble's GetFlowsResponse in protobuf's JSON, or a bare flow, as older versions print it. Whoever wrote the
file may be hostile: a line's length is bounded, what is wrong in it is an error that names the line, and what pods may
write themselves (labels) is kept apart from what was derived (namespace, identity, reserved words).

Flows that are no verdict of a policy on a direction (traces, translations, requests inside a connection) are counted
and passed over, and so is what nodes say about themselves; verdicts that were lost are counted.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from typing import IO, Any, TypeAlias

from agent import errors
from agent.flows import fields, workloads
from agent.model import labels as labels_
from agent.model import net, resources
from agent.model import verdict as verdict_

LINE_BYTES_MOST = 256 * 1024
SHOWN_MOST = 60
"""Characters of a malformed line that its error repeats."""
NUMBER_MOST = 2**64 - 1
EVENT_MOST = 2**31 - 1
COUNT_MOST = 2**32 - 1
VERDICTS = {
    "FORWARDED": 1,
    "DROPPED": 2,
    "ERROR": 3,
    "AUDIT": 4,
    "REDIRECTED": 5,
    "TRACED": 6,
    "TRANSLATED": 7,
}
REDIRECTED = VERDICTS["REDIRECTED"]
"""Allowed, by way of a proxy."""
DIRECTIONS = {"INGRESS": 1, "EGRESS": 2}
TRANSPORTS = {
    "TCP": net.Protocol.TCP,
    "UDP": net.Protocol.UDP,
    "SCTP": net.Protocol.SCTP,
    "ICMPv4": net.Protocol.ICMP,
    "ICMPv6": net.Protocol.ICMPV6,
}
DROP_REASONS = {
    "INVALID_SOURCE_IP": 132,
    "POLICY_DENIED": 133,
    "INVALID_PACKET_DROPPED": 134,
    "NO_CONFIGURATION_AVAILABLE_TO_PERFORM_POLICY_DECISION": 165,
    "POLICY_DENY": 181,
    "DROP_EP_NOT_READY": 203,
}
REASONS = {
    132: verdict_.Reason.SOURCE_SPOOFED,
    133: verdict_.Reason.POLICY_DENIED,
    134: verdict_.Reason.MALFORMED,
    165: verdict_.Reason.UNJUDGED,
    181: verdict_.Reason.POLICY_DENY,
    203: verdict_.Reason.ENDPOINT_HELD,
}
SUMMARIES = {one.name.lower().replace("_", " "): one for one in verdict_.Reason}
"""How a summary of this agent begins; it tells apart what Hubble has one number for."""
L7 = 2
FLOW_TYPES = {"L3_L4": 1, "L7": L7, "SOCK": 3}
RESPONSES = frozenset({"flow", "lost_events", "node_status", "agent_event", "debug_event"})
RULE_LABEL = "nodewall:rule="


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One end of a recorded flow; every text is hostile, escape it to print."""

    address: net.Address
    port: int = 0
    """0 where the protocol has none, or it was not known."""
    identity: int = 0
    namespace: str = ""
    pod: str = ""
    """Empty where the address is no pod's."""
    labels: labels_.Labels = labels_.NO_LABELS
    """The pod's own, and nothing derived."""
    reserved: frozenset[str] = frozenset()
    """Derived words: world, host, remote-node, unmanaged and such."""
    workload: str = ""
    """What the pod belongs to, as far as the record or its labels tell; else the pod's own name."""
    names: tuple[str, ...] = ()
    """Names of an address that is no pod's: of a machine, or those DNS gave."""
    service: resources.ObjectRef | None = None
    """The Service whose address this is."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One recorded verdict on one flow in one direction."""

    time_ns: int
    """Wall clock, nanoseconds since 1970."""
    node: str
    verdict: verdict_.Verdict
    direction: net.Direction
    protocol: int
    """IANA number; 0 where the record does not say."""
    source: End
    destination: End
    policies: tuple[resources.ObjectRef, ...] = ()
    """The policy that decided, or those that isolate where nothing allowed the flow."""
    rule: verdict_.RuleRef | None = None
    """The rule that decided, where the record names it."""
    reason: verdict_.Reason | None = None
    """None: a reason that this agent does not give."""
    drop_reason: int = 0
    """Hubble's number; 0 where nothing was dropped."""
    event_type: tuple[int, int] = (0, 0)
    """Hubble's numbers of the kind of event: 5 a policy's verdict, 1 another drop; and which of them."""
    socket: bool = False
    """Judged at connect() or sendmsg(), before there was a packet."""
    reply: bool = False
    uuid: str = ""
    summary: str = ""
    repeats: int = 0
    """Verdicts of its kind before it that were kept back: of its endpoint, peer's identity, port and verdict."""
    query: str = ""
    """The name that DNS was asked for and must not be: then it says nothing of who may talk to the resolver."""

    @property
    def stands_for(self) -> int:
        """How many verdicts it tells of, itself among them."""
        return 1 + self.repeats


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Verdicts that are not in the recording though they were given."""

    count: int
    node: str


Item: TypeAlias = Record | Lost


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """A line that holds something: what it tells, and the document itself, whole."""

    item: Item
    document: dict[str, Any]


class Reader:
    """The items of a recording in its order, and what was passed over so far; iterate over it once."""

    def __init__(self, lines: Iterable[bytes], *, skip_malformed: bool = False) -> None:
        """Read nothing yet. With `skip_malformed` a line that cannot be read is counted, not an error."""
        self._lines = lines
        self._skip = skip_malformed
        self.malformed = 0
        """Lines that could not be read."""
        self.lost = 0
        """Verdicts that the recording says it lacks."""
        self.others = 0
        """Lines that hold no verdict of a policy."""

    def __iter__(self) -> Iterator[Line]:
        """Yield verdicts and losses; raises InvalidInput, naming the line, where one is malformed."""
        for number, raw in enumerate(self._lines, start=1):
            if not raw.strip():
                continue
            try:
                document = parsed(raw)
                item = item_of(document)
            except fields.Malformed as error:
                if not self._skip:
                    raise _refused(number, raw, error) from error
                self.malformed += 1
                continue
            if item is None:
                self.others += 1
                continue
            if isinstance(item, Lost):
                self.lost += item.count
            yield Line(item, document)

    def records(self) -> Iterator[Record]:
        """Yield the verdicts alone; raises as iterating does."""
        return (line.item for line in self if isinstance(line.item, Record))


def bounded(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file, of one that is too long its beginning alone: it is refused, and fills no memory."""
    while raw := stream.readline(LINE_BYTES_MOST + 1):
        yield raw
        if len(raw) > LINE_BYTES_MOST and not raw.endswith(b"\n"):
            while (rest := stream.readline(LINE_BYTES_MOST)) and not rest.endswith(b"\n"):
                pass


def read(lines: Iterable[bytes]) -> Iterator[Record]:
    """Yield the verdicts of a recording; raises InvalidInput, naming the line, where one is malformed."""
    return Reader(lines).records()


def parsed(raw: bytes) -> dict[str, Any]:
    """Return the JSON object of a line; raises Malformed."""
    if len(raw) > LINE_BYTES_MOST:
        raise fields.Malformed(f"the line is longer than {LINE_BYTES_MOST} bytes")
    try:
        document = json.loads(raw)
    except RecursionError as error:
        raise fields.Malformed("the line is nested too deeply") from error
    except ValueError as error:  # UnicodeDecodeError and numbers of too many digits among them
        raise fields.Malformed("the line is no JSON") from error
    if not isinstance(document, dict):
        raise fields.Malformed(f"the line is {fields.kind(document)}, not an object")
    return document


def item_of(document: object) -> Item | None:
    """Return what a response tells; None where it is no verdict of a policy. Raises Malformed."""
    response = fields.Object(document, "")
    if "lost_events" in response:
        lost = response.object("lost_events")
        return Lost(count=lost.number("num_events_lost", most=NUMBER_MOST), node=response.text("node_name"))
    if "flow" in response:
        return _record(response.object("flow"), node=response.text("node_name"))
    if any(name in response for name in RESPONSES):
        return None
    if "verdict" in response or "IP" in response:
        return _record(response, node="")
    raise fields.Malformed("the line has no flow, which a GetFlowsResponse of Hubble has")


def _record(flow: fields.Object, *, node: str) -> Record | None:
    number = flow.member("verdict", VERDICTS)
    judged = _member(verdict_.Verdict, verdict_.Verdict.FORWARDED.value if number == REDIRECTED else number)
    direction = _member(net.Direction, flow.member("traffic_direction", DIRECTIONS))
    addresses = flow.object("IP")
    source, destination = addresses.address("source"), addresses.address("destination")
    if judged is None or direction is None or source is None or destination is None:
        return None
    query = flow.object("l7").object("dns").text("query")
    if flow.member("Type", FLOW_TYPES) == L7 and (not query or judged is verdict_.Verdict.FORWARDED):
        return None
    protocol, ports = _transport(flow.object("l4"))
    policies, rule = _attribution(flow, judged, direction)
    dropped = flow.member("drop_reason_desc" if "drop_reason_desc" in flow else "drop_reason", DROP_REASONS)
    kind = flow.object("event_type")
    return Record(
        time_ns=flow.time_ns("time"),
        node=flow.text("node_name") or node,
        verdict=judged,
        direction=direction,
        protocol=protocol,
        source=_end(flow, "source", source, ports[0]),
        destination=_end(flow, "destination", destination, ports[1]),
        policies=policies,
        rule=rule,
        reason=_reason(flow, judged, dropped, ruled=rule is not None or bool(policies)),
        drop_reason=max(dropped, 0),
        event_type=(kind.number("type", most=EVENT_MOST), kind.number("sub_type", most=EVENT_MOST)),
        socket=flow.member("Type", FLOW_TYPES) == FLOW_TYPES["SOCK"],
        reply=flow.truth("is_reply"),
        uuid=flow.text("uuid"),
        summary=flow.text("Summary"),
        query=query,
        repeats=max(flow.object("aggregate").number(f"{direction.name.lower()}_flow_count", most=COUNT_MOST) - 1, 0),
    )


def _member(of: Any, number: int) -> Any:
    """Return the member of an enum that has this number, or None."""
    return next((one for one in of if one.value == number), None)


def _transport(layer: fields.Object) -> tuple[int, tuple[int, int]]:
    for name, protocol in TRANSPORTS.items():
        if name in layer:
            ends = layer.object(name)
            ports = (ends.number(f"{side}_port", most=net.PORT_MAX) for side in ("source", "destination"))
            return protocol.value, (next(ports), next(ports))
    return 0, (0, 0)


def _end(flow: fields.Object, side: str, address: net.Address, port: int) -> End:
    end = flow.object(side)
    own, reserved = _labels(end.texts("labels"))
    pod = end.text("pod_name")
    given = next((one.text("name") for one in end.objects("workloads")), "")
    service = flow.object(f"{side}_service")
    named = resources.ObjectRef("Service", service.text("namespace"), service.text("name"))
    return End(
        address=address,
        port=port,
        identity=end.number("identity", most=2**32 - 1),
        namespace=end.text("namespace"),
        pod=pod,
        labels=own,
        reserved=reserved,
        workload=given or workloads.name(pod, own),
        names=flow.texts(f"{side}_names"),
        service=named if named.name else None,
    )


def _labels(texts: Iterable[str]) -> tuple[labels_.Labels, frozenset[str]]:
    """Tell a pod's labels from what was derived: source:key=value, where the source of a pod's label is k8s."""
    own: dict[str, str] = {}
    reserved: set[str] = set()
    for text in texts:
        source, colon, rest = text.partition(":")
        if source == "reserved" and colon:
            reserved.add(rest)
        elif source == "k8s" and colon:
            key, _, value = rest.partition("=")
            if not workloads.derived(key):
                own[key] = value
    return labels_.Labels(own), frozenset(reserved)


def _attribution(
    flow: fields.Object, judged: verdict_.Verdict, direction: net.Direction
) -> tuple[tuple[resources.ObjectRef, ...], verdict_.RuleRef | None]:
    """Return the policies of this verdict in its own direction; the other direction's say nothing of it."""
    outcome = "allowed" if judged is verdict_.Verdict.FORWARDED else "denied"
    policies: list[resources.ObjectRef] = []
    rule: verdict_.RuleRef | None = None
    for policy in flow.objects(f"{direction.name.lower()}_{outcome}_by"):
        ref = resources.ObjectRef(policy.text("kind") or "NetworkPolicy", policy.text("namespace"), policy.text("name"))
        policies.append(ref)
        label = next((text for text in policy.texts("labels") if text.startswith(RULE_LABEL)), "")
        index = label.removeprefix(f"{RULE_LABEL}{direction.name.lower()}[").removesuffix("]")
        if rule is None and index.isascii() and index.isdigit() and len(index) <= len("4294967295"):
            rule = verdict_.RuleRef(ref, direction, int(index))
    return tuple(policies), rule


def _reason(flow: fields.Object, judged: verdict_.Verdict, dropped: int, *, ruled: bool) -> verdict_.Reason | None:
    said = SUMMARIES.get(flow.text("Summary").partition(";")[0])
    if said is not None:
        return said
    if judged is verdict_.Verdict.FORWARDED:
        return verdict_.Reason.RULE_ALLOWED if ruled else verdict_.Reason.NOT_ISOLATED
    return REASONS.get(dropped)


def _refused(number: int, raw: bytes, error: fields.Malformed) -> errors.InvalidInput:
    shown = raw[: 4 * SHOWN_MOST].decode(errors="backslashreplace").strip()
    shown = shown if len(shown) <= SHOWN_MOST else shown[:SHOWN_MOST] + "..."
    remedy = f"{error}; leave the line out, or pass over such lines with --skip-malformed"
    return errors.InvalidInput(field=f"line {number} of the flows", value=shown, remedy=remedy)
