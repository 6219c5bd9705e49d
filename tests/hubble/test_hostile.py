"""Requests that nobody honest sends: each is answered or refused, and none ends the service or blocks it."""

from __future__ import annotations

import contextlib
import os
import random
import string
import time
from typing import Any

import pytest
from google.protobuf import message

from agent import errors
from agent.api.flow import flow_pb2
from agent.api.observer import observer_pb2 as pb
from agent.hubble import requests
from tests.hubble import variety

RECORDS = variety.flows(20)
ROUNDS = int(os.environ.get("NODEWALL_FUZZ_ROUNDS", "3000"))
"""So many requests; a million take some minutes."""
FIELDS: tuple[Any, ...] = tuple(flow_pb2.FlowFilter.DESCRIPTOR.fields)
WORDS = (
    "",
    "*",
    "/",
    "x/",
    "a=b",
    "!a",
    "a in (b)",
    "10.0.0.0/8",
    "::/0",
    "tcp",
    "80",
    "-1",
    "\x1b[2J",
    "\u202e",
    "ß" * 50,
)


def ask(request: pb.GetFlowsRequest) -> bool:
    """Tell whether a request is answered, and answer it for every flow."""
    said = ""
    try:
        query = requests.query(request)
    except errors.InvalidInput as error:
        said = str(error)
    if said:
        assert said.isprintable()
        return False
    for record in RECORDS:
        assert query.admits(record) in (True, False)
    return True


def made_up(choose: random.Random) -> pb.GetFlowsRequest:
    """Return a request that is well-formed, and whose fields hold anything."""
    request = pb.GetFlowsRequest(
        number=choose.choice((0, 1, 2**64 - 1)), follow=choose.random() < 0.5, first=choose.random() < 0.3
    )
    for filters in (request.whitelist, request.blacklist):
        for _ in range(choose.randrange(3)):
            wanted = filters.add()
            for field in choose.sample(FIELDS, choose.randrange(4)):
                values = getattr(wanted, field.name)
                if field.type == field.TYPE_STRING:
                    values.extend(choose.choice((*WORDS, _noise(choose))) for _ in range(choose.randrange(1, 3)))
                elif field.type == field.TYPE_MESSAGE:
                    values.add(type=choose.randrange(-9, 999), match_sub_type=choose.random() < 0.5)
                elif field.type == field.TYPE_BOOL:
                    values.append(choose.random() < 0.5)
                else:
                    values.append(choose.choice((0, 1, 2, 300, 2**31 - 1)))
    request.field_mask.paths.extend(_noise(choose) for _ in range(choose.randrange(3)))
    request.since.seconds = choose.choice((0, -(2**63), 2**63 - 1))
    return request


def _noise(choose: random.Random) -> str:
    return "".join(choose.choice(string.printable) for _ in range(choose.randrange(12)))


def test_made_up_requests_are_answered_or_refused_in_printable_words() -> None:
    choose = random.Random(7)
    answered = sum(ask(made_up(choose)) for _ in range(ROUNDS))
    assert 0.05 < answered / ROUNDS < 0.95


def test_bytes_that_were_tampered_with_are_answered_or_refused() -> None:
    choose = random.Random(8)
    for _ in range(ROUNDS):
        content = bytearray(made_up(choose).SerializeToString())
        for _ in range(choose.randrange(1, 5)):
            content[choose.randrange(len(content))] = choose.randrange(256)
        with contextlib.suppress(message.DecodeError):  # what gRPC itself refuses
            ask(pb.GetFlowsRequest.FromString(bytes(content)))


@pytest.mark.parametrize("field", ["source_label", "source_fqdn", "node_name", "source_ip", "source_pod", "protocol"])
@pytest.mark.parametrize("text", ["a" * 100_000, "*a" * 50_000, "(" * 100_000, "a in (" + ", " * 40_000, "1." * 50_000])
def test_a_huge_value_takes_no_time(field: str, text: str) -> None:
    began = time.process_time()
    ask(pb.GetFlowsRequest(whitelist=[{field: [text]}]))
    assert time.process_time() - began < 1
