"""The command line of nodewall-agent: checked once, before anything is touched."""

from __future__ import annotations

import ipaddress
import pathlib
import socket

import pytest

from agent import config, errors
from agent.datapath import engines
from agent.fqdn import history
from agent.model import audit, collector, endpoint, fqdn


def arguments(tmp_path: pathlib.Path, *more: str) -> list[str]:
    source = tmp_path / "manifests"
    source.mkdir(exist_ok=True)
    return ["--node", "node-1", "--source", str(source), "--state-dir", str(tmp_path / "state"), *more]


def test_flags_have_the_documented_defaults(tmp_path: pathlib.Path) -> None:
    parsed = config.parse(arguments(tmp_path))
    assert parsed.command is config.Command.RUN
    assert parsed.engine is engines.Engine.AUTO
    assert parsed.iptables is engines.Iptables.AUTO
    assert parsed.cgroup_root is None
    assert parsed.deny_mode is endpoint.DenyMode.REJECT
    assert parsed.hold_mode is endpoint.HoldMode.AUTO
    assert parsed.bpffs == pathlib.Path("/sys/fs/bpf")
    assert parsed.cni_results == pathlib.Path("/var/lib/cni/results")
    assert parsed.netns_dir == pathlib.Path("/run/netns")
    assert parsed.socket == tmp_path / "state" / "agent.sock"


def test_every_flag_is_read(tmp_path: pathlib.Path) -> None:
    more = ("--bpffs", "/b", "--cgroup-root", "/c", "--cni-results", "/r", "--deny-mode", "drop", "--hold", "strict")
    engine = ("--engine", "nfbpf", "--iptables", "legacy")
    parsed = config.parse(arguments(tmp_path, *more, *engine, "--log-level", "debug"))
    assert (parsed.bpffs, parsed.cgroup_root, parsed.cni_results) == tuple(map(pathlib.Path, ("/b", "/c", "/r")))
    assert parsed.deny_mode is endpoint.DenyMode.DROP
    assert parsed.hold_mode is endpoint.HoldMode.STRICT
    assert parsed.engine is engines.Engine.NFBPF
    assert parsed.iptables is engines.Iptables.LEGACY
    assert parsed.log_level == "debug"


@pytest.mark.parametrize("name", ["auto", "nfbpf", "socket+iptables", "iptables"])
def test_every_engine_is_named_in_the_help_and_taken(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert config.parse(arguments(tmp_path, "--engine", name)).engine.value == name
    with pytest.raises(SystemExit):
        config.parse(["--help"])
    assert "auto|nfbpf|socket+iptables|iptables" in capsys.readouterr().out


def test_the_runtime_is_the_first_that_is_there_the_one_told_or_none(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, absent = tmp_path / "crio.sock", tmp_path / "containerd.sock"
    monkeypatch.setattr(config, "CRI_SOCKETS", (absent, there))
    assert config.parse(arguments(tmp_path)).cri_socket is None
    with socket.socket(socket.AF_UNIX) as runtime:
        runtime.bind(str(there))
        assert config.parse(arguments(tmp_path)).cri_socket == there
        assert config.parse(arguments(tmp_path, "--cri-socket", "none")).cri_socket is None
    assert config.parse(arguments(tmp_path, "--cri-socket", str(absent))).cri_socket == absent
    assert config.parse(arguments(tmp_path, "--netns-dir", "/n")).netns_dir == pathlib.Path("/n")
    with pytest.raises(errors.InvalidInput, match="--cri-socket"):
        config.parse(arguments(tmp_path, "--cri-socket", "unix:///run/x.sock"))


def test_where_engines_have_their_things_follows_from_the_flags(tmp_path: pathlib.Path) -> None:
    home = config.parse(arguments(tmp_path, "--bpffs", "/b", "--cgroup-root", "/c")).home
    assert (home.node, home.bpffs, home.cgroup_root) == ("node-1", pathlib.Path("/b"), pathlib.Path("/c"))


def test_verdicts_of_a_kind_are_ten_a_second_unless_told(tmp_path: pathlib.Path) -> None:
    assert config.parse(arguments(tmp_path)).home.verdict_rate == 10
    for text, rate in (("0", 0), ("1", 1), ("1000000", 1_000_000)):
        assert config.parse(arguments(tmp_path, "--verdict-rate", text)).home.verdict_rate == rate
    for text in ("", "-1", "1000001", "ten", "1.5", "٣", "9" * 5000):
        with pytest.raises(errors.InvalidInput, match="--verdict-rate"):
            config.parse(arguments(tmp_path, f"--verdict-rate={text}"))


def test_health_and_metrics_are_answered_on_this_machine_only_unless_told(tmp_path: pathlib.Path) -> None:
    parsed = config.parse(arguments(tmp_path))
    here = ipaddress.ip_address("127.0.0.1")
    assert parsed.health_address == config.Listen(here, 9879)
    assert parsed.metrics_address == config.Listen(here, 9880)
    told = config.parse(arguments(tmp_path, "--health-address", "none", "--metrics-address", "[::]:80"))
    assert (told.health_address, told.metrics_address) == (None, config.Listen(ipaddress.ip_address("::"), 80))


def test_hubble_is_answered_on_the_socket_alone_unless_told(tmp_path: pathlib.Path) -> None:
    parsed = config.parse(arguments(tmp_path))
    assert parsed.hubble_address is None
    assert parsed.hubble_socket == parsed.state_dir / "hubble.sock"
    told = config.parse(arguments(tmp_path, "--hubble-address", "[::]:4244", "--hubble-certificates", "/c"))
    assert told.hubble_address == config.Listen(ipaddress.ip_address("::"), 4244)
    assert told.hubble_certificates == pathlib.Path("/c")


@pytest.mark.parametrize("flag", ["--health-address", "--metrics-address"])
@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "9879",
            ":9879",
            "localhost:9879",
            "127.0.0.1",
            "127.0.0.1:",
            "127.0.0.1:0",
            "127.0.0.1:65536",
            "::1:9879",
        ),
        *("[127.0.0.1]:1", "[fe80::1%eth0]:1", "127.0.0.1:+1", "127.0.0.1:٣", "127.0.0.1:1 ", "0127.0.0.1:1", "None"),
        "127.0.0.1:" + "9" * 5000,
    ],
)
def test_what_is_no_address_with_a_port_is_refused(tmp_path: pathlib.Path, flag: str, text: str) -> None:
    with pytest.raises(errors.InvalidInput, match=flag):
        config.parse(arguments(tmp_path, f"{flag}={text}"))


def test_uninstall_needs_no_source(tmp_path: pathlib.Path) -> None:
    parsed = config.parse(["uninstall", "--node", "node-1", "--state-dir", str(tmp_path)])
    assert parsed.command is config.Command.UNINSTALL
    assert parsed.source is None


@pytest.mark.parametrize("name", ["", "Node", "../x", "a/b", "a..b", "-a", "a-", "a_b", "x" * 254])
def test_a_node_name_that_is_no_dns_name_is_refused_for_it_becomes_a_directory(
    tmp_path: pathlib.Path, name: str
) -> None:
    given = arguments(tmp_path)
    given[1] = name
    with pytest.raises(errors.InvalidInput, match="--node"):
        config.parse([f"--node={name}", *given[2:]])


def test_a_source_that_is_no_directory_is_refused(tmp_path: pathlib.Path) -> None:
    given = arguments(tmp_path)
    given[3] = str(tmp_path / "nowhere")
    with pytest.raises(errors.InvalidInput, match="--source"):
        config.parse(given)


def test_a_state_directory_too_long_for_a_unix_socket_is_refused(tmp_path: pathlib.Path) -> None:
    given = arguments(tmp_path)
    given[5] = "/" + "d" * 100
    with pytest.raises(errors.InvalidInput, match="107 bytes"):
        config.parse(given)


def test_an_unknown_flag_is_usage(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        config.parse(arguments(tmp_path, "--engin", "auto"))
    assert ended.value.code == 2
    assert "--engin" in capsys.readouterr().err


def from_the_api_server(tmp_path: pathlib.Path, *more: str) -> list[str]:
    return ["--node", "node-1", "--source", "kubernetes", "--state-dir", str(tmp_path / "state"), *more]


def test_the_api_server_is_a_source(tmp_path: pathlib.Path) -> None:
    parsed = config.parse(from_the_api_server(tmp_path))
    assert parsed.source is None
    assert parsed.cluster == config.Cluster(kubeconfig=None, server="", server_name="")
    told = config.parse(
        from_the_api_server(
            tmp_path, "--kubeconfig", "/k", "--api-server", "https://192.0.2.1:6443", "--api-server-name", "api"
        )
    )
    assert told.cluster == config.Cluster(
        kubeconfig=pathlib.Path("/k"), server="https://192.0.2.1:6443", server_name="api"
    )
    assert config.parse(arguments(tmp_path)).cluster is None


@pytest.mark.parametrize("flag", ["--kubeconfig", "--api-server", "--api-server-name"])
def test_how_to_reach_an_api_server_is_for_that_source_only(tmp_path: pathlib.Path, flag: str) -> None:
    with pytest.raises(errors.InvalidInput) as refused:
        config.parse(arguments(tmp_path, flag, "x"))
    assert refused.value.field == flag
    assert "--source kubernetes" in refused.value.remedy


def test_what_is_in_audit_is_named_once_or_in_a_list_as_a_config_map_has_it(tmp_path: pathlib.Path) -> None:
    """Rule A51."""
    assert config.parse(arguments(tmp_path)).audit == audit.NOTHING
    empty = ("--audit-namespace=", "--audit-policy=", "--allow-audit-annotations=false")
    assert config.parse(arguments(tmp_path, *empty)).audit == audit.NOTHING
    more = ("--audit-namespace", "x, y", "--audit-namespace", "z", "--audit-policy=x/p y/q.r")
    found = config.parse(arguments(tmp_path, *more, "--allow-audit-annotations")).audit
    named = {audit.Target(name) for name in "xyz"} | {audit.Target("x", "p"), audit.Target("y", "q.r")}
    assert found == audit.Audit(flags=frozenset(named), annotations=True)


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        *(("--audit-namespace", text) for text in ("x/p", "X", "x_y", "*", "../x")),
        *(("--audit-policy", text) for text in ("x", "x/", "/p", "x/p/q", "x/P", "$(AUDIT_POLICIES)")),
    ],
)
def test_what_is_no_name_is_not_taken_for_nothing_to_audit(tmp_path: pathlib.Path, flag: str, text: str) -> None:
    with pytest.raises(errors.InvalidInput, match=flag):
        config.parse(arguments(tmp_path, flag, text))


def test_flow_logs_are_sent_only_where_a_flag_or_a_variable_says(tmp_path: pathlib.Path) -> None:
    assert config.parse(arguments(tmp_path)).collector is None
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}
    assert config.parse(arguments(tmp_path, "--otlp-endpoint", "none"), variables).collector is None
    assert config.parse(["uninstall", "--node", "n", "--state-dir", str(tmp_path)], variables).collector is None
    found = config.parse(arguments(tmp_path, "--otlp-flows", "all"), variables).collector
    assert found is not None
    assert (found.url, found.flows) == ("http://c:4317", collector.Flows.ALL)
    with pytest.raises(errors.InvalidInput, match="--otlp-endpoint: 'c' is not valid: write HOST:PORT"):
        config.parse(arguments(tmp_path, "--otlp-endpoint", "c"))


def test_resolvers_are_addresses_one_by_one_or_several_in_a_text(tmp_path: pathlib.Path) -> None:
    """F11: besides the cluster's own, those that the node's admin names."""
    assert config.parse(arguments(tmp_path)).resolvers == frozenset()
    parsed = config.parse(
        arguments(tmp_path, "--resolver", "192.0.2.53, 2001:db8::53", "--resolver", "::ffff:192.0.2.54")
    )
    assert {str(one) for one in parsed.resolvers} == {"192.0.2.53", "192.0.2.54", "2001:db8::53"}
    for wrong in ("dns.example.com", "192.0.2.0/24", "fe80::1%eth0", "192.0.2.53:53"):
        with pytest.raises(errors.InvalidInput, match="--resolver"):
            config.parse(arguments(tmp_path, "--resolver", wrong))


@pytest.mark.parametrize("reject", list(fqdn.Reject))
def test_what_is_refused_gets_the_answer_that_was_chosen(tmp_path: pathlib.Path, reject: fqdn.Reject) -> None:
    assert config.parse(arguments(tmp_path)).home.reject is fqdn.Reject.REFUSED
    assert config.parse(arguments(tmp_path, "--dns-reject", reject.value)).home.reject is reject


def test_answers_are_good_for_their_ttl_and_a_minute_unless_told(tmp_path: pathlib.Path) -> None:
    """F20: a minute's grace makes a TTL of 0 usable."""
    assert config.parse(arguments(tmp_path)).home.lifetimes == history.Lifetimes(min_ttl_s=0, grace_s=60)
    told = config.parse(arguments(tmp_path, "--dns-min-ttl", "30", "--dns-grace=120"))
    assert told.home.lifetimes == history.Lifetimes(min_ttl_s=30, grace_s=120)
    for wrong in ("-1", "1m", "", "604801", "9" * 400):
        with pytest.raises(errors.InvalidInput, match="--dns-grace"):
            config.parse(arguments(tmp_path, f"--dns-grace={wrong}"))
