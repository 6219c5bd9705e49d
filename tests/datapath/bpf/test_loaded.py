"""What is looked up in the kernel is what the tables say, the entry that answered included."""

from __future__ import annotations

import ipaddress
import os
import pathlib
import random
from collections.abc import Iterator

import pytest

from agent import errors
from agent.datapath import plan, tracing, walk
from agent.datapath.bpf import layout, loaded, maps, syscalls
from agent.model import identity, net, verdict
from tests.bpf import conftest, learned
from tests.states import pictures
from tests.support import random_state

pytestmark = pytest.mark.root

STATES = 4
QUESTIONS = 40


@pytest.fixture
def pins() -> Iterator[pathlib.Path]:
    """Give a directory on bpffs, removed afterwards."""
    directory = conftest.BPFFS / f"nodewall-test-loaded-{os.getpid()}"
    directory.mkdir()
    try:
        yield directory
    finally:
        maps.remove(directory)
        directory.rmdir()


def filled(pins: pathlib.Path, tables: plan.Tables) -> loaded.LoadedMaps:
    """Write `tables` to the maps, and open them as somebody else does."""
    written = maps.Maps(pins)
    written.open()
    for table in plan.Table:
        written.delete(table, frozenset(written.read(table)))
        written.upsert(table, tables.content(table))
    written.store_generation(tables.generation)
    written.close()
    return loaded.LoadedMaps(pins, frozenset(verdict.Layer))


def questions(tables: plan.Tables, rng: random.Random) -> Iterator[tuple[plan.Table, walk.Key]]:
    addresses = [*random_state.LOCAL, *random_state.REMOTE]
    sets = sorted({key.set for key in tables.policy}) or [1]
    for _ in range(QUESTIONS):
        address = rng.choice(addresses)
        for table in (plan.Table.EP_BY_IP, plan.Table.IPCACHE_HOST, plan.Table.IPCACHE_CIDR, plan.Table.HELD):
            yield table, address
        who, port = rng.choice(random_state.IDENTITIES), rng.choice(random_state.PORTS)
        protocol = rng.choice(random_state.PROTOCOLS)
        yield (
            plan.Table.POLICY,
            plan.PolicyKey(rng.choice(sets), who, rng.choice(list(net.Direction)), protocol, port, 16),
        )
    for number in (*tables.endpoints, 99):
        yield plan.Table.ENDPOINTS, number


def test_the_kernel_answers_as_the_tables_and_by_the_same_entry(pins: pathlib.Path) -> None:
    for seed in range(STATES):
        rng = random.Random(seed)
        tables = plan.at_rest(random_state.state(rng))
        kernel, expected = filled(pins, tables), walk.InTables(tables)
        for table, key in questions(tables, rng):
            assert kernel.look(table, key) == expected.look(table, key), (table, key)
        kernel.close()


def test_of_two_prefixes_that_say_the_same_the_longer_one_answered(pins: pathlib.Path) -> None:
    wide, narrow = ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("10.0.1.0/24")
    kernel = filled(pins, plan.Tables(ipcache_cidr={wide: (5, 5), narrow: (5, 5)}))
    for text, network in (("10.0.1.9", narrow), ("10.9.0.1", wide)):
        assert kernel.look(plan.Table.IPCACHE_CIDR, ipaddress.ip_address(text)) == walk.Found(network, 5)
    kernel.close()


def test_the_slot_of_the_present_generation_counts(pins: pathlib.Path) -> None:
    address = ipaddress.ip_address("10.0.0.2")
    for generation, number in ((6, 300), (7, 301)):
        kernel = filled(pins, plan.Tables(generation=generation, ipcache_host={address: (300, 301)}))
        assert kernel.generation == generation
        assert kernel.look(plan.Table.IPCACHE_HOST, address) == walk.Found(address, number)
        kernel.close()


def test_what_has_been_learned_counts_until_it_expires(pins: pathlib.Path) -> None:
    kernel = filled(pins, plan.Tables())
    first, last = identity.FIRST_NAME_CLASS, 2 * identity.FIRST_NAME_CLASS - 1
    for address in (ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("2001:db8::1")):
        with syscalls.owned(syscalls.open_pin(pins / "fqdn_learned")) as descriptor:
            classes = {last: learned.VALID_S, first + 1: learned.EXPIRED_S, first: learned.VALID_S}
            learned.Learned(descriptor).put(7, address, classes)
        assert kernel.learned(7, address) == (first, last)
        assert kernel.learned(8, address) == ()
    kernel.close()


def test_maps_are_counted_and_dumped_in_words(pins: pathlib.Path) -> None:
    state = pictures.named("allowed by port name")
    tables = plan.at_rest(state)
    kernel = filled(pins, tables)
    used = {one.name: one for one in kernel.inventory().tables}
    assert used["policy"].entries == len(tables.policy)
    assert used["endpoints"].entries == len(state.endpoints)
    assert used["policy"].capacity == plan.CAPACITY[plan.Table.POLICY]
    everything = tracing.Wanted()
    assert len(list(kernel.rows("policy", everything, state))) == len(tables.policy)
    endpoint = next(iter(state.endpoints.values()))
    (row,) = kernel.rows("endpoints", tracing.Wanted(endpoint=endpoint), state)
    assert f"({endpoint.namespace}/{endpoint.pod})" in row.key
    assert [one.key for one in kernel.rows("config", everything, state)] == ["generation"]
    assert len(list(kernel.rows("counters", everything, state))) == len(layout.Counter)
    for narrow in (tracing.Wanted(policy_set=1), tracing.Wanted(endpoint=endpoint)):
        assert [*kernel.rows("config", narrow, state), *kernel.rows("counters", narrow, state)] == []
    with pytest.raises(errors.InvalidInput, match="MAP"):
        list(kernel.rows("events", everything, state))
    kernel.close()


def test_without_pins_there_is_nothing_to_read(pins: pathlib.Path) -> None:
    with pytest.raises(errors.DatapathError, match="opening the pinned maps"):
        loaded.LoadedMaps(pins, frozenset(verdict.Layer))
