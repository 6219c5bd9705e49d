"""Groups are unions where they can be, and addresses answer as the ipcache does."""

from __future__ import annotations

import ipaddress

from agent import desired
from agent.datapath.iptables import groups, members, regions, ruleset
from agent.model import identity, net

TCP, UDP = 6, 17
WORLD = int(identity.WORLD)
A, B, C = 256, 257, 258


def ports(*numbers: int, protocol: int = TCP) -> regions.Region:
    return regions.of_lines([(protocol, number, 16, True) for number in numbers], regions.NOTHING)


def group(own: dict[int, regions.Region], others: regions.Region = regions.NOTHING) -> groups.Groups:
    return groups.group(regions.SetRegions(own=own, others=others), WORLD)


def peers(*numbers: int) -> members.Peers:
    return members.Peers(frozenset(numbers))


def test_identities_are_joined_by_what_they_may_and_not_by_region() -> None:
    found = group({A: ports(80), B: ports(443), C: ports(80, 443)})
    assert found.spans == ((peers(A, C), TCP, ((80, 80),)), (peers(B, C), TCP, ((443, 443),)))
    assert found.default == regions.NOTHING
    assert not found.decided


def test_ports_of_the_same_peers_are_one_entry() -> None:
    assert group({A: ports(80, 443, 8080)}).spans == ((peers(A), TCP, ((80, 80), (443, 443), (8080, 8080))),)


def test_who_may_everything_needs_no_ports() -> None:
    found = group({A: regions.EVERYTHING, B: regions.EVERYTHING, C: ports(80)})
    assert found.everything == peers(A, B)
    assert len(found.spans) == 1


def test_who_lacks_what_the_default_allows_is_decided_before_it() -> None:
    default = ports(80, 443)
    found = group({A: ports(80), B: regions.NOTHING, C: ports(80, 443, 8080), WORLD: default}, default)
    assert found.decided == ((peers(B), regions.NOTHING), (peers(A), ports(80)))
    assert found.spans == ((peers(C), TCP, ((80, 80), (443, 443), (8080, 8080))),)
    assert found.default == default


def test_who_is_treated_as_the_default_is_in_no_set() -> None:
    found = group({A: ports(80), WORLD: ports(80)})
    assert (found.everything, found.spans, found.exact, found.decided) == (
        None,
        (),
        {},
        ((members.Peers(frozenset({A, WORLD}), rest=True), regions.NOTHING),),
    )


def test_many_single_ports_become_one_table_in_which_each_port_has_its_peers_once() -> None:
    own = {1000 + port: ports(port, port + 1, 999) for port in range(0, 80, 2)}
    ranged = regions.of_lines([(UDP, 0, 1, True)], regions.NOTHING)
    found = group({**own, A: ranged, B: ports(50)})
    assert len(found.exact) == 80
    assert found.exact[TCP, 50] == peers(1050, B)
    assert found.spans == ((peers(*own), TCP, ((999, 999),)), (peers(A), UDP, ((0, 32767),)))


def test_few_single_ports_stay_rules_whose_sets_others_can_share() -> None:
    own = {1000 + port: ports(2 * port) for port in range(groups.EXACT_PIECES)}
    assert not group(own).exact


# Addresses


def book(
    hosts: dict[str, int],
    cidrs: dict[str, int],
    family: net.Family = net.Family.IPV4,
    before: members.Book | None = None,
) -> members.Book:
    state = desired.DesiredState(
        hosts={ipaddress.ip_address(key): identity.NumericIdentity(number) for key, number in hosts.items()},
        cidrs={ipaddress.ip_network(key): identity.NumericIdentity(number) for key, number in cidrs.items()},
    )
    return members.Book(state, family, before)


def elements(found: ruleset.Members) -> dict[str, bool]:
    return {str(member.network): matches for member, matches in found.items()}


def test_a_set_has_an_element_only_where_the_answer_changes() -> None:
    known = book({"10.1.0.1": A, "10.2.0.1": B, "192.0.2.1": A}, {"10.0.0.0/8": A, "10.2.0.0/16": C, "10.2.3.0/24": A})
    assert elements(known.members(peers(A))) == {
        "10.0.0.0/8": True,
        "10.2.0.0/16": False,
        "10.2.3.0/24": True,
        "192.0.2.1/32": True,
    }
    assert elements(known.members(peers(A, C))) == {"10.0.0.0/8": True, "10.2.0.1/32": False, "192.0.2.1/32": True}
    assert elements(known.members(peers(B))) == {"10.2.0.1/32": True}


def test_all_but_some_is_the_same_turned_round() -> None:
    known = book({"10.1.0.1": A, "192.0.2.1": B}, {"10.0.0.0/8": C})
    assert elements(known.members(members.Peers(frozenset({A, WORLD}), rest=True))) == {
        "10.0.0.0/8": True,
        "10.1.0.1/32": False,
        "192.0.2.1/32": True,
    }


def test_what_is_known_of_every_address_is_the_default_and_never_an_element() -> None:
    """Sets have no /0."""
    known = book({"10.1.0.1": A}, {"0.0.0.0/0": B, "::/0": C})
    assert known.default == B
    assert book({}, {"0.0.0.0/0": B}, net.Family.IPV6).default == WORLD
    assert elements(known.members(peers(A))) == {"10.1.0.1/32": True}


def test_an_address_hides_a_prefix_of_its_own_length() -> None:
    known = book({"10.1.0.1": A}, {"10.1.0.1/32": B, "10.0.0.0/8": C})
    assert elements(known.members(peers(B))) == {}
    assert elements(known.members(peers(C))) == {"10.0.0.0/8": True, "10.1.0.1/32": False}


def test_everything_is_written_as_two_halves() -> None:
    for text in ("0.0.0.0/0", "::/0"):
        found = members.of_networks([ipaddress.ip_network(text)])
        assert [member.network.prefixlen for member in found] == [1, 1]


def test_a_hole_wins_over_a_network_of_its_length() -> None:
    network = ipaddress.ip_network("10.0.0.1/32")
    assert list(members.of_networks([network], [network]).values()) == [False]


def test_what_has_not_changed_is_not_made_again() -> None:
    first = book({"10.1.0.1": A, "10.1.0.2": B}, {"10.0.0.0/8": C})
    ported = first.members(peers(A), (TCP, 80))
    second = book({"10.1.0.1": A, "10.1.0.3": B}, {"10.0.0.0/8": C}, before=first)
    assert second.same_members(peers(A), first)
    assert not second.same_members(peers(B), first)
    assert not second.same_members(peers(C), first)
    again = second.members(peers(A), (TCP, 80))
    assert [id(member) for member in again] == [id(member) for member in ported]
