// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The source check for pods on a bridge, at the host side of each pod's veth. There PRE_ROUTING sees only the bridge,
 * and neighbours on it would believe any ARP answer. Same rules as source.h, and for what resolves addresses:
 *
 *   ARP                       the sender's protocol address is the pod's own, or none (a probe, RFC 5227)
 *   neighbour advertisement   the target is the pod's own address, or link-local
 *   hop limit 255 behind headers that cannot be followed: dropped; it may be such an advertisement
 *   anything but IPv4, IPv6 and ARP, and tagged frames: dropped; nobody behind here could check their source
 */
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>

#include "engine.h"

#include "decide.h"
#include "emit.h"
#include "packet.h"
#include "source.h"

extern int bpf_dynptr_from_skb(struct __sk_buff *skb, __u64 flags, struct bpf_dynptr *ptr) __ksym;

#define NW_NEIGHBOUR_ADVERTISEMENT 136
#define NW_DISCOVERY_HOPS 255
#define NW_ARP_SENDER 14	/* hardware type to operation: 8 bytes, sender hardware address: 6 (RFC 826) */
#define NW_ADVERTISED 8

/* The frame is IPv4 or IPv6 and its source genuine. */
static __always_inline bool source_is_genuine(const struct packet *packet, __u32 ifindex, const struct moment *now)
{
	__u32 forged_by = source_forged_by(packet, ifindex, now->slot);

	if (forged_by == NW_SLOT_EMPTY)
		return true;
	source_report(&packet->flow, forged_by, now);
	return false;
}

/* A pod advertises no address but its own; that it advertises no route is in source.h. */
static __always_inline bool discovery_is_honest(const struct bpf_dynptr *data, const struct packet *packet,
						__u32 sender, const struct moment *now)
{
	struct addr6 target;

	if (packet->flow.malformed)
		return packet->hop_limit != NW_DISCOVERY_HOPS;
	if (!packet_is_discovery(packet) || packet->icmp_type != NW_NEIGHBOUR_ADVERTISEMENT)
		return true;
	return packet_read(data, packet->transport + NW_ADVERTISED, &target, sizeof(target)) &&
	       (addr_is_link_local6(&target) || endpoint_of_address(&target, NW_IPV6, now->slot) == sender);
}

static __always_inline bool arp_is_genuine(const struct bpf_dynptr *data, __u32 sender, const struct moment *now)
{
	struct flow flow = { .family = NW_IPV4 };
	__be32 claimed;

	if (!packet_read(data, ETH_HLEN + NW_ARP_SENDER, &claimed, sizeof(claimed)))
		return false;
	addr_set4(&flow.client, claimed);
	if (!claimed || endpoint_of_address(&flow.client, NW_IPV4, now->slot) == sender)
		return true;
	source_report(&flow, sender, now);
	return false;
}

static __always_inline bool frame_is_genuine(struct __sk_buff *skb, __u32 sender, const struct moment *now)
{
	struct packet packet = {};
	struct bpf_dynptr data;

	if (skb->vlan_present || bpf_dynptr_from_skb(skb, 0, &data))
		return false;
	switch (bpf_ntohs(skb->protocol)) {
	case ETH_P_ARP:
		return arp_is_genuine(&data, sender, now);
	case ETH_P_IP:
		packet_parse4(&data, ETH_HLEN, &packet);
		return source_is_genuine(&packet, skb->ifindex, now);
	case ETH_P_IPV6:
		packet_parse6(&data, ETH_HLEN, &packet);
		if (!source_is_genuine(&packet, skb->ifindex, now))
			return false;
		if (discovery_is_honest(&data, &packet, sender, now))
			return true;
		source_report(&packet.flow, sender, now);
		return false;
	default:
		return false;
	}
}

/* tc ingress (tcx or clsact) of the veth; an interface that no endpoint has passes. */
SEC("tc") int nw_tc_source(struct __sk_buff *skb)
{
	struct moment now;
	__u32 sender;

	if (!moment_read(&now))
		return TC_ACT_UNSPEC;
	sender = endpoint_of_interface(skb->ifindex, now.slot);
	if (sender == NW_SLOT_EMPTY || frame_is_genuine(skb, sender, &now))
		return TC_ACT_UNSPEC;
	return TC_ACT_SHOT;
}

char program_license[] SEC("license") = "Dual BSD/GPL";
