"""A cluster of some 200 pods with policies and a day's traffic, the same every time; and the demo's."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import random
from collections.abc import Iterator, Mapping
from typing import Any

from agent import snapshot as snapshot_
from agent.decode import decode_all
from agent.lab import demo
from agent.model import net, resources
from agent.policy import evaluator, reachability

BEGAN_S = 1_795_255_200
Document = dict[str, Any]

WORKLOADS: Mapping[str, Mapping[str, tuple[int, tuple[int, ...]]]] = {
    "edge": {"ingress-nginx": (6, (443,)), "oauth2-proxy": (3, (4180,)), "cert-manager": (1, ())},
    "shop": {
        "storefront": (16, (8443,)),
        "cart": (8, (8080,)),
        "checkout": (8, (8080,)),
        "catalog": (10, (8080,)),
        "search": (6, (9200,)),
        "recommend": (5, (8080,)),
        "shop-redis": (3, (6379,)),
        "shop-pg": (3, (5432,)),
    },
    "payments": {
        "gateway": (6, (8443,)),
        "ledger": (4, (8080,)),
        "fraud": (4, (8080,)),
        "payments-pg": (3, (5432,)),
        "reconcile": (2, ()),
    },
    "accounts": {
        "identity": (6, (8080,)),
        "sessions": (4, (8080,)),
        "accounts-pg": (3, (5432,)),
        "mailer": (3, (8080,)),
    },
    "orders": {
        "orders-api": (8, (8080,)),
        "fulfilment": (5, (8080,)),
        "invoicing": (3, (8080,)),
        "orders-pg": (3, (5432,)),
    },
    "events": {"kafka": (5, (9092,)), "schema-registry": (2, (8081,)), "connect": (4, (8083,))},
    "analytics": {
        "ingest": (6, (8080,)),
        "spark": (13, (7077,)),
        "warehouse": (4, (8123,)),
        "dashboards": (2, (3000,)),
        "notebooks": (3, (8888,)),
    },
    "observability": {
        "prometheus": (2, (9090,)),
        "loki": (3, (3100,)),
        "grafana": (2, (3000,)),
        "alertmanager": (3, (9093,)),
    },
    "kube-system": {"coredns": (2, (53,)), "metrics-server": (2, (10250,))},
    "ci": {"runner": (16, ()), "registry": (2, (5000,))},
    "legacy": {"monolith": (4, (80,)), "legacy-mysql": (1, (3306,)), "ftp": (1, (21,))},
}
TALKS = (
    ("edge/ingress-nginx", "shop/storefront"),
    ("edge/ingress-nginx", "edge/oauth2-proxy"),
    ("edge/oauth2-proxy", "accounts/identity"),
    ("edge/ingress-nginx", "observability/grafana"),
    ("edge/ingress-nginx", "analytics/dashboards"),
    ("edge/ingress-nginx", "legacy/monolith"),
    ("shop/storefront", "shop/cart"),
    ("shop/storefront", "shop/catalog"),
    ("shop/storefront", "shop/checkout"),
    ("shop/storefront", "accounts/sessions"),
    ("shop/catalog", "shop/search"),
    ("shop/catalog", "shop/recommend"),
    ("shop/cart", "shop/shop-redis"),
    ("shop/catalog", "shop/shop-pg"),
    ("shop/checkout", "shop/shop-pg"),
    ("shop/checkout", "payments/gateway"),
    ("shop/checkout", "orders/orders-api"),
    ("payments/gateway", "payments/ledger"),
    ("payments/gateway", "payments/fraud"),
    ("payments/ledger", "payments/payments-pg"),
    ("payments/reconcile", "payments/ledger"),
    ("payments/ledger", "events/kafka"),
    ("accounts/identity", "accounts/accounts-pg"),
    ("accounts/sessions", "accounts/identity"),
    ("accounts/identity", "accounts/mailer"),
    ("orders/orders-api", "orders/orders-pg"),
    ("orders/orders-api", "orders/fulfilment"),
    ("orders/fulfilment", "orders/invoicing"),
    ("orders/orders-api", "events/kafka"),
    ("orders/invoicing", "accounts/mailer"),
    ("events/connect", "events/kafka"),
    ("events/connect", "events/schema-registry"),
    ("analytics/ingest", "events/kafka"),
    ("analytics/ingest", "analytics/spark"),
    ("analytics/spark", "analytics/warehouse"),
    ("analytics/dashboards", "analytics/warehouse"),
    ("analytics/notebooks", "analytics/warehouse"),
    ("observability/prometheus", "observability/alertmanager"),
    ("observability/grafana", "observability/prometheus"),
    ("observability/grafana", "observability/loki"),
    ("ci/runner", "ci/registry"),
    ("legacy/monolith", "legacy/legacy-mysql"),
    ("analytics/notebooks", "analytics/spark"),
    ("legacy/monolith", "orders/orders-api"),
)
NEVER = (
    ("orders/orders-api", "accounts/identity"),
    ("shop/recommend", "shop/shop-redis"),
    ("events/connect", "analytics/warehouse"),
    ("payments/reconcile", "events/kafka"),
    ("analytics/notebooks", "events/schema-registry"),
    ("ci/runner", "observability/alertmanager"),
)
"""Allowed as well, and nobody does."""
REFUSED = (
    ("ci/runner", "shop/shop-pg"),
    ("analytics/notebooks", "payments/payments-pg"),
    ("legacy/ftp", "accounts/identity"),
    ("shop/recommend", "payments/ledger"),
    ("legacy/monolith", "payments/payments-pg"),
    ("ci/runner", "accounts/accounts-pg"),
)


def documents() -> list[Document]:
    """Return the manifests of the large cluster."""
    found: list[Document] = []
    number = 0
    for namespace, workloads in WORKLOADS.items():
        found.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        if namespace != "legacy":
            found.append(policy(namespace, "default-deny", {}, types=("Ingress", "Egress")))
        for name, (pods, ports) in workloads.items():
            for ordinal in range(pods):
                found.append(_pod(namespace, name, number, ordinal, ports))
                number += 1
    for source, target in (*TALKS, *NEVER):
        found += _allow(source, target)
    web = {"app": "ingress-nginx"}
    everybody = [{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 443}]}]
    found.append(policy("edge", "front-door", web, ingress=everybody))
    bank = [{"to": [{"ipBlock": {"cidr": "198.51.100.0/24"}}], "ports": [{"port": 443}]}]
    found.append(policy("payments", "to-the-bank", {"app": "gateway"}, egress=bank))
    mail = [{"to": [{"ipBlock": {"cidr": "203.0.113.25/32"}}], "ports": [{"port": 587}]}]
    found.append(policy("accounts", "to-the-mail-relay", {"app": "mailer"}, egress=mail))
    return found


def policy(
    namespace: str,
    name: str,
    selected: Mapping[str, str],
    *,
    types: tuple[str, ...] = (),
    ingress: object = None,
    egress: object = None,
) -> Document:
    """Return a NetworkPolicy."""
    spec: Document = {"podSelector": {"matchLabels": dict(selected)}}
    if ingress is not None:
        spec["ingress"] = ingress
    if egress is not None:
        spec["egress"] = egress
    spec["policyTypes"] = list(types) or ["Ingress"] * (ingress is not None) + ["Egress"] * (egress is not None)
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}


def snapshot(manifests: list[Document]) -> snapshot_.Snapshot:
    """Return what manifests say, with addresses for all."""
    decoded = [one for document in manifests for one in decode_all(document)]
    items = [one.resource for one in decoded if one.resource is not None]
    return reachability.place(snapshot_.build(items, [problem for one in decoded for problem in one.problems])).snapshot


def demo_documents() -> list[Document]:
    """Return the demo's cluster with all its policies."""
    scenario = demo.scenario()
    return [*scenario.cluster, *(policy for step in scenario.steps for policy in step.policies)]


def demo_lines() -> Iterator[str]:
    """Yield the recording of the demo's last minutes."""
    talks = (
        ("host/customer", "edge/ingress", 443, 40),
        ("edge/ingress", "shop/frontend", 8443, 38),
        ("shop/frontend", "shop/backend", 8080, 36),
        ("shop/intruder", "shop/backend", 8080, 12),
        ("shop/intruder", "shop/frontend", 8443, 5),
        ("edge/ingress", "shop/backend", 8080, 3),
    )
    yield from _lines(snapshot(demo_documents()), talks)


def town_lines() -> Iterator[str]:
    """Yield the recording of the large cluster."""
    choose = random.Random(6)
    town = snapshot(documents())
    talks: list[tuple[str, str, int, int]] = []
    for pairs, most in ((TALKS, 60), (REFUSED, 20)):
        for source, target in pairs:
            ports = _ports(target)
            talks += [(source, target, port, choose.randrange(2, most)) for port in ports[:1]]
    talks += [
        ("203.0.113.77", "edge/ingress-nginx", 443, 80),
        ("payments/gateway", "198.51.100.20", 443, 60),
        ("accounts/mailer", "203.0.113.25", 587, 25),
        ("ci/runner", "192.0.2.44", 443, 14),
        ("legacy/ftp", "192.0.2.9", 21, 4),
    ]
    yield from _lines(town, tuple(talks))


def _lines(cluster: snapshot_.Snapshot, talks: tuple[tuple[str, str, int, int], ...]) -> Iterator[str]:
    ends = reachability.ends(cluster)
    for place, (source, target, port, count) in enumerate(talks):
        openers, receivers = _named(ends, source), _named(ends, target)
        for number in range(count):
            opener = openers[number % len(openers)]
            receiver = receivers[(number * 7 + number // len(openers)) % len(receivers)]
            (flow, *_) = reachability.flows(opener, receiver, (port, net.Protocol.TCP))
            decision = evaluator.evaluate(cluster, flow)
            time_s = BEGAN_S + place + number * 11
            yield json.dumps(_response(flow, decision.egress, time_s, 40000 + number))
            if decision.egress.allowed:
                yield json.dumps(_response(flow, decision.ingress, time_s, 40000 + number))


def _named(ends: Mapping[str, reachability.End], text: str) -> list[reachability.End]:
    if text[0].isdigit():
        return [resources.Host(name="", addresses=(ipaddress.ip_address(text),))]
    if text in ends:
        return [ends[text]]
    return [end for name, end in ends.items() if name.rsplit("-", 2)[0] == text]


def _response(flow: evaluator.Flow, side: evaluator.Side, time_s: int, source_port: int) -> Document:
    moment = dt.datetime.fromtimestamp(time_s, tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    policies = [side.rule.policy] if side.rule is not None else list(side.isolating) if not side.allowed else []
    named = [{"name": ref.name, "namespace": ref.namespace, "kind": ref.kind} for ref in policies]
    said = "allowed" if side.allowed else "denied"
    return {
        "flow": {
            "time": moment,
            "verdict": "FORWARDED" if side.allowed else "DROPPED",
            "IP": {
                "source": str(flow.source_address),
                "destination": str(flow.destination_address),
                "ipVersion": "IPv4",
            },
            "l4": {"TCP": {"source_port": source_port, "destination_port": flow.port}},
            "source": _endpoint(flow.source),
            "destination": _endpoint(flow.destination),
            "source_names": _names(flow.source),
            "destination_names": _names(flow.destination),
            "Type": "L3_L4",
            "node_name": "node-1",
            "traffic_direction": side.direction.name,
            "is_reply": False,
            f"{side.direction.name.lower()}_{said}_by": named,
        },
        "node_name": "node-1",
        "time": moment,
    }


def _endpoint(party: evaluator.Party) -> Document:
    if not isinstance(party, resources.Pod):
        return {"identity": 2, "labels": ["reserved:world"]}
    return {
        "identity": 300,
        "namespace": party.namespace,
        "pod_name": party.name,
        "labels": [f"k8s:{key}={value}" for key, value in party.labels.items()],
    }


def _names(party: evaluator.Party) -> list[str]:
    return [party.name] if isinstance(party, resources.Host) and party.name else []


def _pod(namespace: str, name: str, number: int, ordinal: int, ports: tuple[int, ...]) -> Document:
    template = f"{sum(map(ord, name)) * 7919 % 16**8:x}"
    suffix = f"{(number + 11) * 104729 % 36**5:05d}"[-5:]
    labels = {"app": name, "pod-template-hash": template}
    declared = [{"containerPort": port, "protocol": "UDP" if port == 53 else "TCP"} for port in ports]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{name}-{template}-{suffix}", "namespace": namespace, "labels": labels},
        "spec": {
            "nodeName": f"node-{ordinal % 5 + 1}",
            "containers": [{"name": "main", "image": "example/one", "ports": declared}],
        },
    }


def _ports(target: str) -> tuple[int, ...]:
    namespace, _, name = target.partition("/")
    return WORKLOADS[namespace][name][1]


def _allow(source: str, target: str) -> list[Document]:
    """Return what lets one workload talk to another: leave on one side and on the other."""
    (here, client), (there, server) = (text.split("/") for text in (source, target))
    ports = [{"port": port} for port in _ports(target)]

    def peer(namespace: str, app: str) -> Document:
        named = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
        return {"namespaceSelector": named, "podSelector": {"matchLabels": {"app": app}}}

    found = [
        policy(
            there, f"{server}-from-{client}", {"app": server}, ingress=[{"from": [peer(here, client)], "ports": ports}]
        )
    ]
    if here != "legacy":
        egress = [{"to": [peer(there, server)], "ports": ports}]
        found.append(policy(here, f"{client}-to-{server}", {"app": client}, egress=egress))
    return found if there != "legacy" else found[1:]
