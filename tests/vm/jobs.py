"""Which kernel runs what: engines, and truth tables.

The problem: an emulated kernel takes half a minute for one table, and there are hundreds, by ten combinations of engine
and network. The rule: every table that names SCTP on every kernel, for nowhere else has SCTP sockets; of the others a
selection that depends on names alone, another one on each kernel, of tables that share a lab with those and of one more
lab. On request every table once on each kernel, by the engine that the agent chooses there, or all in all ways. Egress
by name, which no table of connections tells, is shown in one way on each. Pure.
"""

from __future__ import annotations

import enum
import functools
import types
from collections.abc import Iterator, Mapping, Sequence

from tests.support import cases
from tests.system import engines, test_cases_lab

AUTO = "auto"
IPTABLES = "iptables"
SHARE = 10
"""One table in so many, of those in the labs that are built anyway."""
OF_ONE_MORE_LAB = 3
"""Tables of a lab that is built for these alone."""
TEST = "tests/system/test_cases_lab.py::test_connections_are_as_the_table_says"
NAMES = (
    "test_seed.py::test_with_questions_observed_exactly_the_named_domains_are_reachable[{way}]",
    "test_answers.py::test_both_kinds_of_addresses_are_learned_over_both_families[{way}-udp-IPV6]",
    "test_answers.py::test_both_kinds_of_addresses_are_learned_over_both_families[{way}-tcp-IPV4]",
)
"""What is shown of egress by name: answers of a real server open what they say, by both protocols."""

JOBS: Mapping[str, Mapping[str, str]] = types.MappingProxyType(
    {
        "5.10": {AUTO: "socket+iptables"},
        "6.1": {AUTO: "socket+iptables"},
        "6.12": {AUTO: "socket+nfbpf"},
        "newest": {AUTO: "socket+nfbpf", IPTABLES: "iptables"},
    }
)
"""Kernel -> what `--engine` is given -> the mode that comes of it there."""


class Extent(enum.Enum):
    """How many tables; the value is what `--tables` takes."""

    NONE = "none"
    SCTP = "sctp"
    SAMPLE = "sample"
    EACH = "each"
    ALL = "all"


def combinations(mode: str, extent: Extent) -> tuple[engines.Combination, ...]:
    """Return the ways to run a mode: unless all, some in which both networks and both variants of iptables occur."""
    known = engines.COMBINATIONS if extent is Extent.ALL else engines.SELECTED
    return tuple(one for one in known if one.engine.status == mode)


def tables(kernel: str, mode: str, extent: Extent) -> tuple[str, ...]:
    """Return the tests to run, as pytest names them, those of one lab behind each other."""
    ways = combinations(mode, extent)
    if extent is Extent.NONE:
        return ()
    chosen = {(way, case.id) for way in ways for case in _known() if extent is Extent.ALL or names_sctp(case)}
    if extent is Extent.SAMPLE or (extent is Extent.EACH and mode != JOBS[kernel][AUTO]):
        chosen |= {(ways[engines.number(case.id, len(ways))], case.id) for case in _sample(kernel, mode)}
    elif extent is Extent.EACH:
        chosen |= set(_each(ways))
    return tuple(f"{TEST}[{way.name}-{case.id}]" for way in ways for case in _known() if (way, case.id) in chosen)


def names(kernel: str, mode: str, extent: Extent) -> tuple[str, ...]:
    """Return the tests of egress by name, as pytest names them: in one of the ways, another one on the next kernel."""
    if extent is Extent.SCTP:
        return ()
    ways = combinations(mode, extent)
    way = ways[list(JOBS).index(kernel) % len(ways)]
    return tuple(f"tests/system/names/{test.format(way=way.name)}" for test in NAMES)


def names_sctp(case: cases.Case) -> bool:
    """Tell whether a table names SCTP, in a policy or a check."""
    return "SCTP" in case.path.read_text()


@functools.cache
def labs() -> Mapping[str, int]:
    """Return a number for each table, the same for those of one lab."""
    numbers: dict[str, int] = {}
    before: cases.Case | None = None
    for case in test_cases_lab.CASES:  # in the order of their fixtures
        same = before is not None and test_cases_lab.machines(case) == test_cases_lab.machines(before)
        numbers[case.id] = len(set(numbers.values())) - same
        before = case
    return numbers


def _each(ways: Sequence[engines.Combination]) -> Iterator[tuple[engines.Combination, str]]:
    """Yield every table once: spread over the ways where a lab is built in all of them anyway, else a lab's in one."""
    lab_of = labs()
    built = {lab_of[case.id] for case in _known() if names_sctp(case)}
    for case in _known():
        if not names_sctp(case):
            place = case.id if lab_of[case.id] in built else f"lab {lab_of[case.id]}"
            yield ways[engines.number(place, len(ways))], case.id


def _sample(kernel: str, mode: str) -> Iterator[cases.Case]:
    """Yield tables that do not name SCTP."""
    lab_of = labs()
    built = {lab_of[case.id] for case in _known() if names_sctp(case)}
    others = sorted(set(lab_of.values()) - built)
    more = others[engines.number(f"{kernel} {mode}", len(others))]
    yield from [case for case in _known() if lab_of[case.id] == more][:OF_ONE_MORE_LAB]
    for case in _known():
        drawn = engines.number(f"{kernel} {mode} {case.id}", SHARE) == 0
        if drawn and lab_of[case.id] in built and not names_sctp(case):
            yield case


def _known() -> Sequence[cases.Case]:
    return test_cases_lab.CASES
