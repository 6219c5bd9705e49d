"""A pod with CAP_NET_RAW and CAP_NET_ADMIN tries everything, and no packet of it reaches whom a policy guards.

Every attack has a control: without agents it does arrive. Rules A14 to A16 (isolation), A24 (mapped addresses).
"""

from __future__ import annotations

import contextlib
import functools
import pathlib
import sys
from collections.abc import Callable, Iterator

import pytest

from agent.lab import plan
from tests.system import campaign, conftest, engines
from tests.system.attacks import sockets, uring

pytestmark = [pytest.mark.root, pytest.mark.slow]

UNSEEN = {
    "UDP-Lite connect(), send()",  # its protocol has no pre_connect, so no hook runs (net/ipv4/udplite.c, Linux 6.18)
    "ping socket",  # no hook runs
    "UDP connect(), send(), bound port",  # a server may answer whom it may not call (rule A38): only the packet
    "UDP sendto(), bound port",  # layer knows what is an answer
}
"""Not refused by the socket layer: the packet layer drops what they send."""
CONNECTS = {
    "TCP connect()",
    "IPv4-mapped, TCP connect()",
    "MPTCP connect()",
    "io_uring connect",
    "io_uring connect by the kernel's thread",
}
"""They end with the handshake, so that a reset is told to the call itself."""
FIGURES = pathlib.Path("build/figures")
SELECTED = (engines.NFBPF_ROUTED,)
"""Daily. Of the others, those without a socket layer say most: it would keep attacks from the packet layer."""
Control = Callable[[plan.Topology], list[campaign.Shot]]


@pytest.fixture(scope="module")
def control() -> Control:
    """Run the attacks where nothing is enforced, once for every engine."""
    return functools.cache(lambda topology: campaign.control(topology, conftest.lab_name("bypass")))


@pytest.fixture(scope="module", params=engines.by_combination(SELECTED))
def combination(request: pytest.FixtureRequest) -> engines.Combination:
    one: engines.Combination = request.param
    return one


@pytest.fixture(scope="module")
def shots(
    combination: engines.Combination, control: Control, request: pytest.FixtureRequest
) -> Iterator[list[campaign.Shot]]:
    found = [*control(combination.topology), *campaign.run(combination, conftest.lab_name("bypass"))]
    yield found
    lines = [f"Bypass attempts, {combination.name}: settings in which a packet reached the victim", ""]
    text = "\n".join(lines + campaign.table(found)) + "\n"
    FIGURES.mkdir(parents=True, exist_ok=True)
    (FIGURES / f"bypass-{combination.name}.txt").write_text(text)
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture is not None else contextlib.nullcontext():
        sys.stdout.write(f"\n{text}")


def _told(shots: list[campaign.Shot]) -> str:
    return "\n".join(f"{s.attack}: {s.victim} IPv{s.family} under {s.phase.value}: {s.outcome}" for s in shots)


def test_every_attack_arrives_without_a_policy(shots: list[campaign.Shot]) -> None:
    blind = [shot for shot in shots if shot.phase is campaign.Phase.CONTROL and not shot.frames]
    if refusal := uring.refusal():
        blind = [shot for shot in blind if "io_uring" not in shot.attack]
        print(f"io_uring is not tried: {refusal}")
    assert not blind, f"these show nothing:\n{_told(blind)}"


def test_no_packet_of_any_attack_reaches_the_victim(shots: list[campaign.Shot]) -> None:
    attacks = [shot for shot in shots if not shot.attack.startswith(campaign.ADMITTED)]
    arrived = [shot for shot in attacks if shot.phase is not campaign.Phase.CONTROL and (shot.frames or shot.reads)]
    assert not arrived, f"these reached the victim:\n{_told(arrived)}"


def test_what_the_admitted_pod_does_goes_on_arriving(shots: list[campaign.Shot]) -> None:
    own = [shot for shot in shots if shot.attack.startswith(campaign.ADMITTED)]
    lost = [shot for shot in own if not shot.frames]
    assert not lost, f"these were lost:\n{_told(lost)}"


@pytest.mark.parametrize("phase", [campaign.Phase.INGRESS, campaign.Phase.EGRESS], ids=lambda one: str(one.value))
def test_a_denied_call_is_told_so_as_the_engine_can(
    shots: list[campaign.Shot], combination: engines.Combination, phase: campaign.Phase
) -> None:
    denial = combination.engine.near if phase is campaign.Phase.EGRESS else combination.engine.far
    calls = {attack.name for attack in (*sockets.ATTACKS, *uring.ATTACKS)}
    calls -= UNSEEN if denial is not combination.engine.far else set()
    denied = [shot for shot in shots if shot.phase is phase and shot.attack in calls]
    expected = [{denial.connect} if shot.attack in CONNECTS else denial.send for shot in denied]
    other = [shot for shot, outcomes in zip(denied, expected, strict=True) if shot.outcome not in outcomes]
    assert denied
    assert not other, f"these were told something else than {denial}:\n{_told(other)}"
