"""What is learned of an endpoint: never for shorter, and bounded for each by itself."""

from __future__ import annotations

import ipaddress

import pytest

from agent.datapath.iptables import names_book
from agent.fqdn import history
from agent.model import fqdn, net

CLASS, OTHER = 0x8000_0001, 0x8000_0002


def address(number: int) -> net.Address:
    return ipaddress.ip_address("203.0.113.0") + number


def entry(number: int, expires_ns: int, *, endpoint: int = 1, class_number: int = CLASS) -> names_book.Entry:
    return names_book.Entry(endpoint, class_number, address(number), expires_ns)


def test_a_later_answer_never_shortens() -> None:
    """F19."""
    book = names_book.Book()
    assert book.learn([entry(1, 50)], 0).added == (entry(1, 50),)
    assert book.learn([entry(1, 40)], 0) == names_book.Change()
    assert book.learn([entry(1, 60)], 0).added == (entry(1, 60),)
    assert book.known(1) == {(1, address(1)): (fqdn.Learned(CLASS, 60),)}


def test_an_endpoint_that_learns_too_much_loses_what_it_learned_longest_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """F21: and no other endpoint loses anything."""
    monkeypatch.setattr(history, "ADDRESSES_MAX", 2)
    book = names_book.Book()
    book.learn([entry(9, 100, endpoint=2)], 0)
    book.learn([entry(1, 100), entry(1, 90, class_number=OTHER), entry(2, 100)], 0)
    book.learn([entry(1, 10)], 0)
    change = book.learn([entry(3, 100)], 0)
    assert (change.added, change.removed) == ((entry(3, 100),), (entry(2, 100),))
    assert book.evicted == 1
    assert set(book.classes(1, address(1))) == {CLASS, OTHER}
    assert book.classes(2, address(9)) == {CLASS: 100}


def test_an_address_has_so_many_classes_and_keeps_those_that_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names_book, "CLASSES_MAX", 1)
    book = names_book.Book()
    change = book.learn([entry(1, 50), entry(1, 60, class_number=OTHER)], 55)
    assert change.removed == (entry(1, 50),)
    assert book.class_evicted == 0
    assert list(book.of(1, OTHER)) == [entry(1, 60, class_number=OTHER)]


def test_an_endpoint_that_is_gone_is_forgotten() -> None:
    book = names_book.Book()
    book.learn([entry(1, 50), entry(1, 50, endpoint=2)], 0)
    book.keep_only({2})
    assert book.endpoints() == (2,)
