"""Patterns are values: compared, ordered and shown."""

from __future__ import annotations

from agent.model import fqdn

CILIUM, CLUSTER = fqdn.Dialect.CILIUM, fqdn.Dialect.CLUSTER_NETWORK_POLICY


def test_patterns_are_ordered_by_dialect_and_text() -> None:
    """Requirement F2: one text in two dialects is two patterns."""
    first, second, third = (
        fqdn.NamePattern(CILIUM, "*.a"),
        fqdn.NamePattern(CILIUM, "b.a"),
        fqdn.NamePattern(CLUSTER, "*.a"),
    )
    assert sorted({third, second, first, fqdn.NamePattern(CILIUM, "b.a")}) == [first, second, third]


def test_a_pattern_without_a_star_is_exact_and_shown_as_its_text() -> None:
    """Requirement F1."""
    assert fqdn.NamePattern(CILIUM, "b.a").exact
    assert not fqdn.NamePattern(CLUSTER, "*.a").exact
    assert str(fqdn.NamePattern(CLUSTER, "*.a")) == "*.a"
