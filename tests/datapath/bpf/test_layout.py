"""Keys and values survive the way to bytes and back."""

from __future__ import annotations

import ipaddress

import pytest

from agent import desired
from agent.datapath import base, plan
from agent.datapath.bpf import layout
from agent.model import net

FOUR, SIX = ipaddress.ip_address("192.0.2.7"), ipaddress.ip_address("2001:db8::7")


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        (plan.Table.POLICY, plan.PolicyKey(7, 9, net.Direction.INGRESS, 0, 0, 0), desired.Row(desired.Action.ALLOW, 3)),
        (plan.Table.POLICY, plan.PolicyKey(7, 9, net.Direction.EGRESS, 6, 0, 0), desired.Row(desired.Action.DENY, 3)),
        (
            plan.Table.POLICY,
            plan.PolicyKey(7, 9, net.Direction.EGRESS, 132, 65535, 16),
            desired.Row(desired.Action.DENY, 0xFFFFFFFF),
        ),
        (
            plan.Table.POLICY,
            plan.PolicyKey(7, 0xFFFFFFFF, net.Direction.EGRESS, 6, 443, 16),
            desired.Row(desired.Action.ALLOW, 3, rank=0, passed=0xFFFE),
        ),
        (
            plan.Table.POLICY,
            plan.PolicyKey(7, 9, net.Direction.EGRESS, 17, 53, 16),
            desired.Row(desired.Action.ALLOW, 3, asks=0xFFFFFFFF),
        ),
        (
            plan.Table.POLICY,
            plan.PolicyKey(0xFFFFFFFF, 0x80000001, plan.Asking.ASK, 0, 0, 0),
            desired.Row(desired.Action.ALLOW, 0),
        ),
        (plan.Table.SERVICE_CLASS, (5, 6), plan.ClassValue(desired.ServiceClass.ALL, 9)),
        (plan.Table.SERVICE_CLASS, (5, 6), plan.ClassValue(desired.ServiceClass.MIXED, 0, asks=0xFFFFFFFF)),
        (
            plan.Table.ENDPOINTS,
            0xFFFFFFFF,
            plan.EndpointValue(
                slots=(
                    None,
                    plan.EndpointSlot(ingress_set=0, egress_set=4, held=True, ingress_audit=5, egress_audit=6),
                ),
                ingress_ifindex=12,
            ),
        ),
        (
            plan.Table.ENDPOINTS,
            1,
            plan.EndpointValue(
                slots=(
                    plan.EndpointSlot(ingress_set=0, egress_set=4, held=False, egress_names=True),
                    plan.EndpointSlot(
                        ingress_set=0, egress_set=4, held=False, egress_audit_names=True, egress_asks=True
                    ),
                ),
                ingress_ifindex=12,
            ),
        ),
        (plan.Table.EP_BY_NETNS, 1 << 63, (1, 0)),
        (plan.Table.EP_BY_IFINDEX, 12, (0, 1)),
        (plan.Table.EP_BY_IP, FOUR, (1, 2)),
        (plan.Table.EP_BY_IP, SIX, (1, 2)),
        (plan.Table.IPCACHE_CIDR, ipaddress.ip_network("192.0.2.0/25"), (1, 2)),
        (plan.Table.IPCACHE_CIDR, ipaddress.ip_network("::/0"), (1, 2)),
        (plan.Table.HELD, ipaddress.ip_network("0.0.0.0/0"), (1, 1)),
        (plan.Table.FRONTEND, desired.Frontend(FOUR, 53, 17), (1, 2)),
        (plan.Table.FRONTEND, desired.Frontend(SIX, 65535, 132), (1, 2)),
    ],
)
def test_what_is_written_is_read_back(table: plan.Table, key: object, value: object) -> None:
    codec = layout.codec_of(table, key)
    raw_key, raw_value = codec.encode_key(key), codec.encode_value(value)
    assert (len(raw_key), len(raw_value)) == (codec.key_size, codec.value_size)
    assert (codec.decode_key(raw_key), codec.decode_value(raw_value)) == (key, value)


def test_the_families_of_a_table_go_to_different_maps() -> None:
    assert layout.codec_of(plan.Table.FRONTEND, desired.Frontend(FOUR, 53, 17)).name == "frontend4"
    assert layout.codec_of(plan.Table.HELD, ipaddress.ip_network("::/0")).name == "held6"


def test_an_address_of_an_event_is_ipv4_again_where_it_was_mapped_rule_a24() -> None:
    assert layout.decode_address(layout.encode_address(FOUR)) == FOUR
    assert layout.decode_address(layout.encode_address(SIX)) == SIX
    assert layout.decode_address(bytes(16)).is_unspecified


def test_a_hostile_command_name_never_breaks_decoding() -> None:
    fields: tuple[object, ...] = (0,) * 10 + (bytes(16),) * 2 + (b"\0\0",) * 2 + (0,) * 6
    event = layout.RawEvent._make((*fields, b"a\xff\x1b[2Jb\0garbage!"))
    assert event.command == "a\\xff\x1b[2Jb"


def test_the_usage_of_a_table_with_two_maps_is_told_of_each() -> None:
    four, six = ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("2001:db8::1")
    tables = plan.Tables(
        ipcache_host={four: (1, 1), four + 1: (1, 1), six: (1, 1)},
        frontend={desired.Frontend(six, 80, 6): (1, 1)},
    )
    usage = layout.usage(tables)
    room = plan.CAPACITY[plan.Table.IPCACHE_HOST]
    assert (usage["ipcache_host4"], usage["ipcache_host6"]) == (base.Usage(2, room), base.Usage(1, room))
    assert (usage["frontend4"].entries, usage["frontend6"].entries, usage["policy"].entries) == (0, 1, 0)
    assert usage.keys() == {codec.name for codecs in layout.CODECS.values() for codec in codecs}
