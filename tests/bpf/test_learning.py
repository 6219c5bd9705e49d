"""The datapath learns by itself: at pods' veths, for the names of the state that counts and of the one to come."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import pathlib
from collections.abc import Callable

import pytest

from agent import desired, errors
from agent.datapath.bpf import datapath as datapath_
from agent.datapath.bpf import fqdn_answers, learner, tc
from agent.fqdn import classes, history, message
from agent.model import fqdn
from tests.bpf import by_name, conftest, states, traffic

pytestmark = pytest.mark.root

POD = states.endpoint_of(0)
OTHER_ZONE = "static.example.net"
STARRED, OTHER = f"*.{by_name.ZONE}", f"*.{OTHER_ZONE}"


def _resolves(rig: conftest.Rig, *names: str) -> None:
    assert rig.node.pods[0].run(by_name.resolves(rig.node.outside.address4, *names))


def _connects(rig: conftest.Rig) -> int:
    code: int = rig.node.pods[0].run(traffic.connects(rig.node.outside.address4, by_name.PORT))
    return code


def _patterns(rig: conftest.Rig, *several: classes.Classes) -> set[str]:
    """Return the patterns that the outside host's address was learned for."""
    contents = {number: content for each in several for number, content in each.contents.items()}
    learned = rig.datapath.known().addresses.get((POD, rig.node.outside.address4), ())
    return {pattern.text for one in learned for pattern in contents[one.class_number]}


def test_a_pod_resolves_a_name_and_connects_at_once(learning: conftest.Rig) -> None:
    """F15, F10: from the answer on, and not before; other names are answered, too, and open nothing."""
    names = by_name.build(STARRED)
    learning.datapath.apply(by_name.state(learning.node, names))
    assert _connects(learning) == errno.EACCES
    _resolves(learning, by_name.name_of(learning.node, OTHER_ZONE))
    assert _connects(learning) == errno.EACCES
    _resolves(learning, by_name.name_of(learning.node))
    assert _connects(learning) == 0
    assert _patterns(learning, names) == {STARRED}
    assert learning.datapath.known().used == {(POD, learning.node.outside.address4)}


def test_answers_of_others_than_the_state_s_resolvers_teach_nothing(learning: conftest.Rig) -> None:
    """F11."""
    state = by_name.state(learning.node, by_name.build(STARRED))
    learning.datapath.apply(dataclasses.replace(state, resolvers=frozenset()))
    _resolves(learning, by_name.name_of(learning.node))
    assert _connects(learning) == errno.EACCES
    assert learning.datapath.counters()["dns_untrusted"] > 0
    learning.datapath.apply(state)
    _resolves(learning, by_name.name_of(learning.node))
    assert _connects(learning) == 0


def test_a_policy_finds_what_was_resolved_before_it(learning: conftest.Rig) -> None:
    """F26: what the ring tells is history, and what history knows is learned before the policy counts."""
    learning.datapath.apply(by_name.state(learning.node, by_name.build()))
    with contextlib.closing(fqdn_answers.AnswerReader(learning.datapath.answers_path)) as ring:
        while ring.read():
            pass
        _resolves(learning, by_name.name_of(learning.node))
        (one,) = ring.read()
        assert ring.consumed == ring.written
    told = message.answered(one.message, endpoint=one.endpoint, at_ns=one.time_ns)
    assert told is not None
    past = history.History(history.Lifetimes())
    past.learn(told)
    names = by_name.build(STARRED)
    state = by_name.state(learning.node, names)
    new = learning.datapath.learn_names(state)
    assert new == set(names.contents)
    assert _connects(learning) == errno.EACCES
    assert learning.datapath.replay(history.replay(past.remembered(), names, now_ns=told.at_ns, new=new)) == 0
    learning.datapath.apply(state)
    assert _connects(learning) == 0
    assert learning.datapath.learn_names(state) == set(), "what has been learned for is not new"


def test_until_the_flip_names_of_both_policies_are_learned_and_then_the_new_alone(learning: conftest.Rig) -> None:
    """No answer falls between two policies, even where the second is never applied."""
    old, new = by_name.build(STARRED), by_name.build(OTHER)
    learning.datapath.apply(by_name.state(learning.node, old))
    learning.datapath.settle()
    learning.datapath.learn_names(by_name.state(learning.node, new))
    both = [by_name.name_of(learning.node, zone) for zone in (by_name.ZONE, OTHER_ZONE)]
    _resolves(learning, *both)
    assert _patterns(learning, old, new) == {STARRED, OTHER}
    assert _connects(learning) == 0
    learning.datapath.apply(by_name.state(learning.node, new))
    learning.datapath.settle()
    assert _connects(learning) == 0, "for the other name, which it was told before the flip"
    before = _expiries(learning, old)
    _resolves(learning, *both)
    assert _expiries(learning, old) == before, "nothing is learned for a name that no policy has"


def _expiries(rig: conftest.Rig, names: classes.Classes) -> set[int]:
    learned = rig.datapath.known().addresses[POD, rig.node.outside.address4]
    return {one.expires_ns for one in learned if one.class_number in names.contents}


def test_automata_take_turns_and_none_is_walked_while_it_is_written(learning: conftest.Rig) -> None:
    """F3: stars inside labels, over several changes; the last one has none."""
    prefixes = ("a", "a-", "a-2", "a-20")
    for prefix in prefixes:
        pattern = f"{prefix}*.{by_name.ZONE}"
        names = by_name.build(pattern)
        assert names.automaton.states
        learning.datapath.apply(by_name.state(learning.node, names))
        learning.datapath.settle()
        _forget(learning)
        _resolves(learning, by_name.name_of(learning.node))
        assert _patterns(learning, names) == {pattern}
    learning.datapath.apply(by_name.state(learning.node, by_name.build()))
    learning.datapath.settle()
    _forget(learning)
    _resolves(learning, by_name.name_of(learning.node))
    assert learning.datapath.known().addresses == {}


def _forget(rig: conftest.Rig) -> None:
    """Have every endpoint learn anew."""
    learner_ = rig.datapath._veths.learner
    assert learner_ is not None
    learner_._maps.forget(*learner_._maps.endpoints())


def test_an_agent_that_comes_after_keeps_what_was_learned_and_all_goes_on_meanwhile(
    learning: conftest.Rig, successor: Callable[[], datapath_.BPFDatapath]
) -> None:
    """F24, F25: also where the one before it was killed with another policy staged."""
    old, new = by_name.build(STARRED), by_name.build(OTHER, f"x*.{OTHER_ZONE}")
    learning.datapath.apply(by_name.state(learning.node, old))
    learning.datapath.settle()
    _resolves(learning, by_name.name_of(learning.node))
    learning.datapath.learn_names(by_name.state(learning.node, new))
    following = successor()
    try:
        report = following.open()
        assert report.learns_names
        assert _connects(learning) == 0
        assert following.learn_names(by_name.state(learning.node, old)) == set(), "nothing of it has to be replayed"
        following.apply(by_name.state(learning.node, old))
        following.attach_links(by_name.sandboxes(learning.node))
        following.settle()
        assert _connects(learning) == 0
        _forget(learning)
        _resolves(learning, *(by_name.name_of(learning.node, zone) for zone in (by_name.ZONE, OTHER_ZONE)))
        assert _patterns(learning, old) == {STARRED}
        assert following.missing() == ()
    finally:
        following.close()
        learning.datapath._realized = None
        fresh = learning.datapath._veths.learner
        assert fresh is not None
        fresh._names = None


def test_a_pod_that_is_gone_leaves_nothing_behind(learning: conftest.Rig) -> None:
    state = by_name.state(learning.node, by_name.build(STARRED))
    learning.datapath.apply(state)
    _resolves(learning, by_name.name_of(learning.node))
    assert learning.datapath.known().addresses
    left = {number: one for number, one in state.endpoints.items() if number != POD}
    learning.datapath.apply(dataclasses.replace(state, endpoints=left))
    learning.datapath.settle()
    assert learning.datapath.known() == fqdn.Known()


def test_programs_are_at_each_pod_s_veth_and_go_with_it(learning: conftest.Rig) -> None:
    pods = by_name.sandboxes(learning.node)
    links = learning.datapath.events_path.parent / "links"
    assert _attached(links) == {(hook.prefix, pod.veth_ifindex) for hook in learner.HOOKS for pod in pods}
    learning.datapath.attach_links(pods[:1])
    assert _attached(links) == {(hook.prefix, pods[0].veth_ifindex) for hook in learner.HOOKS}


def _attached(links: pathlib.Path) -> set[tuple[str, int]]:
    found = [(hook, pin.name) for pin in links.iterdir() if (hook := tc.hook_of(pin)) in learner.HOOKS]
    return {(hook.prefix, int(name.removeprefix(hook.prefix))) for hook, name in found if hook is not None}


def test_a_veth_that_refuses_is_told_of_and_stops_nobody(
    learning: conftest.Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    pods = by_name.sandboxes(learning.node)
    learning.datapath.attach_links(())
    veths = learning.datapath._veths._attachments
    assert veths is not None
    attach = veths.attach

    def refuse(hook: tc.Hook, program: int, ifindex: int) -> None:
        if ifindex == pods[0].veth_ifindex:
            raise errors.DatapathError("no room")
        attach(hook, program, ifindex)

    monkeypatch.setattr(veths, "attach", refuse)
    learning.datapath.attach_links(pods)
    assert learning.datapath.missing() == ("no names are learned for pod x/pod0: no room",) * 2
    monkeypatch.undo()
    learning.datapath.attach_links(pods)
    assert learning.datapath.missing() == ()


def test_names_that_do_not_fit_leave_the_last_policy_in_force(
    learning: conftest.Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.datapath.bpf.fqdn_maps.NAMES", 1)
    state = by_name.state(learning.node, by_name.build(STARRED))
    learning.datapath.apply(state)
    _resolves(learning, by_name.name_of(learning.node))
    with pytest.raises(errors.MapFull, match="fqdn_names"):
        learning.datapath.apply(by_name.state(learning.node, by_name.build(OTHER)))
    assert _connects(learning) == 0


def test_a_state_without_names_costs_no_row(learning: conftest.Rig) -> None:
    learning.datapath.apply(by_name.state(learning.node, by_name.build(STARRED)))
    learning.datapath.apply(desired.DesiredState())
    learning.datapath.settle()
    assert learning.datapath.usage()["fqdn_names"].entries == 0


def test_by_filters_it_learns_as_by_links(learning: conftest.Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 6.6 there are no links at a veth."""
    veths = learning.datapath._veths
    assert veths.learner is not None
    assert veths._attachments is not None
    links, filters = veths._attachments, tc.Clsact()
    learning.datapath.attach_links(())
    try:
        monkeypatch.setattr(veths, "_attachments", filters)
        veths.learner.use(filters, veths._programs)
        learning.datapath.attach_links(by_name.sandboxes(learning.node))
        learning.datapath.apply(by_name.state(learning.node, by_name.build(STARRED)))
        _resolves(learning, by_name.name_of(learning.node))
        assert _connects(learning) == 0
    finally:
        learning.datapath.attach_links(())
        assert not tc.remove_filters(*tc.HOOKS)
        veths.learner.use(links, veths._programs)
