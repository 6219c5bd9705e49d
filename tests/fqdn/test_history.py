"""What endpoints were told is remembered within bounds, and a policy that comes later finds it."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from agent.fqdn import classes, history, patterns
from agent.model import fqdn, net
from tests.fqdn import naming

SECOND = history.SECOND_NS
BOOTED = 1_000 * SECOND
LATER = history.Lifetimes(min_ttl_s=0, grace_s=0)


def address(number: int) -> net.Address:
    return ipaddress.ip_address((203 << 24) + number)


def answered(
    name: str = "api.example.com",
    *numbers: int,
    endpoint: int = 7,
    ttl_s: int = 60,
    at_s: int = 0,
    alias_ttls_s: tuple[int, ...] = (),
) -> fqdn.Answered:
    return fqdn.Answered(
        endpoint=endpoint,
        name=name,
        addresses=tuple((address(number), ttl_s) for number in numbers or (1,)),
        at_ns=BOOTED + at_s * SECOND,
        alias_ttls_s=alias_ttls_s,
    )


def remembering(*answers: fqdn.Answered, lifetimes: history.Lifetimes = LATER) -> history.History:
    found = history.History(lifetimes)
    for answer in answers:
        found.learn(answer)
    return found


def expiries(found: history.History) -> dict[tuple[str, net.Address], int]:
    """Return when each name's addresses expire, in seconds after BOOTED."""
    return {(each.name, each.address): (each.expires_ns - BOOTED) // SECOND for each in found.remembered()}


def built(*texts: str) -> classes.Classes:
    return classes.build([map(patterns.parse_cilium_pattern, texts)])


def test_a_policy_that_comes_after_the_answer_finds_the_address() -> None:
    """Requirement F26: without another look-up, within TTL and grace, and not a moment longer."""
    found = remembering(answered(ttl_s=60), lifetimes=history.Lifetimes(grace_s=10))
    late = built("*.example.com")
    (number,) = late.of("api.example.com")
    end = BOOTED + 70 * SECOND
    assert history.replay(found.remembered(), late, now_ns=end - 1) == {(7, address(1)): (fqdn.Learned(number, end),)}
    assert history.replay(found.remembered(), late, now_ns=end) == {}
    assert history.replay(found.remembered(), built("*.example.org"), now_ns=BOOTED) == {}


def test_what_one_endpoint_was_told_opens_nothing_for_another() -> None:
    """Requirement F9."""
    found = remembering(answered(endpoint=1), answered("x.example.org", 2, endpoint=2))
    assert set(history.replay(found.remembered(), built("api.example.com"), now_ns=BOOTED)) == {(1, address(1))}


def test_names_are_remembered_folded_and_only_those_that_are_names() -> None:
    """Requirement F1."""
    found = remembering(answered("API.Example.com."), answered("a b"), answered("."), answered("a\x80.com"))
    assert set(expiries(found)) == {("api.example.com", address(1))}


def test_a_later_answer_never_shortens() -> None:
    """Requirement F19."""
    found = remembering(answered(ttl_s=300), answered(ttl_s=5, at_s=10), answered(ttl_s=400, at_s=20))
    assert set(expiries(found).values()) == {420}
    found.learn(answered(ttl_s=1, at_s=30))
    assert set(expiries(found).values()) == {420}


def test_the_least_ttl_of_the_chain_counts_but_no_less_than_the_floor() -> None:
    """Requirement F19."""
    chained = answered(ttl_s=300, alias_ttls_s=(60, 20, 600))
    assert set(expiries(remembering(chained)).values()) == {20}
    floor = history.Lifetimes(min_ttl_s=30, grace_s=5)
    assert set(expiries(remembering(chained, lifetimes=floor)).values()) == {35}
    assert set(expiries(remembering(answered(ttl_s=300), lifetimes=floor)).values()) == {305}


def test_addresses_of_one_answer_expire_each_by_its_own_ttl() -> None:
    """Requirement F19."""
    found = history.History(LATER)
    pairs = ((address(1), 10), (address(2), 20))
    found.learn(fqdn.Answered(endpoint=1, name="a.b", addresses=pairs, at_ns=BOOTED))
    assert list(expiries(found).values()) == [10, 20]


def test_ttl_0_works_with_grace_and_the_top_bit_is_0() -> None:
    """Requirement F20 (RFC 2181 section 8)."""
    graceful = history.Lifetimes(grace_s=60)
    for ttl_s in (0, 1 << 31, (1 << 32) - 1):
        found = remembering(answered(ttl_s=ttl_s), lifetimes=graceful)
        assert set(expiries(found).values()) == {60}
        assert history.replay(found.remembered(), built("*"), now_ns=BOOTED + 59 * SECOND)
    assert history.Lifetimes(grace_s=0).expires_ns(0, (1 << 31) - 1) == ((1 << 31) - 1) * SECOND
    assert graceful.expires_ns(0, 300, [1 << 31]) == 60 * SECOND


def test_an_answer_without_addresses_changes_nothing() -> None:
    """Requirement F7."""
    nothing = fqdn.Answered(endpoint=7, name="api.example.com", addresses=(), at_ns=BOOTED + SECOND)
    found = remembering(answered(), nothing)
    assert list(found.remembered()) == list(remembering(answered()).remembered())


def test_a_name_has_as_many_addresses_as_the_endpoint() -> None:
    """Requirement F21: not only 100; the oldest goes, of this endpoint alone, and is counted."""
    found = remembering(answered("quiet.example.com", 1, endpoint=8))
    for number in range(history.ADDRESSES_MAX + 5):
        found.learn(answered("cdn.example.com", number))
    kept = expiries(found)
    assert len(kept) == history.ADDRESSES_MAX + 1
    assert found.addresses_evicted == 5
    assert ("cdn.example.com", address(4)) not in kept
    assert ("cdn.example.com", address(5)) in kept
    assert ("quiet.example.com", address(1)) in kept


def test_an_address_that_is_answered_again_is_no_longer_the_oldest() -> None:
    """Requirement F21."""
    found = history.History(LATER)
    for number in range(history.ADDRESSES_MAX):
        found.learn(answered("cdn.example.com", number))
    found.learn(answered("cdn.example.com", 0))
    found.learn(answered("cdn.example.com", history.ADDRESSES_MAX))
    assert ("cdn.example.com", address(0)) in expiries(found)
    assert ("cdn.example.com", address(1)) not in expiries(found)


def test_the_name_answered_longest_ago_goes_with_its_addresses() -> None:
    """Requirement F21."""
    found = remembering(answered("first.example.com", 1, 2))
    for number in range(history.NAMES_MAX - 1):
        found.learn(answered(f"n{number}.example.com"))
    found.learn(answered("first.example.com", 3))
    found.learn(answered("last.example.com"))
    kept = {name for name, _ in expiries(found)}
    assert "n0.example.com" not in kept
    assert {"first.example.com", "last.example.com"} < kept
    assert (found.names_evicted, found.addresses_evicted) == (1, 1)


def test_an_address_is_named_by_the_name_answered_last_even_when_expired() -> None:
    """Requirement F16."""
    found = remembering(
        answered("old.example.com", ttl_s=600), answered("a.example.com", at_s=5, ttl_s=1), answered("x.org", 2)
    )
    assert found.names(7, address(1)) == ("a.example.com", "old.example.com")
    assert found.names(7, address(1), until_ns=BOOTED + SECOND) == ("old.example.com",)
    assert found.names(7, address(3)) == found.names(8, address(1)) == ()


def test_a_name_that_is_answered_again_was_known_all_along() -> None:
    """Requirement F16: a verdict read late has the names that were known when it was given."""
    found = remembering(answered(), answered("late.example.com", at_s=5), answered(at_s=9))
    assert found.names(7, address(1), until_ns=BOOTED) == ("api.example.com",)
    assert found.names(7, address(1), until_ns=BOOTED - 1) == ()


def test_of_an_address_with_many_names_the_latest_are_told() -> None:
    found = remembering(*(answered(f"n{number}.example.com", at_s=number) for number in range(history.NAMES_TOLD + 3)))
    told = found.names(7, address(1))
    assert len(told) == history.NAMES_TOLD
    assert told[0] == f"n{history.NAMES_TOLD + 2}.example.com"


def test_what_expired_is_forgotten_a_while_later() -> None:
    """Requirement F16."""
    found = remembering(answered(ttl_s=1), answered("b.example.com", 2, ttl_s=100))
    found.sweep(BOOTED + SECOND + history.EXPIRED_KEPT_NS - 1)
    assert len(expiries(found)) == 2
    found.sweep(BOOTED + SECOND + history.EXPIRED_KEPT_NS)
    assert set(expiries(found)) == {("b.example.com", address(2))}
    assert found.names(7, address(1)) == ()


def test_endpoints_that_are_gone_are_forgotten() -> None:
    found = remembering(answered(endpoint=1), answered(endpoint=2))
    found.keep_only([2, 3])
    assert {each.endpoint for each in found.remembered()} == {2}


def test_another_history_takes_over_what_one_remembered() -> None:
    """Requirement F25: written down and read again, the same names, order and times."""
    first = remembering(answered("a.b", 1, 2), answered("c.d", 2, at_s=3), answered("a.b", 1, at_s=4))
    second = history.History(LATER)
    second.restore(first.remembered())
    assert list(second.remembered()) == list(first.remembered())
    assert second.names(7, address(2)) == first.names(7, address(2)) == ("c.d", "a.b")


def test_an_address_of_more_classes_than_the_kernel_keeps_has_those_that_last() -> None:
    """Requirement F21: many names share one address of a content network."""
    names = [f"n{number}.example.com" for number in range(6)]
    found = remembering(*(answered(name, ttl_s=10 + number) for number, name in enumerate(names)))
    exact = built(*names)
    (learned,) = history.replay(found.remembered(), exact, now_ns=BOOTED).values()
    assert [each.class_number for each in learned] == [exact.of(name)[0] for name in reversed(names[2:])]
    assert [each.expires_ns for each in learned] == [BOOTED + ttl_s * SECOND for ttl_s in (15, 14, 13, 12)]


def test_names_of_one_class_count_once_with_the_later_expiry() -> None:
    found = remembering(answered("a.example.com", ttl_s=10), answered("b.example.com", ttl_s=20))
    (learned,) = history.replay(found.remembered(), built("*.example.com"), now_ns=BOOTED).values()
    assert [each.expires_ns for each in learned] == [BOOTED + 20 * SECOND]


def test_a_mapped_address_is_the_ipv4_address() -> None:
    """Rule A24, requirement F6."""
    found = history.History(LATER)
    mapped = ipaddress.ip_address("::ffff:203.0.0.1")
    found.learn(fqdn.Answered(endpoint=7, name="a.b", addresses=((mapped, 9),), at_ns=BOOTED))
    assert found.names(7, address(1)) == found.names(7, mapped) == ("a.b",)


ANSWERS = st.lists(
    st.builds(
        answered,
        st.sampled_from(("a.b", "c.d", "e.a.b")),
        st.integers(0, 3),
        st.integers(0, 3),
        endpoint=st.integers(1, 2),
        ttl_s=st.integers(0, 9),
        at_s=st.integers(0, 9),
    ),
    max_size=12,
)


@naming.SPARING
@given(ANSWERS, st.integers(0, 20))
def test_replay_is_what_a_kernel_with_the_policy_would_have_learned(answers: list[fqdn.Answered], now_s: int) -> None:
    """Requirements F19, F26."""
    chosen = built("*.b", "**.b", "c*")
    now_ns = BOOTED + now_s * SECOND
    learned: dict[tuple[int, net.Address], dict[int, int]] = {}
    for answer in answers:
        for at, ttl_s in answer.addresses:
            for number in chosen.of(answer.name):
                classes_of = learned.setdefault((answer.endpoint, at), {})
                classes_of[number] = max(classes_of.get(number, 0), answer.at_ns + ttl_s * SECOND)
    unexpired = {
        place: {number: expires for number, expires in of.items() if expires > now_ns} for place, of in learned.items()
    }
    found = history.replay(remembering(*answers).remembered(), chosen, now_ns=now_ns)
    assert {place: {each.class_number: each.expires_ns for each in of} for place, of in found.items()} == {
        place: of for place, of in unexpired.items() if of
    }
