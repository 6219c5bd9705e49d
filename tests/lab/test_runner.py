"""What the builder makes of orders that fail."""

from __future__ import annotations

import io
import json
import sys

import pytest

from agent.lab import lab, plan, runner
from tests.lab import manifests

pytestmark = pytest.mark.root


def test_a_refused_line_is_named_with_its_complaint(monkeypatch: pytest.MonkeyPatch) -> None:
    netns = "/proc/self/ns/net"
    orders = {"batches": [{"program": "ip", "netns": netns, "lines": ["route del 192.0.2.1/32", "link set nolink up"]}]}
    with pytest.raises(runner.Refused, match=r"'link set nolink up': Cannot find device"):
        runner.run(orders)
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(orders)))
    answer = io.StringIO()
    monkeypatch.setattr(sys, "stdout", answer)
    with pytest.raises(SystemExit):
        runner.main()
    assert "nolink" in json.loads(answer.getvalue())["error"]


def test_what_is_gone_already_may_be_deleted() -> None:
    lines = ["route del 192.0.2.1/32", "link del nolink"]
    runner.run({"batches": [{"program": "ip", "netns": "/proc/self/ns/net", "lines": lines}]})


def test_the_first_command_that_works_is_taken() -> None:
    runner.feed_first([["/no/such/program"], ["false"], ["cat"]], "/proc/self/ns/net", "text")
    with pytest.raises(runner.Refused, match="false"):
        runner.feed_first([["/no/such/program"], ["false"]], "/proc/self/ns/net", "text")


def test_a_lab_of_the_least_manifests_is_one_node_and_one_pod() -> None:
    pod = manifests.pod("a")
    del pod["spec"]["nodeName"]
    with lab.Lab(name="unit-least", topology=plan.Topology.BRIDGE, agents=False) as built:
        built.up([pod])
        assert list(built.plan.nodes) == ["node-1"]
        assert built.exec("x/a", ["ping", "-c1", "-W2", "172.18.0.2"], capture_output=True).returncode in (0, 127)
