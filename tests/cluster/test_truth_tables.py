"""The truth tables on three real nodes: nine pods dial each other's addresses and Services, in both families.

The pods are made once. Before the first table everybody reaches everybody: what a table says is blocked is blocked by
its policies. The connections are made inside the pods, by processes of ours that enter them.
"""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping

import pytest

from agent import patience
from tests.cluster import api, bed, deployment, enforced, inside, nine, prober, workloads
from tests.support import cases

pytestmark = [pytest.mark.cluster, pytest.mark.root, pytest.mark.slow]

TABLES = [cases.load(path) for path in sorted((cases.DIRECTORY / "networkpolicy").glob("*.yaml"))]
DAILY = frozenset({2, 10, 14, 20, 22, 28, 35, 38, 43})
"""Tables that stand for the others in `make test`: both directions, each kind of peer, ports, protocols, changes."""
PATIENCE_S = (0.7, 1.5, 3.0)
"""Time-outs of the tries, one after the other: who is reached and must not be is asked again as well, since labels
come to the agents on their own way."""
OPENING_S = (1.0, 3.0, 5.0, 5.0)
PAUSE_S = 0.2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nine:
    """The pods, ready to be asked."""

    cluster: bed.Bed
    agents: enforced.Agents
    probers: prober.Probers
    pods: Mapping[str, tuple[str, ...]]
    services: Mapping[str, tuple[str, ...]]

    def become(self, asked: api.Api, step: cases.Step) -> None:
        """Bring the cluster to what a step says; policies last, all of them or none."""
        documents = step.documents()
        for path, labels in nine.relabelled(documents):
            relabel(asked, path, labels)
        wanted = nine.policies(documents, self.pods)
        self.leave(asked, keep={(one["metadata"]["namespace"], one["metadata"]["name"]) for one in wanted})
        for policy in wanted:
            asked.apply(policy)
        self.agents.caught_up(asked)

    def leave(self, asked: api.Api, *, keep: Iterable[tuple[str, str]] = ()) -> None:
        """Delete policies."""
        for where in nine.NAMESPACES:
            for one in asked.get(api.policies(where))["items"]:
                if (where, one["metadata"]["name"]) not in keep:
                    asked.delete(f"{api.policies(where)}/{one['metadata']['name']}")

    def wrong(
        self, wanted: Iterable[tuple[prober.Question, bool]], patience_s: Iterable[float] = PATIENCE_S
    ) -> list[str]:
        """Return what is not as wanted, after the last time-out."""
        doubtful = list(wanted)
        shown: list[str] = []
        for timeout_s in patience_s:
            answers = self.answers([question for question, _ in doubtful], patience.seconds(timeout_s))
            pairs = [
                (one, answer)
                for one, answer in ((one, answers[one[0]]) for one in doubtful)
                if answer.allowed is not one[1] or (answer.allowed and answer.by != served(one[0]))
            ]
            doubtful = [one for one, _ in pairs]
            shown = [show(answer, allowed=allowed) for (_, allowed), answer in pairs]
            if not doubtful:
                break
            time.sleep(PAUSE_S)
        return shown

    def answers(self, questions: Iterable[prober.Question], timeout_s: float) -> dict[prober.Question, prober.Answer]:
        """Ask everything at once, save what stands in for SCTP: each of its sockets sees the packets of all others."""
        batches: dict[object, list[prober.Question]] = {}
        for question in questions:
            crowded = question.protocol == "SCTP"
            batches.setdefault((question.port, ":" in question.address) if crowded else None, []).append(question)
        return {answer.question: answer for batch in batches.values() for answer in self.probers.ask(batch, timeout_s)}


def served(question: prober.Question) -> str:
    """Return who is to answer."""
    return question.target.rpartition(" ")[2]


def show(answer: prober.Answer, *, allowed: bool) -> str:
    """Say what was wanted and what came."""
    asked = answer.question
    came = f"reached {answer.by}" if answer.allowed else answer.error
    where = f"{asked.source} -> {asked.target} ({asked.address}) {asked.port}/{asked.protocol}"
    return f"{where}: {'open' if allowed else 'blocked'} expected, {came} in {answer.milliseconds:.0f} ms"


def relabel(asked: api.Api, path: str, wanted: Mapping[str, str]) -> None:
    """Make an object's labels what they shall be, if they are not."""
    now = asked.get(path)["metadata"].get("labels", {})
    change = dict.fromkeys(now.keys() - wanted.keys()) | {k: v for k, v in wanted.items() if now.get(k) != v}
    if change:
        asked.merge(path, {"metadata": {"labels": change}})


@pytest.fixture(scope="module")
def pods(cluster: bed.Bed, deployed: deployment.Deployment) -> Iterator[Nine]:
    """Make the pods and enter them."""
    assert deployed.pods()
    with (
        api.Api(cluster.shape) as asked,
        enforced.Agents(cluster) as agents,
        workloads.namespaces(cluster, asked, *nine.namespaces()),
        tempfile.TemporaryDirectory(prefix="nwct") as directory,
        prober.Probers(pathlib.Path(directory), nine.PORTS) as probers,
    ):
        asked.create(*nine.pods(), *nine.services())
        for where in nine.NAMESPACES:
            workloads.ready(cluster, where)
        found = [pod for where in nine.NAMESPACES for pod in asked.get(api.pods(where))["items"]]
        places = [inside.place(cluster.shape.name, pod) for pod in found]
        probers.start(*places)
        yield Nine(
            cluster=cluster,
            agents=agents,
            probers=probers,
            pods={place.party: place.addresses for place in places},
            services={place.party: workloads.service(asked, *place.party.split("/")) for place in places},
        )


@pytest.fixture
def asked(pods: Nine) -> Iterator[api.Api]:
    with api.Api(pods.cluster.shape) as opened:
        pods.leave(opened)
        yield opened


@pytest.mark.daily
def test_without_policies_everybody_reaches_everybody(pods: Nine, asked: api.Api) -> None:
    pods.agents.caught_up(asked)
    everybody = [
        (question, True)
        for case in TABLES
        for check in case.steps[0].checks
        for question, _ in nine.questions(check, pods.pods, pods.services)
    ]
    wrong = pods.wrong(dict(everybody).items(), OPENING_S)
    assert not wrong, "\n  ".join(wrong)


def _parameters() -> Iterator[object]:
    for case in TABLES:
        daily = int(case.path.stem.partition("-")[0]) in DAILY
        yield pytest.param(case, marks=[pytest.mark.daily] if daily else [], id=case.path.stem)


@pytest.mark.parametrize("case", list(_parameters()))
def test_connections_are_as_the_table_says(pods: Nine, asked: api.Api, case: cases.Case) -> None:
    for number, step in enumerate(case.steps):
        pods.become(asked, step)
        wanted = [one for check in step.checks for one in nine.questions(check, pods.pods, pods.services)]
        assert wanted
        wrong = pods.wrong(wanted)
        assert not wrong, f"step {number + 1} of {case.path}:\n  " + "\n  ".join(wrong)
