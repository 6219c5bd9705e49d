"""Answers of containerd and CRI-O, and of something that is neither."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import pathlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent import errors
from agent.node.cri import messages, wire
from tests.node.cri import answers

A = messages.Listed(id="c-a", namespace="x", pod="a", uid="u-1")


def test_what_is_asked_is_what_cri_has() -> None:
    assert bytes.fromhex("0a021200") == messages.LIST_READY
    assert messages.status_request("ab") == bytes.fromhex("0a0261621001")


def test_a_list_names_sandboxes_and_their_pods() -> None:
    answer = answers.listing(answers.sandbox("c-a"), answers.sandbox("c-b", "b", uid=""))
    assert messages.decode_list(answer) == (A, messages.Listed(id="c-b", namespace="x", pod="b", uid=""))
    assert messages.decode_list(b"") == ()


def test_containerds_status_tells_namespace_interface_and_addresses() -> None:
    assert messages.decode_status(answers.status("c-a")) == messages.Status(
        sandbox=A,
        host_network=False,
        netns=pathlib.Path(answers.INSIDE),
        host_interfaces=("veth1a2b",),
        addresses=(ipaddress.ip_address("10.0.0.2"), ipaddress.ip_address("fd00::2")),
    )


def test_cri_os_status_tells_no_interface() -> None:
    found = messages.decode_status(answers.status("c-a", info=json.dumps(answers.crio())))
    assert (found.netns, found.host_interfaces) == (pathlib.Path(answers.INSIDE), ())


def test_a_pod_on_the_nodes_network_has_neither_namespace_nor_address() -> None:
    found = messages.decode_status(answers.status("c-a", host_network=True, addresses=()))
    assert (found.host_network, found.netns, found.addresses) == (True, None, ())


def test_an_address_in_ipv6s_clothes_is_ipv4_rule_a24() -> None:
    found = messages.decode_status(answers.status("c-a", addresses=("::ffff:10.0.0.2", "10.0.0.2", "")))
    assert found.addresses == (ipaddress.ip_address("10.0.0.2"),)


@pytest.mark.parametrize(
    "info",
    ["{}", '{"runtimeSpec": null}', '{"runtimeSpec": {"linux": {"namespaces": [{"type": "network", "path": "x"}]}}}'],
)
def test_a_runtime_that_does_not_say_where_leaves_it_open(info: str) -> None:
    assert messages.decode_status(answers.status("c-a", info=info)).netns is None


@pytest.mark.parametrize(
    "answer",
    [
        b"\xff",
        b"",
        wire.number(1, 7),
        answers.listing(b""),
        answers.status(""),
        answers.status("c-a", info="{"),
        answers.status("c-a", info="[]"),
        answers.status("c-a", info='{"x":' + "[" * 100_000),
        answers.status("c-a", info='{"runtimeSpec": {"linux": {"namespaces": 7}}}'),
        answers.status("c-a", info='{"cniResult": {"Interfaces": []}}'),
        answers.status("c-a", addresses=("10.0.0.256",)),
        answers.status("c-a", addresses=("fe80::1%eth0/64",)),
        answers.status("c-a")[:-1],
    ],
)
def test_a_status_that_cannot_be_read_is_none(answer: bytes) -> None:
    with pytest.raises(errors.InvalidAnswer):
        messages.decode_status(answer)


@pytest.mark.parametrize("answer", [b"\x08\x01", answers.listing(b""), answers.listing(wire.number(1, 7)), b"\x0a"])
def test_a_list_that_cannot_be_read_is_none(answer: bytes) -> None:
    with pytest.raises(errors.InvalidAnswer):
        messages.decode_list(answer)


SAMPLE = answers.status("c-a")


@given(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255), st.integers(0, len(SAMPLE)))
@example(196, 128, 650)
def test_a_damaged_answer_is_an_answer_or_refused_and_nothing_else(place: int, byte: int, end: int) -> None:
    damaged = (SAMPLE[:place] + bytes((byte,)) + SAMPLE[place + 1 :])[:end]
    for decode in (messages.decode_status, messages.decode_list):
        with contextlib.suppress(errors.InvalidAnswer):
            decode(damaged)
