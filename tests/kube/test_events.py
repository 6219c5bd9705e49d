"""Events about policies at a real API server: taken, shown with the policy, and counted up."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import pathlib
from typing import Any

import pytest

from agent import clock, problems, reconciler
from agent.datapath import memory
from agent.model import endpoint, resources
from agent.sources.kubernetes import access, connection, events, notices, source
from tests.kube import conftest, control, following

NETWORKING = "/apis/networking.k8s.io/v1"


def sender(plane: control.ControlPlane, directory: pathlib.Path, bearer: str = control.ADMIN) -> events.EventSender:
    kubeconfig = plane.kubeconfig(directory / "kubeconfig", token=bearer)
    return events.EventSender(access_=access.Access(kubeconfig=kubeconfig), node="n1", clock=clock.SystemClock())


def of(cluster: conftest.Cluster, *, count: int = 0) -> notices.Notice:
    """Return a notice about a policy that is there."""
    cluster.policy("odd-policy")
    read = cluster.client.get(cluster.path("networkpolicies", "odd-policy", root=NETWORKING))
    ref = resources.ObjectRef("NetworkPolicy", cluster.namespace, "odd-policy")
    problem = resources.Problem(ref, "spec.ingress[0].ports[0].endPort", "is odd; write another")
    uid = read["metadata"]["uid"]
    name, message = notices.name_of(problem, uid), notices.message_of(problem)
    return notices.Notice(policy=ref, uid=uid, name=name, message=message, count=count)


def shown(cluster: conftest.Cluster, uid: str) -> list[dict[str, Any]]:
    """Return what `kubectl describe networkpolicy` would show."""
    selector = f"fieldSelector=involvedObject.uid%3D{uid}%2CinvolvedObject.name%3Dodd-policy"
    return list(cluster.client.get(f"{cluster.path('events')}?{selector}")["items"])


def test_an_event_is_created_and_counted_up_and_is_shown_with_the_policy(
    plane: control.ControlPlane, cluster: conftest.Cluster, tmp_path: pathlib.Path
) -> None:
    notice, sends = of(cluster), sender(plane, tmp_path)
    assert sends.send(notice) == 1
    (event,) = shown(cluster, notice.uid)
    assert (event["type"], event["reason"], event["count"]) == ("Warning", "NotHonoured", 1)
    assert event["message"] == "spec.ingress[0].ports[0].endPort: is odd; write another"
    assert event["reportingComponent"] == "nodewall"
    assert sends.send(dataclasses.replace(notice, count=1)) == 2
    (event,) = shown(cluster, notice.uid)
    assert event["count"] == 2


def test_two_nodes_and_an_agent_that_starts_anew_make_one_event(
    plane: control.ControlPlane, cluster: conftest.Cluster, tmp_path: pathlib.Path
) -> None:
    notice = of(cluster)
    assert [sender(plane, tmp_path).send(notice) for _ in range(3)] == [1, 1, 1]
    assert len(shown(cluster, notice.uid)) == 1


def test_one_that_expired_is_created_anew(
    plane: control.ControlPlane, cluster: conftest.Cluster, tmp_path: pathlib.Path
) -> None:
    notice = of(cluster, count=7)
    assert sender(plane, tmp_path).send(notice) == 1
    assert len(shown(cluster, notice.uid)) == 1


def test_the_longest_message_and_name_are_taken(
    plane: control.ControlPlane, cluster: conftest.Cluster, tmp_path: pathlib.Path
) -> None:
    ref = resources.ObjectRef("NetworkPolicy", cluster.namespace, "p" * 253)
    problem = resources.Problem(ref, "spec", "ü\x1b" * 2000)
    name, message = notices.name_of(problem, ""), notices.message_of(problem)
    notice = notices.Notice(policy=ref, uid="", name=name, message=message, count=0)
    assert sender(plane, tmp_path).send(notice) == 1


def test_who_may_not_is_told_so(plane: control.ControlPlane, cluster: conftest.Cluster, tmp_path: pathlib.Path) -> None:
    with pytest.raises(connection.Failed, match="401"):
        sender(plane, tmp_path, bearer="unknown").send(of(cluster))


def test_a_server_that_is_gone_is_a_failure_within_seconds(
    plane: control.ControlPlane, cluster: conftest.Cluster, tmp_path: pathlib.Path
) -> None:
    kubeconfig = plane.kubeconfig(tmp_path / "kubeconfig", port=control.free_ports(1)[0])
    nobody = events.EventSender(access_=access.Access(kubeconfig=kubeconfig), node="n1", clock=clock.SystemClock())
    with pytest.raises(connection.Failed):
        nobody.send(of(cluster))


def test_from_a_policy_that_is_not_honoured_to_the_event_its_author_sees(
    plane: control.ControlPlane, cluster: conftest.Cluster, tmp_path: pathlib.Path
) -> None:
    cluster.policy("odd-policy")
    # This server validates, and stores no policy that we refuse; what a field of tomorrow would be is put in here.
    ref = resources.ObjectRef("NetworkPolicy", cluster.namespace, "odd-policy")
    problem = resources.Problem(ref, "spec.ingress[0].from[0]", "has a field that is not understood")
    granted = access.Access(kubeconfig=plane.kubeconfig(tmp_path / "kubeconfig"))
    wall = clock.SystemClock()

    async def scenario() -> None:
        loop = reconciler.Reconciler(
            datapath=memory.MemoryDatapath(),
            node="n1",
            deny_mode=endpoint.DenyMode.REJECT,
            hold_mode=endpoint.HoldMode.AUTO,
            clock=wall,
        )
        sends = events.EventSender(access_=granted, node="n1", clock=wall)
        teller = problems.Teller(node="n1", loop=loop, sender=sends, clock=wall)
        loop.set_sandboxes(())
        async with (
            asyncio.timeout(following.PATIENCE_S),
            contextlib.aclosing(source.KubernetesSource(access=granted, clock=wall).watch()) as updates,
        ):
            tasks = [asyncio.create_task(loop.run()), asyncio.create_task(teller.run())]
            try:
                update = await anext(updates)
                seen = dataclasses.replace(update.snapshot, problems=(problem,))
                loop.set_source(dataclasses.replace(update, snapshot=seen))
                while not teller.outcomes["created"]:  # noqa: ASYNC110 - nothing tells of it
                    await asyncio.sleep(0.02)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)

    asyncio.run(scenario())
    uid = cluster.client.get(cluster.path("networkpolicies", "odd-policy", root=NETWORKING))["metadata"]["uid"]
    (event,) = shown(cluster, uid)
    assert event["message"] == "spec.ingress[0].from[0]: has a field that is not understood"
    assert (event["source"]["component"], event["reportingInstance"]) == ("nodewall", "n1")
