"""The verbs that list and get, against an agent on a real socket, and what strangers' names can do to a terminal."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import pathlib
from collections.abc import Iterator

import pytest
from click import testing

from agent import errors
from agent.cli import escaping, main, service
from agent.model import labels, net, resources
from agent.observer import stream
from agent.rpc import details, getters
from tests.support import agents, served, told

EVIL = "e\x1b[31m\u202evil\n"
ADDRESS = ipaddress.ip_address("10.0.0.66")
HOSTILE_LABELS = labels.Labels({f"key{EVIL}": EVIL, "app": "b"})
HOSTILE_POD = dataclasses.replace(agents.pod(EVIL, ADDRESS, labels=HOSTILE_LABELS), uid=EVIL, ports=(served.HTTP,))
HOSTILE_SELECTOR = labels.LabelSelector(
    (labels.Requirement(key=f"key{EVIL}", operator=labels.Operator.IN, values=frozenset({EVIL})),)
)
HOSTILE_POLICY = resources.NetworkPolicy(
    namespace="x",
    name=EVIL,
    uid=EVIL,
    subject=HOSTILE_SELECTOR,
    directions=frozenset(net.Direction),
    ingress=(
        resources.PolicyRule(
            peers=(resources.PodPeer(pods=HOSTILE_SELECTOR),),
            ports=(resources.PortMatch(protocol=net.Protocol.TCP, port=EVIL),),
        ),
    ),
)
HOSTILE_SERVICE = dataclasses.replace(
    served.SERVICE, name=EVIL, cluster_addresses=(ipaddress.ip_address("10.96.0.66"),)
)
HOSTILE_HOST = resources.Host(name=EVIL, addresses=(ipaddress.ip_address("203.0.113.66"),))
SANDBOXES = (
    *agents.SANDBOXES,
    dataclasses.replace(agents.sandbox(EVIL, ADDRESS, 13), uid=EVIL),
)
PROCESS = getters.Process(
    settings=lambda: (
        details.Setting(name="source", value=EVIL, origin="command line"),
        details.Setting(name="log-level", value="info", origin="default", changeable=True),
    ),
    metrics=lambda: (
        details.MetricSample(name="nodewall_up", kind="gauge", value=1, help="Up."),
        details.MetricSample(name="nodewall_seen_total", kind="counter", labels={"what": EVIL}, value=0.25),
    ),
    set_log_level=lambda _level: EVIL,
)


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    verdicts = stream.Stream(clock=agents.ManualClock())
    verdicts.publish([agents.flow(), agents.flow()])
    hostile = (HOSTILE_POD, HOSTILE_POLICY, HOSTILE_SERVICE, HOSTILE_HOST, told.BY_NAME)
    now = served.enforcement(*hostile, sandboxes=SANDBOXES)
    node = served.Node(now, version=EVIL, source=EVIL, last_error=EVIL, not_ready=(EVIL,), proved=(EVIL,), node=EVIL)
    path = tmp_path_factory.mktemp("state") / "agent.sock"
    with served.agent(path, node, process=PROCESS, verdicts=verdicts, names=told.asked(now)):
        yield path


def run(socket: pathlib.Path, *arguments: str) -> testing.Result:
    return testing.CliRunner().invoke(main.root, [*arguments, "--socket", str(socket)])


def shown(socket: pathlib.Path, *arguments: str) -> str:
    result = run(socket, *arguments)
    assert result.exit_code == 0, result.output
    return result.output


def document(socket: pathlib.Path, *arguments: str) -> dict[str, object]:
    result = run(socket, *arguments, "-o", "json")
    assert result.exit_code == 0
    loaded = json.loads(result.stdout)
    assert isinstance(loaded, dict)
    return loaded


VERBS: tuple[tuple[str, ...], ...] = (
    ("status",),
    ("status", "--brief"),
    ("version",),
    ("endpoint", "list"),
    ("endpoint", "get", f"x/{EVIL}"),
    ("endpoint", "get", "x/b"),
    ("identity", "list"),
    ("identity", "get", "2"),
    ("ip", "get", "10.0.0.66"),
    ("ip", "get", "203.0.113.66"),
    ("ip", "get", "10.96.0.66"),
    ("policy", "list"),
    ("policy", "get", f"x/{EVIL}"),
    ("policy", "get", "to-b"),
    ("service", "list"),
    ("service", "get", f"x/{EVIL}"),
    ("fqdn", "cache"),
    ("fqdn", "cache", "x/a"),
    ("fqdn", "names"),
    ("fqdn", "explain", "x/a", told.NAME),
    ("fqdn", "explain", f"x/{EVIL}", str(told.FIRST)),
    ("config",),
    ("config", "get"),
    ("metrics",),
)
FORMS = ("table", "wide", "json", "yaml", "name", "jsonpath={..*}")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_no_control_character_of_a_stranger_is_printed(socket: pathlib.Path, verb: tuple[str, ...], form: str) -> None:
    result = run(socket, *verb, "-o", form)
    assert result.exit_code == (5 if verb[0] == "status" else 0), result.output
    assert escaping.HOSTILE.isdisjoint(result.output.replace("\n", ""))
    assert "vil\n" not in result.output


@pytest.mark.parametrize(
    "wrong",
    [
        ("endpoint", "get", EVIL * 2),
        ("policy", "get", EVIL * 2),
        ("ip", "get", EVIL),
        ("service", "get", EVIL * 2),
        ("identity", "get", "77"),
        ("fqdn", "cache", EVIL * 2),
        ("fqdn", "explain", "x/a", EVIL),
    ],
)
def test_errors_are_escaped_too_and_one_line(socket: pathlib.Path, wrong: tuple[str, ...]) -> None:
    result = run(socket, *wrong)
    assert result.exit_code in {1, 2}
    assert escaping.HOSTILE.isdisjoint(result.output.replace("\n", ""))


def test_an_endpoint_is_shown_with_its_rules_and_what_it_met(socket: pathlib.Path) -> None:
    text = shown(socket, "endpoint", "get", "x/b")
    assert "from pods with app=a in x on TCP http" in text
    assert "egress:    open: no policy selects it in this direction (A15)" in text
    assert "verdicts:  ingress dropped 2" in text
    whole = document(socket, "endpoint", "get", "x/b")["endpoint"]
    assert isinstance(whole, dict)
    assert whole["recent"] == {"ingress dropped": 2}


def test_names_are_what_get_takes(socket: pathlib.Path) -> None:
    for verb in ("endpoint", "policy", "service", "identity"):
        for name in shown(socket, verb, "list", "-o", "name").splitlines():
            if "\\" not in name:  # escaped, and no name of anything any more
                assert run(socket, verb, "get", name).exit_code == 0, name


def test_a_pod_with_several_sandboxes_is_named_by_ids(tmp_path: pathlib.Path) -> None:
    again = dataclasses.replace(agents.SANDBOXES[0], netns_cookie=99)
    now = served.enforcement(sandboxes=(*agents.SANDBOXES, again))
    with served.agent(tmp_path / "s", served.Node(now)) as path:
        names = shown(path, "endpoint", "list", "-o", "name").splitlines()
    assert sorted(names) == sorted([*(str(one.id) for one in now.state.endpoints.values() if one.pod == "a"), "x/b"])


def test_a_policy_is_shown_with_its_problems_and_rows(socket: pathlib.Path) -> None:
    text = shown(socket, "policy", "get", "to-b")
    assert "selects:   pods with app=b in x; isolates ingress" in text
    assert "problems:  spec.ingress[1].ports[0].endPort: is \\x1b[31modd\\u202e" in text
    assert "allow pods in x with app=a" in text


def test_rows_beyond_the_first_are_shown_when_asked_for(socket: pathlib.Path) -> None:
    many = [
        resources.PolicyRule(peers=(resources.IPBlock(cidr=ipaddress.ip_network(f"198.51.{number}.0/24")),), ports=None)
        for number in range(30)
    ]
    policy = dataclasses.replace(served.TO_B, name="many", ingress=tuple(many))
    now = served.enforcement(policy)
    with served.agent(socket.with_name("many.sock"), served.Node(now)) as path:
        assert "10 more" in shown(path, "policy", "get", "many")
        assert " more" not in shown(path, "policy", "get", "many", "-o", "wide")


def test_what_dns_told_is_listed_pod_by_pod(socket: pathlib.Path) -> None:
    first, second, unmeant = shown(socket, "fqdn", "cache", "x/a", "--no-headers").splitlines()
    assert first.split() == ["x", "a", str(told.FIRST), f"{told.NAME},", "www.example.com", told.STARRED, "in", "60s"]
    assert second.split()[-2:] == ["5s", "ago"]
    assert "no policy" in unmeant
    assert shown(socket, "fqdn", "cache", "-o", "name").split() == [
        f"x/a/{address}" for address in (told.FIRST, told.SECOND_ADDRESS, told.UNMEANT)
    ]


def test_names_of_policies_are_listed_with_what_counts(socket: pathlib.Path) -> None:
    starred, infix = shown(socket, "fqdn", "names", "--no-headers").splitlines()
    assert starred.split() == [told.STARRED, "CiliumNetworkPolicy", "x/by-name", "1", "-"]
    assert infix.split()[-2] == "0"


def test_a_name_is_explained_for_a_pod(socket: pathlib.Path) -> None:
    text = shown(socket, "fqdn", "explain", "x/a", told.NAME)
    assert f"{told.FIRST} by {told.NAME} (for 60s), www.example.com (for 30s): for 60s, in use" in text
    assert f"allow TCP 443 to {told.STARRED} (egress rule 0)" in text
    assert "1 of 2 addresses are open" in text
    whole = document(socket, "fqdn", "explain", "x/a", told.NAME)["explanation"]
    assert isinstance(whole, dict)
    assert whole["patterns"] == [told.STARRED]


def test_an_agent_that_learns_no_names_says_so(tmp_path: pathlib.Path) -> None:
    with served.agent(tmp_path / "s", served.Node(served.enforcement())) as path:
        assert "learns no names" in run(path, "fqdn", "names").output
        assert "learns no names" in shown(path, "fqdn", "explain", "x/a", told.NAME)


def test_metrics_are_chosen_by_a_part_of_the_name_or_a_pattern(socket: pathlib.Path) -> None:
    assert shown(socket, "metrics", "up").splitlines()[1].split() == ["nodewall_up", "-", "1"]
    assert shown(socket, "metrics", "*_total", "--no-headers").split()[0] == "nodewall_seen_total"
    assert shown(socket, "metrics", "nothing").split() == ["NAME", "LABELS", "VALUE"]


def test_the_log_level_is_set_and_another_word_is_usage(socket: pathlib.Path) -> None:
    assert shown(socket, "config", "set", "log-level", "debug").startswith("log-level debug (it was e\\x1b")
    assert run(socket, "config", "set", "log-level", "loud").exit_code == 2
    assert shown(socket, "config") == shown(socket, "config", "get")


def test_a_service_is_found_by_name_and_one_that_is_not_there_is_not() -> None:
    one, other = details.Service(namespace="x", name="web"), details.Service(namespace="y", name="web")
    assert service.named([one, other], "y/web") is other
    with pytest.raises(errors.InvalidInput, match="x/web, y/web"):
        service.named([one, other], "web")
    with pytest.raises(errors.NotFound):
        service.named([one, other], "db")


def test_versions_are_of_both_sides_and_no_agent_is_exit_code_4(socket: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert document(socket, "version")["agent"] == EVIL
    alone = testing.CliRunner().invoke(main.root, ["version", "--client"])
    assert alone.exit_code == 0
    silent = run(tmp_path / "none.sock", "version")
    assert silent.exit_code == 4
    assert silent.stdout.startswith("agentctl: ")
    assert "does not answer" in silent.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_that_asks_agentctl(shell: str) -> None:
    result = testing.CliRunner().invoke(main.root, ["completion", shell])
    assert result.exit_code == 0
    assert "_AGENTCTL_COMPLETE" in result.output


def test_verbs_are_completed_without_importing_them() -> None:
    environment = {"_AGENTCTL_COMPLETE": "bash_complete", "COMP_WORDS": "agentctl po", "COMP_CWORD": "1"}
    result = testing.CliRunner().invoke(main.root, [], prog_name="agentctl", env=environment)
    assert result.output.splitlines() == ["plain,policy"]
