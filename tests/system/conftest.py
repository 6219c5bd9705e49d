"""One lab for many tests: tables of one fixture follow each other, and each only changes the manifests."""

from __future__ import annotations

import json
import os
import pathlib
import re
from collections.abc import Iterator

import pytest

from agent.lab import lab, plan, resolve, rundir

OWN = re.compile(r"test-([0-9]+)(-.+)?")
"""Names of labs of tests: several runs share a machine, so each has the process id in it."""


class Labs:
    """Keeps the lab of the last test, and builds another when the next needs another."""

    def __init__(self) -> None:
        """Build nothing yet."""
        self._key = ""
        self._lab: lab.Lab | None = None

    def running(self, documents: list[resolve.Document], topology: plan.Topology, *, agents: bool = True) -> lab.Lab:
        """Return a lab of that fixture and topology."""
        key = json.dumps([documents, topology.value, agents], sort_keys=True, default=str)
        if self._lab is None or key != self._key:
            self.close()
            built = lab.Lab(name=f"test-{os.getpid()}", topology=topology, agents=agents)
            built.up(documents)
            self._key, self._lab = key, built
        return self._lab

    def close(self) -> None:
        """Take the lab down."""
        if self._lab is not None:
            self._lab.down()
        self._lab = None


def lab_name(purpose: str) -> str:
    """Return a short name for a test's own lab, one that `cleared` knows; labs of one purpose follow each other."""
    return f"test-{os.getpid()}-{purpose[:2]}"


@pytest.fixture(scope="session", autouse=True)
def cleared() -> None:
    """Remove what tests that were killed have left here."""
    for path in rundir.ROOT.glob("test-*"):
        own = OWN.fullmatch(path.name)
        if own and not pathlib.Path("/proc", own[1]).exists():
            lab.Lab(name=path.name).down()


@pytest.fixture(scope="session")
def labs() -> Iterator[Labs]:
    """Give the labs."""
    kept = Labs()
    yield kept
    kept.close()
