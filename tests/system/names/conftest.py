"""One lab for all tests of names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system import engines
from tests.system.names import stage as stage_

ON_EACH_LAYER = pytest.mark.parametrize(
    "stage",
    engines.by_combination((engines.NFBPF_ROUTED, *engines.PAIRWISE[1:3])),
    indirect=True,
)
"""Marks the few tests that run daily with iptables, too."""


@pytest.fixture(scope="session", params=engines.by_combination((engines.NFBPF_ROUTED,)))
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[stage_.Stage]:
    with stage_.built(request.param, tmp_path_factory.mktemp("names")) as built:
        yield built
