"""What every datapath owes its callers (`agent/datapath/base.py`); each implementation subclasses it.

A subclass provides `datapath` (open and empty) and `read`. Not collected on its own.
"""

from __future__ import annotations

import dataclasses
import ipaddress

import pytest

from agent import desired, errors
from agent.datapath import base, plan
from agent.model import endpoint, identity, net

EMPTY = desired.DesiredState()
ADDRESS = ipaddress.ip_address("10.0.0.2")
ALLOW_ROW = desired.Row(action=desired.Action.ALLOW, rule=71)


def some_state(*, sets: int = 601) -> desired.DesiredState:
    """Return one endpoint, isolated for egress by `sets` as its set's number, and something in every table."""
    policy_set = desired.PolicySet(
        id=sets,
        digest=sets.to_bytes(4, "big"),
        direction=net.Direction.EGRESS,
        rows={desired.RowKey(256, 6, 8080, 16): ALLOW_ROW, desired.RowKey(0, 0, 0, 0): ALLOW_ROW},
        isolating=(),
    )
    pod = desired.Endpoint(
        id=900,
        namespace="x",
        pod="a",
        uid="uid",
        labels={},
        netns_cookie=4242,
        veth_ifindex=77,
        ingress_ifindex=77,
        addresses=(ADDRESS, ipaddress.ip_address("fd00::2")),
        ingress_set=desired.NOT_ISOLATED,
        egress_set=sets,
    )
    return desired.DesiredState(
        endpoints={pod.id: pod},
        sets={policy_set.id: policy_set},
        hosts={ADDRESS: identity.NumericIdentity(256)},
        cidrs={ipaddress.ip_network("192.0.2.0/24"): identity.NumericIdentity(257)},
        frontends={desired.Frontend(ipaddress.ip_address("10.96.0.1"), 80, 6): 33},
        classes={(sets, 33): (desired.ServiceClass.ALL, 71)},
        held_ranges=frozenset({ipaddress.ip_network("10.0.0.0/24")}),
    )


class DatapathContract:
    """The suite."""

    def read(self, datapath: base.Datapath) -> plan.Tables:
        """Return what the datapath holds."""
        raise NotImplementedError

    def test_what_is_applied_is_what_the_tables_hold(self, datapath: base.Datapath) -> None:
        datapath.apply(some_state())
        held = self.read(datapath)
        assert held == plan.plan(held, some_state()).result
        assert held.endpoints.keys() == {900}
        assert held.frontend == {desired.Frontend(ipaddress.ip_address("10.96.0.1"), 80, 6): (33, 33)}

    def test_applying_twice_writes_nothing_the_second_time(self, datapath: base.Datapath) -> None:
        first = datapath.apply(some_state())
        second = datapath.apply(some_state())
        assert first.written > 0
        assert (second.written, second.flipped, second.generation) == (0, 0, first.generation)

    def test_a_change_turns_the_generation_once_for_every_endpoint(self, datapath: base.Datapath) -> None:
        first = datapath.apply(some_state())
        second = datapath.apply(some_state(sets=602))
        assert second.generation == first.generation + 1
        assert second.flipped == 1
        assert {key.set for key in self.read(datapath).policy} == {602}

    def test_what_is_no_longer_desired_is_gone_without_leftovers(self, datapath: base.Datapath) -> None:
        datapath.apply(some_state())
        datapath.apply(EMPTY)
        held = self.read(datapath)
        assert all(not held.content(table) for table in plan.Table)

    def test_the_deny_mode_follows_the_state(self, datapath: base.Datapath) -> None:
        datapath.apply(dataclasses.replace(some_state(), deny_mode=endpoint.DenyMode.DROP))
        assert self.read(datapath).drop_silently
        datapath.apply(some_state())
        assert not self.read(datapath).drop_silently

    def test_a_state_that_does_not_fit_changes_nothing(self, datapath: base.Datapath) -> None:
        datapath.apply(some_state())
        before = self.read(datapath)
        first = int(ipaddress.ip_address("198.18.0.0"))
        too_many = frozenset(
            ipaddress.ip_network((first + index, 32)) for index in range(plan.CAPACITY[plan.Table.HELD] + 1)
        )
        with pytest.raises(errors.MapFull, match="held"):
            datapath.apply(dataclasses.replace(some_state(sets=602), held_ranges=too_many))
        assert self.read(datapath) == before
        datapath.apply(some_state(sets=602))
        assert {key.set for key in self.read(datapath).policy} == {602}
