"""What a cluster is like, and what its tests are told, before there is one."""

from __future__ import annotations

import ipaddress
import json
import pathlib

import pytest

from tests.cluster import combinations, crowd, dialer, loads, networks, overlay, settings, upstream


def test_eight_combinations_have_eight_names_that_are_understood() -> None:
    names = [one.name for one in combinations.ALL]
    assert len(set(names)) == 8
    assert tuple(map(combinations.parse, names)) == combinations.ALL


def test_the_default_is_what_most_clusters_have_and_the_other_whole_suite_differs_in_everything() -> None:
    first, second = combinations.FULL
    assert first == combinations.DEFAULT
    assert (first.name, second.name) == ("ptp-iptables-nfbpf", "bridge-nftables-iptables")
    assert (first.flag, first.mode) == ("auto", "socket+nfbpf")
    assert (second.flag, second.mode) == ("iptables", "iptables")


@pytest.mark.parametrize("name", ["ptp", "ptp-ipvs", "calico-iptables-nfbpf", "ptp+iptables"])
def test_a_combination_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="choose from"):
        combinations.parse(name)


def test_settings_of_the_agent_are_written_where_they_differ_from_what_is_shipped(tmp_path: pathlib.Path) -> None:
    overlay.write(tmp_path, engine="iptables", hold="strict")
    written = json.loads((tmp_path / "agent" / "kustomization.yaml").read_text())
    assert written["configMapGenerator"][0]["literals"] == ["ENGINE=iptables", "HOLD=strict"]
    overlay.write(tmp_path)
    assert json.loads((tmp_path / "agent" / "kustomization.yaml").read_text())["configMapGenerator"] == []


def test_a_small_pool_is_as_large_as_asked_for(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "STATE", tmp_path)
    shape, member = settings.Shape(), settings.Member(number=2)
    (shape.state / member.name / "cni").mkdir(parents=True)
    networks.write(shape, member, pool=8)
    [path] = (shape.state / member.name / "cni").iterdir()
    ranges = [one for [one] in json.loads(path.read_text())["plugins"][0]["ipam"]["ranges"]]
    for one in ranges:
        begin, end = (ipaddress.ip_address(one[key]) for key in ("rangeStart", "rangeEnd"))
        assert int(end) - int(begin) == 7
        assert begin in ipaddress.ip_network(one["subnet"])
        assert end in ipaddress.ip_network(one["subnet"])
    assert ranges[0]["rangeStart"] in networks.pool(member, 8)


def test_the_crowd_has_no_address_twice() -> None:
    found = [crowd.addresses(number, each) for number in range(1000) for each in range(crowd.PODS_EACH)]
    assert len({four for four, _ in found}) == len({six for _, six in found}) == 10_000


def test_each_namespace_of_the_crowd_has_ten_pods_and_five_policies() -> None:
    size = crowd.Crowd(namespaces=3, local=1)
    for number in range(3):
        kinds = [document["kind"] for document in size.documents(number)]
        assert (kinds.count("Pod"), kinds.count("NetworkPolicy")) == (crowd.PODS_EACH, crowd.POLICIES_EACH)
    own = [document for document in size.documents(0) if document.get("spec", {}).get("nodeName") == "node1"]
    assert [document["metadata"]["name"] for document in own] == ["pod-0"]


def test_what_a_load_prints_is_added_up() -> None:
    assert loads.count([["ok", 3, 0.0, 1.0], ["slow", 1, 1.0, 2.0], ["ok", 2, 2.0, 3.0]]) == {"ok": 5, "slow": 1}


def test_quantiles_are_values_that_were_measured() -> None:
    values = [float(number) for number in range(1, 101)]
    assert (dialer.quantile(values, 0.5), dialer.quantile(values, 0.99), dialer.quantile([7.0], 0.99)) == (51, 100, 7)


def test_a_report_counts_specs_and_the_set_up_only_where_it_failed(tmp_path: pathlib.Path) -> None:
    def spec(kind: str, text: str, state: str) -> dict[str, object]:
        return {"LeafNodeType": kind, "LeafNodeText": text, "ContainerHierarchyTexts": ["Netpol"], "State": state}

    reports = [
        spec("SynchronizedBeforeSuite", "", "passed"),
        spec("It", "denies", "passed"),
        spec("It", "allows", "timedout"),
        spec("It", "of others", "skipped"),
        spec("ReportAfterSuite", "", "failed"),
    ]
    path = tmp_path / "report.json"
    path.write_text(json.dumps([{"RunTime": 90 * 10**9, "SpecReports": reports}]))
    report = upstream.read(path)
    assert report.passed == ("Netpol denies",)
    assert report.failed == ("Netpol ReportAfterSuite", "Netpol allows")
    assert str(report) == "1 passed, 2 failed, 1.5 minutes"


def test_ten_specs_are_ten_different_ones() -> None:
    assert len(set(upstream.TEN)) == 10
    assert not any(character in upstream.focus() for character in "()[]*+?\\")
