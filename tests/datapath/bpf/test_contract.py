"""The BPF datapath keeps the contract, and keeps it through death and return."""

from __future__ import annotations

import dataclasses
import errno
import os
import pathlib
import struct
import subprocess
import time
from collections.abc import Iterator

import pytest

from agent import errors
from agent.datapath import base, plan
from agent.datapath.bpf import conntrack, events, fqdn_maps, layout, links, socket_loader, syscalls, tc
from agent.datapath.bpf import datapath as datapath_
from agent.model import endpoint
from tests.bpf import conftest, node, states
from tests.datapath import contract

pytestmark = pytest.mark.root
NAME = "test.contract"


@pytest.fixture(scope="module")
def home() -> Iterator[node.Node]:
    with node.running() as running:
        try:
            yield running
        finally:
            _datapath(running).uninstall()


@pytest.fixture
def datapath(home: node.Node) -> Iterator[datapath_.BPFDatapath]:
    opened = _datapath(home)
    opened.open()
    opened.apply(contract.EMPTY)
    yield opened
    opened.close()


def _datapath(home: node.Node) -> datapath_.BPFDatapath:
    return datapath_.BPFDatapath(node=NAME, bpffs=conftest.BPFFS, cgroup_root=home.cgroup)


class TestBPFDatapath(contract.DatapathContract):
    def read(self, datapath: base.Datapath) -> plan.Tables:
        assert isinstance(datapath, datapath_.BPFDatapath)
        return datapath.tables()


@pytest.mark.parametrize("made", range(4))
def test_after_a_crash_behind_any_step_the_next_agent_ends_where_it_shall(
    home: node.Node, datapath: datapath_.BPFDatapath, made: int
) -> None:
    datapath.apply(contract.some_state())
    way = plan.plan(datapath.tables(), contract.some_state(sets=602))
    for step in way.steps[:made]:
        datapath._make(step)
    datapath.close()
    after = _datapath(home)
    after.open()
    after.apply(contract.some_state(sets=602))
    assert after.tables() == plan.plan(after.tables(), contract.some_state(sets=602)).result
    assert {key.set for key in after.tables().policy} == {602}
    after.close()


def test_what_programs_may_still_read_goes_only_after_the_change_counts(datapath: datapath_.BPFDatapath) -> None:
    datapath.apply(contract.some_state())
    datapath.settle()
    applied = datapath.apply(contract.some_state(sets=602))
    held = datapath._maps.tables()
    assert held.generation == applied.generation
    assert {key.set for key in held.policy} == {601, 602}
    datapath.settle()
    assert {key.set for key in datapath._maps.tables().policy} == {602}
    written = applied.written
    datapath.settle()
    assert datapath.apply(contract.some_state(sets=602)).written == 0 < written


def test_opening_again_adopts_maps_programs_and_links_as_they_are(
    home: node.Node, datapath: datapath_.BPFDatapath
) -> None:
    datapath.apply(contract.some_state())
    before, tables = _ids(datapath), datapath.tables()
    datapath.close()
    after = _datapath(home)
    after.open()
    assert _ids(after) == before
    assert after.tables() == tables
    assert after.apply(contract.some_state()).written == 0
    after.close()


def test_a_pin_that_is_gone_is_named_and_how_full_the_maps_are_is_known(
    home: node.Node, datapath: datapath_.BPFDatapath
) -> None:
    datapath.apply(contract.some_state())
    assert datapath.missing() == ()
    assert datapath.usage() == {**layout.usage(datapath.tables()), "fqdn_names": base.Usage(0, fqdn_maps.NAMES)}
    pins = datapath.events_path.parent
    for pin in (pins / "links" / "nw_forward4", pins / "policy"):
        pin.rename(pin.with_name("elsewhere"))
        try:
            assert datapath.missing() == (f"the pin {pin} is gone",)
        finally:
            pin.with_name("elsewhere").rename(pin)
    after = _datapath(home)
    after.open()
    assert after.usage() == datapath.usage()
    after.close()


def test_another_build_of_the_programs_replaces_every_link_and_leaves_one_of_each(
    home: node.Node, datapath: datapath_.BPFDatapath, monkeypatch: pytest.MonkeyPatch
) -> None:
    datapath.apply(contract.some_state())
    before = _programs_of_links(datapath)
    datapath.close()
    monkeypatch.setattr("agent.datapath.bpf.artifacts.Artifacts.fingerprint", lambda _: "another")
    for fingerprint_round in range(2):
        after = _datapath(home)
        after.open()
        found = _programs_of_links(after)
        assert found.keys() == before.keys(), fingerprint_round
        assert not set(found.values()) & set(before.values())
        after.close()
    assert [path.name for path in (_pins(datapath) / "programs").iterdir()] == ["another"]


def test_a_link_whose_replacement_was_cut_short_is_one_link_again(
    home: node.Node, datapath: datapath_.BPFDatapath
) -> None:
    datapath.close()
    pins = _pins(datapath) / "links"
    (pins / "nw_forward4").rename(pins / "nw_forward4_next")
    with syscalls.owned(syscalls.open_pin(pins / "nw_connect4")) as link:
        syscalls.pin(link, pins / "nw_connect4_next")
    after = _datapath(home)
    after.open()
    assert {path.name for path in pins.iterdir()} == {*datapath_.PACKET_PROGRAMS, *socket_loader.ATTACH_TYPES}
    after.close()


def test_a_pinned_link_of_a_namespace_that_is_gone_is_replaced(
    home: node.Node, datapath: datapath_.BPFDatapath
) -> None:
    datapath.close()
    pins = _pins(datapath) / "links"
    with syscalls.owned(syscalls.open_pin(pins / "nw_forward4")) as link:
        before = syscalls.link_info(link).id
        syscalls.link_detach(link)  # what the end of the namespace does: the pin and its description stay
    after = _datapath(home)
    after.open()
    with syscalls.owned(syscalls.open_pin(pins / "nw_forward4")) as link:
        assert syscalls.link_info(link).id != before
    after.close()


def test_an_agent_that_comes_after_drop_mode_proves_the_socket_layer_by_its_counters(
    home: node.Node, datapath: datapath_.BPFDatapath
) -> None:
    datapath.apply(dataclasses.replace(contract.EMPTY, deny_mode=endpoint.DenyMode.DROP))
    datapath.close()
    after = _datapath(home)
    report = after.open()
    assert (report.mode, report.reasons, report.unproved) == (datapath_.MODE, (), ())
    assert report.proved[0].endswith("counted a call that the maps deny")
    after.close()


def test_a_hook_that_does_not_refuse_makes_open_fail_naming_it(
    home: node.Node, datapath: datapath_.BPFDatapath, monkeypatch: pytest.MonkeyPatch
) -> None:
    datapath.close()
    monkeypatch.setattr("agent.datapath.bpf.links.Links.attach_cgroup", lambda *_: None)
    links.remove(_pins(datapath) / "links" / "nw_sendmsg6")
    with pytest.raises(errors.NotSupported, match="sendmsg6"):
        _datapath(home).open()


def test_a_kernel_without_tcx_has_filters_and_one_without_either_is_reported_and_not_asked_again(
    home: node.Node, datapath: datapath_.BPFDatapath, monkeypatch: pytest.MonkeyPatch
) -> None:
    datapath.close()

    def refuse(*_arguments: object) -> int:
        raise OSError(errno.EINVAL, "no tcx")

    monkeypatch.setattr(syscalls, "link_tcx", refuse)
    after = _datapath(home)
    report = after.open()
    assert report.learns_names
    assert [reason for reason in report.reasons if "6.6" in reason] == []
    after.attach_links(states.sandboxes(home, ingress_ifindex=1))
    veths = {pod.ifindex for pod in home.pods}
    assert {hook: tc.Clsact().attached(hook) for hook in tc.HOOKS} == dict.fromkeys(tc.HOOKS, veths)
    after.attach_links(())
    after.close()
    monkeypatch.setattr(tc.Clsact, "attach", _refuses)
    after = _datapath(home)
    report = after.open()
    assert not report.learns_names
    assert len([reason for reason in report.reasons if "6.6" in reason]) == 2
    after.attach_links(states.sandboxes(home, ingress_ifindex=1))
    after.close()


def _refuses(*_arguments: object) -> None:
    raise errors.DatapathError("no cls_bpf")


def test_self_tests_leave_no_rows_and_no_verdicts(datapath: datapath_.BPFDatapath) -> None:
    reader = events.EventReader(datapath.events_path)
    assert [event for event in reader.read() if event.endpoint == layout.ENDPOINT_PROBE] == []
    assert all(not datapath.tables().content(table) for table in plan.Table)
    reader.close()


def test_uninstall_leaves_no_object_and_no_pin_even_half_built(home: node.Node) -> None:
    elsewhere = datapath_.BPFDatapath(node="test.half", bpffs=conftest.BPFFS, cgroup_root=home.cgroup)
    elsewhere.open()
    pod = home.pods[0]
    elsewhere.attach_links(
        [
            endpoint.Sandbox(
                namespace="x", pod="a", uid="u", netns_cookie=pod.cookie, veth_ifindex=pod.ifindex, ingress_ifindex=0
            )
        ]
    )
    assert (_pins(elsewhere) / "links" / f"tc_{pod.ifindex}").exists()
    ids = _ids(elsewhere)
    (_pins(elsewhere) / "links" / "nw_connect4").unlink()
    (_pins(elsewhere) / "policy").unlink()
    elsewhere.uninstall()
    elsewhere.uninstall()
    assert not _pins(elsewhere).parent.exists()
    # The kernel frees objects a grace period after their last user.
    deadline = time.monotonic() + 5
    while left := [(kind, number) for kind, number in ids.values() if _lives(kind, number)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_conntrack_is_held_while_installed_and_let_go_with_the_last_uninstall(home: node.Node) -> None:
    elsewhere = datapath_.BPFDatapath(node="test.half", bpffs=conftest.BPFFS, cgroup_root=home.cgroup)
    command = ("nft", "list", "table", "inet", conntrack.TABLE)
    elsewhere.open()
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    elsewhere.uninstall()
    assert subprocess.run(command, check=False, capture_output=True).returncode != 0


def _pins(datapath: datapath_.BPFDatapath) -> pathlib.Path:
    return datapath.events_path.parent


def _programs_of_links(datapath: datapath_.BPFDatapath) -> dict[str, int]:
    found = {}
    for path in (_pins(datapath) / "links").iterdir():
        with syscalls.owned(syscalls.open_pin(path)) as link:
            found[path.name] = syscalls.link_info(link).program_id
    return found


def _ids(datapath: datapath_.BPFDatapath) -> dict[pathlib.Path, tuple[syscalls.Command, int]]:
    """Return the command that opens it by id, and the id, of everything pinned."""
    found = {}
    for path in _pins(datapath).rglob("*"):
        if path.is_dir():
            continue
        with syscalls.owned(syscalls.open_pin(path)) as descriptor:
            match path.parent.name, path.parent.parent.name:
                case "links", _:
                    found[path] = (syscalls.Command.LINK_GET_FD_BY_ID, syscalls.link_info(descriptor).id)
                case _, "programs":
                    found[path] = (syscalls.Command.PROG_GET_FD_BY_ID, syscalls.program_info(descriptor).id)
                case _:
                    found[path] = (syscalls.Command.MAP_GET_FD_BY_ID, syscalls.map_info(descriptor).id)
    return found


def _lives(kind: syscalls.Command, number: int) -> bool:
    try:
        os.close(syscalls.bpf(kind, struct.pack("=3I", number, 0, 0))[0])
    except FileNotFoundError:
        return False
    return True
