"""The learner in both variants, each loaded once."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator

import pytest

from agent.datapath.bpf import dns_loader
from tests.bpf.dns import filtering, rig


@pytest.fixture(autouse=True)
def packet_layer() -> None:
    """Run here whatever the packet layer needs: the learner works without it."""


@pytest.fixture(scope="session", params=list(dns_loader.Variant), ids=lambda variant: variant.name.lower())
def loaded_learner(request: pytest.FixtureRequest, bpffs: pathlib.Path) -> Iterator[rig.Learner]:
    """Load a variant."""
    with contextlib.ExitStack() as opened:
        yield opened.enter_context(rig.loaded(bpffs, request.param))


@pytest.fixture
def learner(loaded_learner: rig.Learner) -> rig.Learner:
    """Return the learner as if nothing had happened yet."""
    loaded_learner.clear()
    return loaded_learner


@pytest.fixture
def pod(learner: rig.Learner) -> Iterator[rig.Learner]:
    """Have the learner's pod be one that may ask for one name alone."""
    filtering.clear(learner)
    filtering.restrict(learner)
    yield learner
    filtering.clear(learner)
