"""One packet through rendered rules and through those that were read back: where the two part.

The rule: rules of the chains that the packet enters are compared whole, in order, and sets by what decides about this
packet, so that a rule it would have met and a member it would have matched are named and others are not looked for.
Pure; who asks has the rules.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from agent import errors
from agent.datapath import judge, tracing
from agent.datapath.iptables import interpreter, prefix, ruleset
from agent.model import net, verdict

BUILTINS = {judge.Hook.FORWARD: "FORWARD", judge.Hook.LOCAL_IN: "INPUT"}
CLIENT_PORT = 40_000
"""Of the packet that is followed; no rule of ours asks for a client's port."""
NOT_THERE = "not there"
JUDGED = (ruleset.Table.MANGLE, ruleset.Table.FILTER, ruleset.Table.SECURITY)
WORDS = {
    prefix.Note.ALLOWED: "both sides allow it",
    prefix.Note.DENIED: "one side denies it",
    prefix.Note.REPLY_DENIED: "one side denies the answer",
    prefix.Note.UNJUDGED: "it came to the end unjudged",
}


def layer(
    rendered: interpreter.Model,
    read: interpreter.Model,
    rules: tuple[ruleset.Ruleset, ruleset.Ruleset],
    question: tracing.Question,
    compiled: tracing.Answer,
    *,
    named: bool = False,
) -> tracing.Layer | None:
    """Follow the flow's first packet through both; None where it comes by at no hook.

    `compiled` is the answer of the state the rules were rendered from, and is shown as such; `named`, whether a name
    allows the flow, which rules can only ask for.
    """
    if question.hook is None:
        return None
    builtin, packet = BUILTINS[question.hook], first_packet(question.flow, named=named)
    expected = _followed(rendered, builtin, packet)
    found = _followed(read, builtin, packet)
    return tracing.Layer(
        layer=verdict.Layer.PACKET,
        hook=question.hook.value,
        compiled=compiled,
        loaded=_answer(found, rules[1].family),
        differences=tuple(differences(rules[0], rules[1], expected, found, builtin)),
    )


def first_packet(flow: judge.Flow, *, named: bool = False) -> interpreter.Packet:
    """Return the packet that opens `flow`, as it comes out of conntrack; its interface is nobody's.

    `named`: its name allows it.
    """
    return interpreter.Packet(
        source=flow.client,
        destination=flow.server,
        protocol=flow.protocol,
        source_port=CLIENT_PORT,
        destination_port=flow.port,
        interface="",
        original_source=flow.client,
        reply_source=flow.server,
        named=named,
    )


def differences(
    rendered: ruleset.Ruleset,
    read: ruleset.Ruleset,
    expected: interpreter.Outcome | errors.InvalidAnswer,
    found: interpreter.Outcome | errors.InvalidAnswer,
    builtin: str,
) -> Iterator[tracing.Difference]:
    """Yield what differs on the packet's way: jumps, then chains in the order they were entered, then sets."""
    for table in read.chains:
        missing = [one for one in rendered.jumps.get(table, ()) if one not in read.jumps.get(table, ())]
        for jump in missing:
            if jump.builtin == builtin:
                where = f"{table.value} {builtin} (IPv{rendered.family.value})"
                yield tracing.Difference(table=where, row=f"-j {jump.chain}", expected="first rule", found=NOT_THERE)
    entered = dict.fromkeys(place for outcome in (expected, found) for place in _chains(outcome))
    for table, chain in entered:
        if table in read.chains:
            yield from _in_chain(table, chain, rendered, read)
    yield from _in_sets(expected, found)
    if isinstance(found, errors.InvalidAnswer):
        yield tracing.Difference(table=found.what, row="the packet's way", expected="can be followed", found=found.why)


def _in_chain(
    table: ruleset.Table, chain: str, rendered: ruleset.Ruleset, read: ruleset.Ruleset
) -> Iterator[tracing.Difference]:
    where = f"{table.value} {chain} (IPv{rendered.family.value})"
    wanted, there = rendered.chains.get(table, {}).get(chain), read.chains.get(table, {}).get(chain)
    if wanted is None or there is None:
        counts = [NOT_THERE if rules is None else f"{len(rules)} rules" for rules in (wanted, there)]
        yield tracing.Difference(table=where, row="the chain", expected=counts[0], found=counts[1])
        return
    left, right = ([" ".join(one.words) for one in rules] for rules in (wanted, there))
    matcher = difflib.SequenceMatcher(a=left, b=right, autojunk=False)
    for kind, first, last, begin, end in matcher.get_opcodes():
        if kind == "equal":
            continue
        for place in range(max(last - first, end - begin)):
            meant = left[first + place] if first + place < last else ""
            is_there = right[begin + place] if begin + place < end else ""
            yield tracing.Difference(
                table=where,
                row=f"rule {(first if meant else begin) + place + 1}",
                expected=meant or "no such rule",
                found=is_there or NOT_THERE,
            )


def _in_sets(
    expected: interpreter.Outcome | errors.InvalidAnswer, found: interpreter.Outcome | errors.InvalidAnswer
) -> Iterator[tracing.Difference]:
    if isinstance(expected, errors.InvalidAnswer) or isinstance(found, errors.InvalidAnswer):
        return
    there = {(one.name, one.directions): one for one in found.asked}
    for one in dict.fromkeys(expected.asked):
        other = there.get((one.name, one.directions))
        if other is not None and other != one:
            named = one.member or other.member
            yield tracing.Difference(
                table=f"set {one.name}",
                row=ruleset.describe(named) if named is not None else "",
                expected=_element(one),
                found=_element(other),
            )


def _followed(
    model: interpreter.Model, builtin: str, packet: interpreter.Packet
) -> interpreter.Outcome | errors.InvalidAnswer:
    try:
        return model.hook(builtin, packet, *JUDGED)
    except errors.InvalidAnswer as error:
        return error


def _chains(outcome: interpreter.Outcome | errors.InvalidAnswer) -> tuple[tuple[ruleset.Table, str], ...]:
    return () if isinstance(outcome, errors.InvalidAnswer) else outcome.chains


def _answer(outcome: interpreter.Outcome | errors.InvalidAnswer, family: net.Family) -> tracing.Answer:
    if isinstance(outcome, errors.InvalidAnswer):
        return tracing.Answer(allowed=False, reason="unread", why=str(outcome))
    notes = [WORDS[note] for note in outcome.notes if note in WORDS]
    why = notes[-1] if notes else ("no rule of ours stops it" if outcome.passed else "a rule drops it")
    reason, looked = "allowed" if outcome.passed else "denied", tuple(_looked(outcome, family))
    return tracing.Answer(allowed=outcome.passed, reason=reason, why=why, lookups=looked)


def _looked(outcome: interpreter.Outcome, family: net.Family) -> Iterator[tracing.Looked]:
    for passed in outcome.way:
        for one in passed.asked:
            yield tracing.Looked(
                table=f"set {one.name}",
                key=one.directions,
                entry=ruleset.describe(one.member) if one.member is not None else "",
                value=_element(one),
            )
        words = passed.rule.words
        place = next(index for index, word in enumerate(words) if word in {"-j", "-g"})
        yield tracing.Looked(
            table=f"{passed.table.value} {passed.chain} (IPv{family.value})",
            key="",
            entry=" ".join(words[:place]) or "every packet",
            value=" ".join(words[place:]),
        )


def _element(asked: interpreter.Asked) -> str:
    if asked.member is None:
        return "no member matches"
    return "a member" if asked.matches else "a hole (nomatch)"
