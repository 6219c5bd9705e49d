"""What a nursery forks is what would have been executed, save for the memory it shares."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from agent.datapath import probe
from agent.lab import agents, kernel, nursery, plan, removal, resolve, rundir, runner
from tests.lab import manifests

pytestmark = pytest.mark.root

FORKED = "from agent.lab import nursery; from tests.lab import forked; nursery.main(forked.main, ())"
WAIT_S = 10.0


class Place:
    """A cgroup, a network namespace and a nursery whose children tell of themselves."""

    def __init__(self, nursery_: pathlib.Path, directory: pathlib.Path, cgroup: pathlib.Path) -> None:
        """Use what was made."""
        self.nursery, self.directory, self.cgroup = nursery_, directory, cgroup

    def order(self, name: str, *flags: str, **changes: Any) -> dict[str, Any]:
        """Order a process of the nursery's."""
        return {
            "name": name,
            "netns": str(self.directory / "netns"),
            "cgroup": str(self.cgroup / "inner"),
            "log": str(self.directory / name.replace("/", "-")),
            "argv": [sys.executable, "-c", "program", *flags],
            "environment": {"OWN": name},
            "nursery": str(self.nursery),
            **changes,
        }

    def start(self, *orders: dict[str, Any]) -> dict[str, int]:
        """Have the builder start them, in a process of its own as always; return their numbers."""
        command = [sys.executable, "-c", "from agent.lab import runner; runner.main()"]
        done = subprocess.run(command, input=json.dumps({"processes": orders}), capture_output=True, text=True)  # noqa: PLW1510 - looked at below
        answer = json.loads(done.stdout)
        if "error" in answer:
            raise runner.Refused(answer["error"])
        pids: dict[str, int] = answer["pids"]
        return pids

    def said(self, name: str) -> dict[str, Any]:
        """Wait for what a process says of itself."""
        return dict(json.loads(self.log(name, "\n").splitlines()[0]))

    def log(self, name: str, wanted: str) -> str:
        """Wait until a process has said something."""
        path = self.directory / name.replace("/", "-")
        deadline = time.monotonic() + WAIT_S
        while not path.exists() or wanted not in path.read_text():
            assert time.monotonic() < deadline, f"{name} says nothing"
            time.sleep(0.01)
        return path.read_text()


@pytest.fixture(scope="module")
def cgroup() -> Iterator[pathlib.Path]:
    made = probe.cgroup_root(None) / f"nodewall-test-nursery-{os.getpid()}"
    made.mkdir()
    yield made
    removal.kill_cgroups([made])
    removal.remove_cgroup(made)


@pytest.fixture(scope="module")
def place(cgroup: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("nursery")
    netns = directory / "netns"
    make = f"from agent.lab import runner; runner.make_namespace({str(netns)!r}, {{}})"
    subprocess.run([sys.executable, "-c", make], check=True)
    with nursery.running(FORKED, os.environ) as socket:
        yield Place(socket, directory, cgroup)
    kernel.unmount(netns)


def test_a_forked_process_is_where_it_was_ordered_and_has_what_it_was_given(place: Place) -> None:
    (pid,) = place.start(place.order("agent/a", "--node", "n1")).values()
    said = place.said("agent/a")
    assert (said["pid"], said["session"]) == (pid, pid)
    assert said["arguments"] == ["-c", "--node", "n1"]
    assert said["shown"] == [sys.executable, "-c", "agent/a", "--node", "n1"]
    assert said["environment"] == {"OWN": "agent/a"}
    assert f"net:[{(place.directory / 'netns').stat().st_ino}]" == said["network"]
    assert said["cgroup"].splitlines()[-1].endswith(f"/{place.cgroup.name}/inner")
    assert said["child_signal"] is True, "it can wait for children of its own"
    assert pid in removal.processes(place.cgroup)


def test_it_has_no_descriptor_but_the_standard_ones(place: Place) -> None:
    place.start(place.order("agent/b"))
    *standard, listing = place.said("agent/b")["descriptors"]
    assert standard == [0, 1, 2]
    assert listing == 3, "what the directory was read by"


def test_two_of_them_draw_other_random_numbers(place: Place) -> None:
    place.start(place.order("agent/c"), place.order("agent/d"))
    assert place.said("agent/c")["random"] != place.said("agent/d")["random"]


def test_it_ends_as_a_program_does(place: Place) -> None:
    started = place.start(place.order("agent/e"), place.order("agent/f", "raise"))
    assert "ValueError: as it was told to" in place.log("agent/f", "ValueError")
    place.said("agent/e")
    os.kill(started["agent/e"], signal.SIGTERM)
    deadline = time.monotonic() + WAIT_S
    while {*started.values()} & {*removal.processes(place.cgroup)}:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_cannot_be_forked_is_named_and_the_next_one_can_be(place: Place) -> None:
    with pytest.raises(runner.Refused, match=r"agent/g: .*nowhere"):
        place.start(place.order("agent/g", netns="/nowhere"))
    place.start(place.order("agent/h"))
    assert place.said("agent/h")


def test_without_a_nursery_behind_the_socket_nothing_is_forked_and_all_are_named(place: Place) -> None:
    orders = [place.order(name, nursery=str(place.directory / "nobody")) for name in ("agent/i", "agent/j")]
    with pytest.raises(runner.Refused, match=r"agent/i, agent/j: the nursery .*/nobody forks nobody"):
        place.start(*orders)


def test_a_nursery_ends_with_who_started_it_and_its_children_stay(place: Place) -> None:
    with nursery.running(FORKED, os.environ) as socket:
        (pid,) = place.start(place.order("agent/k", nursery=str(socket))).values()
        parent = int(pathlib.Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[1])
    assert not pathlib.Path("/proc", str(parent)).exists()
    assert pid in removal.processes(place.cgroup)


def test_a_process_with_threads_forks_nobody() -> None:
    program = (
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start();"
        "from agent.lab import nursery; nursery.main(print, ())"
    )
    ended = subprocess.run([sys.executable, "-c", program, "0"], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "2 threads run" in ended.stderr


def test_agents_are_forked_only_where_the_environment_names_a_nursery(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = plan.plan(resolve.resolve([manifests.pod("a")]), plan.Topology.ROUTED)
    paths = rundir.RunDirectory("t")
    for value, forked in (("", False), ("/some/socket", True)):
        monkeypatch.setenv(nursery.ENVIRONMENT, value)
        (order,) = agents.orders(lab, paths, "auto", "auto")
        assert order.get("nursery") == (value if forked else None)
        with contextlib.suppress(KeyError):
            del order["nursery"]
        monkeypatch.delenv(nursery.ENVIRONMENT)
        assert order["argv"] == agents.orders(lab, paths, "auto", "auto")[0]["argv"]
