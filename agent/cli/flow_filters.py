"""The filter flags of `observe`, named as those of Hubble's command line, and the request they make.

`--pod` and its like mean either end: they become two filters, one with every such flag at the source, one with every
one at the destination. `--not` turns the next flag into one of the deny list. click keeps the values of one flag
together and forgets their order among others, so `--not --pod x` is rewritten to `--not-pod x` before it looks.
"""

from __future__ import annotations

import datetime as dt
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from agent import errors
from agent.api.flow import flow_pb2
from agent.api.observer import observer_pb2 as pb

ENDS = {
    "pod": "Flows of a pod: [NAMESPACE/]PREFIX; without a namespace it is default.",
    "namespace": "Flows of pods of a namespace.",
    "label": "Flows of what a label selector selects: app=web, reserved:world.",
    "ip": "Flows of an address or a prefix.",
    "port": "Flows with a port.",
    "identity": "Flows of an identity, by number or reserved name.",
    "fqdn": "Flows of a name; * stands for any characters.",
    "service": "Flows of a Service: [NAMESPACE/]PREFIX.",
}
"""Flags that exist as --X (either end), --from-X and --to-X."""
SINGLE = {
    "verdict": "FORWARDED, DROPPED, AUDIT or ERROR.",
    "protocol": "tcp, udp, sctp, icmp, icmpv4 or icmpv6.",
    "type": "policy-verdict or drop.",
    "node-name": "Flows a node reported; * stands for any characters.",
    "traffic-direction": "ingress or egress, seen from the pod that was judged.",
    "dns-query": "Flows of a DNS query in whose name a regular expression (RE2) has a match.",
    "drop-reason-desc": "Why it was dropped, such as POLICY_DENIED.",
    "uuid": "The flow of that number.",
}
SHORT = {"-n": "namespace", "-l": "label", "-t": "type"}
TYPES = {"drop": 1, "trace": 4, "policy-verdict": 5, "trace-sock": 7, "l7": 129}
IDENTITIES = {"host": 1, "world": 2, "unmanaged": 3, "health": 4, "init": 5, "remote-node": 6, "kube-apiserver": 7}
DEFAULT_LAST = 20
UNITS_NS = {"ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}
DURATION = re.compile(r"(?:\d{1,9}(?:ms|s|m|h|d))+", re.ASCII)
SECOND_NS = 10**9
Values = Mapping[str, Sequence[str]]


class Negatable(click.Command):
    """A command whose filter flags may each have `--not` before them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Rewrite `--not --pod` to `--not-pod`; raises UsageError where nothing follows that can be reversed."""
        return super().parse_args(ctx, negated(args, frozenset(every_flag())))


def negated(arguments: Sequence[str], flags: frozenset[str]) -> list[str]:
    """Join each `--not` and the filter flag behind it."""
    rest, found = list(arguments), []
    while rest:
        word = rest.pop(0)
        if word != "--not":
            found.append(word)
            continue
        following = rest.pop(0) if rest else ""
        name, equals, value = following.partition("=")
        name = SHORT.get(name, name.removeprefix("--"))
        if name not in flags:
            raise click.UsageError(f"--not reverses the next filter, and {shlex.quote(following)} is none")
        found.append(f"--not-{name}{equals}{value}")
    return found


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command every filter flag; `request` makes sense of their values."""
    shorts = {name: short for short, name in SHORT.items()}
    for flag, text in reversed(every_flag().items()):
        names = [f"--{flag}", *([shorts[flag]] if flag in shorts else [])]
        command = click.option(*names, flag.replace("-", "_"), multiple=True, help=text)(command)
        command = click.option(f"--not-{flag}", f"not_{flag.replace('-', '_')}", multiple=True, hidden=True)(command)
    return click.option("--not", "not_", is_flag=True, help="Reverse the next filter.")(command)


def request(
    values: Values,
    *,
    last: int | None,
    first: int | None,
    everything: bool,
    follow: bool,
    since: str,
    until: str,
    now_ns: int,
) -> pb.GetFlowsRequest:
    """Return what to ask for; raises InvalidInput. `now_ns` (since 1970) is what durations count from."""
    if sum((last is not None, first is not None, everything)) > 1:
        raise errors.InvalidInput(field="--first", value=first, remedy="give one of --first, --last and --all")
    if first is not None and follow:
        raise errors.InvalidInput(field="--first", value=first, remedy="leave it out to follow")
    message = pb.GetFlowsRequest(
        follow=follow,
        first=first is not None,
        number=first or last or 0,
        whitelist=filters({name: given for name, given in values.items() if not name.startswith("not_")}),
        blacklist=filters({name[4:]: given for name, given in values.items() if name.startswith("not_")}),
    )
    for field, text in (("since", since), ("until", until)):
        if text:
            getattr(message, field).FromNanoseconds(moment(text, now_ns, field=f"--{field}"))
    return message


def filters(values: Values) -> list[flow_pb2.FlowFilter]:
    """Return the filters that flags of one list make: none, one, or one an end."""
    given = {name: tuple(several) for name, several in values.items() if several}
    for name in ENDS:
        beside = [side for side in ("from", "to") if f"{side}_{name}" in given]
        if name in given and beside:
            remedy = f"--{name} means either end already; leave out --{beside[0]}-{name}"
            raise errors.InvalidInput(field=f"--{name}", value=given[name][0], remedy=remedy)
    if not given:
        return []
    either = any(name in given for name in ENDS)
    return [_filter(given, either=side) for side in (("source", "destination") if either else ("",))]


def moment(text: str, now_ns: int, *, field: str) -> int:
    """Return a moment in nanoseconds since 1970: `5m`, `1h30m` ago, or a date and time, UTC unless it says."""
    if DURATION.fullmatch(text):
        parts = re.findall(r"(\d+)(ms|s|m|h|d)", text)
        return max(0, now_ns - sum(int(number) * UNITS_NS[unit] for number, unit in parts))
    try:
        found = dt.datetime.fromisoformat(text)
        found = found if found.tzinfo is not None else found.replace(tzinfo=dt.UTC)
        return max(0, round(found.timestamp() * 1000)) * 10**6
    except (ValueError, OverflowError) as error:
        remedy = "write how long ago (90s, 5m, 1h30m, 2d), or a moment (2026-11-21, 2026-11-21T14:16:42Z)"
        raise errors.InvalidInput(field=field, value=text, remedy=remedy) from error


def every_flag() -> dict[str, str]:
    """Return every filter flag, without its dashes, and its line of help."""
    ends: dict[str, str] = {}
    for name, text in ENDS.items():
        ends |= {name: text, f"from-{name}": f"As --{name}, who opened.", f"to-{name}": f"As --{name}, whom."}
    return ends | SINGLE


def _filter(given: Mapping[str, Sequence[str]], *, either: str) -> flow_pb2.FlowFilter:
    """Return a filter; flags that mean either end stand at `either`."""
    made = flow_pb2.FlowFilter()
    for side, prefix in (("source", "from_"), ("destination", "to_")):
        here = {name: given.get(f"{prefix}{name}", ()) for name in ENDS}
        if side == either:
            here = {name: (*found, *given.get(name, ())) for name, found in here.items()}
        getattr(made, f"{side}_pod").extend(_pods(here["namespace"], here["pod"]))
        for name in ("label", "ip", "port", "fqdn", "service"):
            getattr(made, f"{side}_{name}").extend(here[name])
        getattr(made, f"{side}_identity").extend(map(_identity, here["identity"]))
    made.verdict.extend(_member(flow_pb2.Verdict, text, "--verdict") for text in given.get("verdict", ()))
    made.protocol.extend(given.get("protocol", ()))
    made.node_name.extend(given.get("node_name", ()))
    made.uuid.extend(given.get("uuid", ()))
    made.dns_query.extend(given.get("dns_query", ()))
    for text in given.get("type", ()):
        if text not in TYPES:
            raise errors.InvalidInput(field="--type", value=text, remedy=f"write one of {', '.join(TYPES)}")
        made.event_type.append(flow_pb2.EventTypeFilter(type=TYPES[text]))
    directions = given.get("traffic_direction", ())
    made.traffic_direction.extend(
        _member(flow_pb2.TrafficDirection, text, "--traffic-direction") for text in directions
    )
    reasons = given.get("drop_reason_desc", ())
    made.drop_reason_desc.extend(_member(flow_pb2.DropReason, text, "--drop-reason-desc") for text in reasons)
    return made


def _pods(namespaces: Sequence[str], pods: Sequence[str]) -> list[str]:
    """Put namespaces and names of pods together: each bare name is meant in each namespace."""
    if not namespaces:
        return list(pods)
    if not pods:
        return [f"{namespace}/" for namespace in namespaces]
    found = []
    for pod in pods:
        own, slash, _ = pod.partition("/")
        if slash and own not in namespaces:
            raise errors.InvalidInput(field="--pod", value=pod, remedy=f"--namespace says {namespaces[0]}")
        found += [pod] if slash else [f"{namespace}/{pod}" for namespace in namespaces]
    return found


def _identity(text: str) -> int:
    if text in IDENTITIES:
        return IDENTITIES[text]
    if text.isascii() and text.isdigit() and int(text) < 2**32:
        return int(text)
    remedy = f"write a number, or one of {', '.join(IDENTITIES)}"
    raise errors.InvalidInput(field="--identity", value=text, remedy=remedy)


def _member(kind: Any, text: str, field: str) -> Any:
    """Return the number of an enum's member, named in capitals or not."""
    try:
        return kind.Value(text.upper())
    except ValueError as error:
        remedy = f"write one of {', '.join(name for name, number in kind.items() if number)}"
        raise errors.InvalidInput(field=field, value=text, remedy=remedy) from error
