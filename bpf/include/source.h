/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Whether a packet's source address is its sender's. Checked before reassembly, conntrack and routing: later a forged
 * fragment would be in somebody's datagram, conntrack have taken a forged packet for a reply, or the node answered it.
 *
 *   1. it comes in by a pod's own interface: the source must be an address of that pod; discovery may also come
 *      from a link-local address or from none (RFC 4861, RFC 3810), but not router advertisements and redirects:
 *      a pod is no router, and a node that is no IPv6 router would believe it (RFC 6104, CVE-2020-10749)
 *   2. the source is a pod's of this node whose interface is known: it must come in there
 */
#ifndef NODEWALL_SOURCE_H
#define NODEWALL_SOURCE_H

#include "decide.h"
#include "emit.h"
#include "packet.h"

#define NW_ROUTER_ADVERTISEMENT 134
#define NW_REDIRECT 137

static __always_inline bool source_plays_router(const struct packet *packet)
{
	return packet_is_discovery(packet) &&
	       (packet->icmp_type == NW_ROUTER_ADVERTISEMENT || packet->icmp_type == NW_REDIRECT);
}

static __always_inline bool source_may_discover(const struct packet *packet)
{
	const struct addr6 *source = &packet->flow.client;

	return packet_is_discovery(packet) && (addr_is_link_local6(source) || addr_is_unspecified6(source));
}

/* The endpoint to blame; NW_SLOT_EMPTY: the source is genuine. */
static __always_inline __u32 source_forged_by(const struct packet *packet, __u32 in, __u32 slot)
{
	__u32 sender = endpoint_of_interface(in, slot);
	__u32 owner = endpoint_of_address(&packet->flow.client, packet->flow.family, slot);
	struct endpoint claimed = {};

	if (sender != NW_SLOT_EMPTY) {
		if (source_plays_router(packet))
			return sender;
		if (owner == sender || source_may_discover(packet))
			return NW_SLOT_EMPTY;
		return sender;
	}
	endpoint_read(owner, slot, &claimed);
	if (claimed.number != NW_SLOT_EMPTY && claimed.ingress_ifindex && claimed.ingress_ifindex != in)
		return claimed.number;
	return NW_SLOT_EMPTY;
}

static __always_inline void source_report(const struct flow *flow, __u32 endpoint, const struct moment *now)
{
	struct decision decision = {
		.endpoint = endpoint,
		.direction = NW_EGRESS,
		.verdict = NW_DROPPED,
		.reason = NW_SOURCE_SPOOFED,
	};

	count(NW_COUNT_SPOOFED);
	emit_packet(flow, &decision, now);
}

#endif
