"""What is in audit is kept, told with its age, and lost rather than kept by mistake (rule A51)."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import stat

import pytest

from agent import audits, errors, reconciler, snapshot
from agent.datapath import memory
from agent.model import audit, endpoint, resources, verdict
from agent.policy import audited, compiler
from tests.support import agents

X, DENY = audit.Target("x"), audit.Target("x", "deny")
DAY_S = 86_400


def ledger(
    directory: pathlib.Path, *flags: audit.Target, clock: agents.ManualClock | None = None, annotations: bool = False
) -> audits.Ledger:
    given = audit.Audit(flags=frozenset(flags), annotations=annotations)
    return audits.Ledger(file=directory / audits.FILE, given=given, clock=clock or agents.ManualClock())


def enforcement(cluster: snapshot.Snapshot, setting: audit.Audit) -> reconciler.Enforcement:
    compiled = compiler.compile_node(cluster, endpoint.NodeView(name="n1", sandboxes=agents.SANDBOXES, audit=setting))
    return reconciler.Enforcement(
        inputs=reconciler.Inputs(),
        state=compiled.state,
        snapshot=cluster,
        problems=compiled.problems,
        generation=1,
        unix_ns=0,
        audited=compiled.audited,
    )


def test_a_command_outlives_the_agent_and_a_flag_only_keeps_its_age(tmp_path: pathlib.Path) -> None:
    clock = agents.ManualClock()
    first = ledger(tmp_path, audit.Target("y"), clock=clock)
    first.enable(DENY)
    since = {one.target: one.since_unix_ns for one in first.entries()}
    clock.pass_s(DAY_S)
    second = ledger(tmp_path, audit.Target("y"), clock=clock)
    assert {one.target: one.since_unix_ns for one in second.entries()} == since
    assert second.setting == audit.Audit(flags=frozenset({audit.Target("y")}), commands=frozenset({DENY}))
    assert second.oldest_unix_ns == min(since.values())
    third = ledger(tmp_path, clock=clock)
    assert third.setting == audit.Audit(commands=frozenset({DENY})), "a flag that is gone is gone"
    third.disable(DENY)
    assert ledger(tmp_path).setting == audit.NOTHING
    assert ledger(tmp_path).oldest_unix_ns == 0


def test_the_file_is_its_owners_alone_and_written_whole(tmp_path: pathlib.Path) -> None:
    ledger(tmp_path).enable(X)
    assert stat.S_IMODE((tmp_path / audits.FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [audits.FILE]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"version": 2, "audit": []}',
        b'{"version": 1, "audit": [{"namespace": "../x", "policy": "", "means": "command", "since_unix_ns": 1}]}',
        b'{"version": 1, "audit": [{"namespace": "x", "policy": "", "means": "whim", "since_unix_ns": 1}]}',
        b'{"version": 1, "audit": [{"namespace": "x", "policy": 7, "means": "command", "since_unix_ns": 1}, null]}',
        b'{"version": 1, "audit": [{"namespace": "x", "policy": "", "means": "command", "since_unix_ns": 1e999}]}',
        pytest.param(b"[" * 100_000, id="deep"),
        b"\xff\xfe",
    ],
)
def test_of_a_file_that_cannot_be_read_nothing_is_in_audit_and_that_is_told(
    tmp_path: pathlib.Path, content: bytes
) -> None:
    (tmp_path / audits.FILE).write_bytes(content)
    found = ledger(tmp_path)
    assert found.setting == audit.NOTHING
    assert "cannot be read" in found.trouble


def test_that_commands_were_lost_is_told_though_flags_are_written_over_them(tmp_path: pathlib.Path) -> None:
    (tmp_path / audits.FILE).write_bytes(b"{")
    found = ledger(tmp_path, X)
    assert found.setting == audit.Audit(flags=frozenset({X}))
    assert "cannot be read" in found.trouble
    found.enable(DENY)
    assert "cannot be read" in found.trouble, "what was lost stays lost"
    assert ledger(tmp_path, X).setting == audit.Audit(flags=frozenset({X}), commands=frozenset({DENY}))


def test_what_could_not_be_kept_is_not_begun_and_what_is_taken_out_is_out_at_once(tmp_path: pathlib.Path) -> None:
    lost = ledger(tmp_path / "nowhere")
    with pytest.raises(errors.InvalidInput, match="cannot be written"):
        lost.enable(X)
    assert lost.setting == audit.NOTHING
    kept = ledger(tmp_path)
    kept.enable(X)
    (tmp_path / audits.FILE).with_suffix(".new").mkdir()
    kept.disable(X)
    assert kept.setting == audit.NOTHING
    assert kept.trouble
    assert ledger(tmp_path).setting == audit.NOTHING, "a restart does not bring it back"


def test_an_annotation_is_listed_since_it_was_first_seen_also_over_a_restart(tmp_path: pathlib.Path) -> None:
    asking = dataclasses.replace(agents.DENY, asks_audit=True)
    cluster, clock = snapshot.build((*agents.cluster().pods.values(), asking)), agents.ManualClock()
    first = ledger(tmp_path, clock=clock, annotations=True)
    first.see(enforcement(cluster, first.setting))
    (one,) = first.entries()
    assert (one.target, one.means, one.policies) == (DENY, audit.Means.ANNOTATION, 1)
    clock.pass_s(DAY_S)
    ledger(tmp_path, clock=clock, annotations=True)  # ends before it knows the cluster
    second = ledger(tmp_path, clock=clock, annotations=True)
    assert second.entries() == ()
    second.see(enforcement(cluster, second.setting))
    assert second.entries()[0].since_unix_ns == one.since_unix_ns
    second.see(enforcement(agents.cluster(), second.setting))
    assert second.entries() == ()
    assert json.loads((tmp_path / audits.FILE).read_text())["audit"] == []


def test_however_many_annotations_there_are_commands_are_taken_and_kept(tmp_path: pathlib.Path) -> None:
    """Rule A51: whoever may write policies has no say in what the admin commands."""
    many = [dataclasses.replace(agents.DENY, name=f"{'p' * 240}{number}", asks_audit=True) for number in range(4000)]
    first = ledger(tmp_path, annotations=True)
    found = audited.find(snapshot.build(many), first.setting)
    first.see(dataclasses.replace(enforcement(agents.cluster(), first.setting), audited=found))
    first.enable(DENY)
    second = ledger(tmp_path, annotations=True)
    assert not second.trouble
    assert second.setting.commands == {DENY}


def test_would_be_denials_are_counted_a_connection_each_by_policy_and_namespace(tmp_path: pathlib.Path) -> None:
    found = ledger(tmp_path, X, DENY, audit.Target("x", "gone"))
    found.see(enforcement(agents.cluster(), found.setting))
    told = agents.flow(verdict=verdict.Verdict.AUDIT)
    found.count(told)
    found.count(dataclasses.replace(told, repeats=4))
    found.count(dataclasses.replace(told, layer=verdict.Layer.SOCKET))
    found.count(agents.flow())
    other = resources.ObjectRef("NetworkPolicy", "x", "enforced")
    found.count(dataclasses.replace(told, isolating=(other,)))
    counted = {one.target: (one.policies, one.would_deny) for one in found.entries()}
    assert counted == {X: (1, 6), DENY: (1, 6), audit.Target("x", "gone"): (0, 0)}


def test_an_annotation_that_the_admin_did_not_allow_changes_nothing_and_says_so() -> None:
    """Rule A51, CVE-2022-28224: whoever may write policies may not take walls down by it."""
    asking = dataclasses.replace(agents.DENY, asks_audit=True)
    cluster = snapshot.build((*agents.cluster().pods.values(), asking, resources.Namespace(name="x", asks_audit=True)))
    plain = enforcement(agents.cluster(), audit.NOTHING)
    refused = enforcement(cluster, audit.NOTHING)
    assert refused.state.endpoints == plain.state.endpoints
    assert {(problem.ref.kind, problem.path) for problem in refused.problems} == {
        ("NetworkPolicy", audited.PATH),
        ("Namespace", audited.PATH),
    }
    allowed = enforcement(cluster, audit.Audit(annotations=True))
    assert {one.ingress_set for one in allowed.state.endpoints.values()} == {0}
    assert allowed.problems == ()


def test_a_name_means_the_network_policy_of_that_name_and_no_other_kind() -> None:
    """Rule A51: what is not clearly in audit is enforced."""
    other = dataclasses.replace(agents.DENY, kind="CiliumNetworkPolicy")
    found = audited.find(agents.cluster(other), audit.Audit(commands=frozenset({DENY})))
    assert set(found.policies) == {agents.DENY.ref}
    found = audited.find(agents.cluster(other), audit.Audit(commands=frozenset({X}), flags=frozenset({DENY})))
    assert found.policies == {
        agents.DENY.ref: (audit.Means.COMMAND, audit.Means.FLAG),
        other.ref: (audit.Means.COMMAND,),
    }


def test_turning_audit_off_writes_no_row_for_the_rows_were_there() -> None:
    """Rule A51: the audit set is the set that is then enforced, under the same number."""
    datapath = memory.MemoryDatapath()
    in_audit = enforcement(agents.cluster(), audit.Audit(flags=frozenset({X}))).state
    enforced = enforcement(agents.cluster(), audit.NOTHING).state
    datapath.apply(in_audit)
    assert datapath.judge(client=agents.CLIENT, server=agents.SERVER, protocol=6, port=80).verdict is (
        verdict.Verdict.AUDIT
    )
    rows = datapath.tables.policy
    datapath.apply(enforced)
    assert datapath.tables.policy == rows
    assert not datapath.judge(client=agents.CLIENT, server=agents.SERVER, protocol=6, port=80).allowed


def test_no_pod_is_held_for_a_policy_in_audit() -> None:
    """Rules A45 and A51."""
    new = dataclasses.replace(agents.SANDBOXES[0], pod="new", uid="uid-new", netns_cookie=99)

    def held(setting: audit.Audit) -> bool:
        view = endpoint.NodeView(name="n1", sandboxes=(new,), audit=setting)
        (only,) = compiler.compile_node(agents.cluster(), view).state.endpoints.values()
        return only.held

    assert held(audit.NOTHING)
    assert not held(audit.Audit(flags=frozenset({X})))
