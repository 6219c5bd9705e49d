"""One lab for many tests: tables of the same nodes follow each other, and each only changes the manifests."""

from __future__ import annotations

import json
import os
import pathlib
import re
from collections.abc import Iterator

import pytest

from agent.lab import lab, resolve, rundir
from agent.lab import nursery as nursery_
from agent.rpc import client
from tests.support import kernel
from tests.system import engines, telling

OWN = re.compile(r"test-([0-9]+)(-.+)?")
"""Names of labs of tests: several runs share a machine, so each has the process id in it."""


class Labs:
    """Keeps the lab of the last test, and builds another when the next needs other nodes or another engine."""

    def __init__(self) -> None:
        """Build nothing yet."""
        self._key = ""
        self._lab: lab.Lab | None = None
        self._telling: telling.Telling | None = None

    def running(self, documents: list[resolve.Document], combination: engines.Combination) -> lab.Lab:
        """Return a lab of that engine and topology that can take on the documents, which are not applied yet."""
        nodes = [document for document in documents if document["kind"] == "Node"]
        key = json.dumps([nodes, combination.name], sort_keys=True, default=str)
        if self._lab is None or key != self._key:
            self.close()
            built = combination.engine.lab(f"test-{os.getpid()}", combination.topology)
            built.up(documents)
            self._key, self._lab = key, built
            check_engine(built, combination.engine)
        return self._lab

    def telling(self) -> telling.Telling:
        """Return what the agents of the running lab tell."""
        assert self._lab is not None, "no lab is running"
        if self._telling is None:
            paths = self._lab.paths
            agents = {node: client.AgentClient(paths.agent_socket(node)) for node in self._lab.plan.nodes}
            self._telling = telling.Telling(agents)
        return self._telling

    def close(self) -> None:
        """Take the lab down."""
        if self._telling is not None:
            self._telling.close()
        if self._lab is not None:
            self._lab.down()
        self._lab = self._telling = None


def lab_name(purpose: str) -> str:
    """Return a short name for a test's own lab, one that `cleared` knows; labs of one purpose follow each other."""
    return f"test-{os.getpid()}-{purpose[:2]}"


def check_engine(running: lab.Lab, engine: engines.Engine) -> None:
    """Make sure that the agents of a lab do not enforce in another way than they were told to."""
    for node in running.plan.nodes:
        with client.AgentClient(running.paths.agent_socket(node)) as agent:
            assert agent.status().mode == engine.status


@pytest.fixture(autouse=True)
def possible(request: pytest.FixtureRequest) -> None:
    """Skip what a test would do with an engine that this kernel cannot have."""
    callspec = getattr(request.node, "callspec", None)
    values = callspec.params.values() if callspec else ()
    lacking = kernel.lacks_packet_layer()
    if lacking and any(getattr(value, "engine", value) == engines.NFBPF for value in values):
        pytest.skip(lacking)


@pytest.fixture(scope="session", autouse=True)
def nursery(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have agents of labs forked, unless NODEWALL_NURSERY is set and empty: that has each executed."""
    builds = any(item.get_closest_marker("root") for item in request.session.items)
    if nursery_.ENVIRONMENT in os.environ or not builds:
        yield
        return
    with nursery_.running(nursery_.AGENTS, os.environ) as path, pytest.MonkeyPatch.context() as patched:
        patched.setenv(nursery_.ENVIRONMENT, str(path))
        yield


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
