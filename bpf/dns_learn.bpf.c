// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The DNS learner, at the host side of a pod's veth. The kernel reads an answer before the pod does, so what the answer
 * says may be connected to from the moment it arrives, and no agent need be alive for it.
 *
 *   nw_dns_query    tc ingress  from the pod: remembers which question it asks of which resolver, and refuses what
 *                               policies do not let it ask
 *   nw_dns_answer   tc egress   towards the pod: learns the addresses in the answer to a remembered question
 *   nw_dns_replay   run by user space (BPF_PROG_TEST_RUN): learns what is in its history, by the same code
 *
 * But for what is refused, and for segments of a resolver that overtook others (dns_stream.h), they let every packet
 * through, whatever is in it. Here no pod can speak to itself: what it sends over its loopback interface, or over one
 * that it made, never comes by (F12, F12b).
 */
#include <linux/pkt_cls.h>

#include "dns_filter.h"
#include "dns_maps.h"
#include "dns_message.h"
#include "dns_packet.h"
#include "dns_segment.h"
#include "dns_take.h"
#include "lookup.h"

#define NW_DNS_REPLAY_ROWS (NW_DNS_MESSAGE_MAX / sizeof(struct replay_row))

static __always_inline bool dns_resolver_is_trusted(const struct addr6 *resolver)
{
	return NW_LOOKUP(fqdn_resolvers, resolver);
}

static __always_inline __u32 dns_endpoint(const struct __sk_buff *skb)
{
	struct moment now;

	return moment_read(&now) ? endpoint_of_interface(skb->ifindex, now.slot) : NW_SLOT_EMPTY;
}

static __always_inline int dns_query(struct __sk_buff *skb)
{
	struct dns_packet packet = {};
	enum dns_kind kind = dns_packet_read(skb, DNS_TO_RESOLVER, &packet);
	struct dns_walk *walk;
	__u32 endpoint;

	if ((kind != DNS_MESSAGE && kind != DNS_SEGMENT) || !dns_resolver_is_trusted(&packet.resolver))
		return TC_ACT_UNSPEC;
	endpoint = dns_endpoint(skb);
	if (endpoint == NW_SLOT_EMPTY)
		return TC_ACT_UNSPEC;
	if (kind == DNS_SEGMENT)
		return dns_segment(skb, &packet, endpoint, DNS_TO_RESOLVER);
	walk = dns_message_load(skb, &packet);
	if (walk)
		dns_query_take(walk, &packet, endpoint);
	return TC_ACT_UNSPEC;
}

/* What was sent from port 53 to a pod of ours by who is no resolver. */
static __always_inline void dns_distrust(struct __sk_buff *skb, const struct dns_packet *packet, enum dns_kind kind)
{
	if (kind == DNS_MESSAGE || (kind == DNS_SEGMENT && dns_segment_is_message(skb, packet)))
		dns_count(NW_DNS_COUNT_UNTRUSTED);
}

static __always_inline int dns_answer(struct __sk_buff *skb)
{
	struct dns_packet packet = {};
	enum dns_kind kind = dns_packet_read(skb, DNS_FROM_RESOLVER, &packet);
	struct dns_walk *walk;
	__u32 endpoint;

	if (kind == DNS_NOTHING)
		return TC_ACT_UNSPEC;
	endpoint = dns_endpoint(skb);
	if (endpoint == NW_SLOT_EMPTY)
		return TC_ACT_UNSPEC;
	if (!dns_resolver_is_trusted(&packet.resolver)) {
		dns_distrust(skb, &packet, kind);
	} else if (kind == DNS_SEGMENT) {
		return dns_segment(skb, &packet, endpoint, DNS_FROM_RESOLVER);
	} else if (kind == DNS_MESSAGE) {
		walk = dns_message_load(skb, &packet);
		if (walk)
			dns_answer_take(skb, walk, &packet, endpoint);
	} else {
		dns_count(kind == DNS_SPLIT ? NW_DNS_COUNT_SPLIT : NW_DNS_COUNT_FRAGMENTED);
	}
	return TC_ACT_UNSPEC;
}

NW_DNS_STEP nw_dns_replay_step(NW_DNS_TURN)
{
	struct dns_walk *walk = NW_DNS_WALK;
	struct replay_row row;

	if (!walk)
		return 1;
	__builtin_memcpy(&row, dns_bytes(walk, index * sizeof(row)), sizeof(row));
	walk->target.endpoint = row.endpoint;
	walk->target.address = row.address;
	walk->expires_ns = row.expires_ns;
	walk->at += nw_dns_add(row.class_);
	return 0;
}

/* Behind an Ethernet header, up to NW_DNS_REPLAY_ROWS of struct replay_row. Returns how many found no room. */
static __always_inline int dns_replay(struct __sk_buff *skb)
{
	struct dns_packet packet = { .message = ETH_HLEN, .length = skb->len - ETH_HLEN };
	struct dns_walk *walk = dns_message_load(skb, &packet);

	if (!walk)
		return -1;
	walk->at = 0;
	dns_repeat(walk->length / sizeof(struct replay_row), NW_DNS_REPLAY_ROWS, nw_dns_replay_step, walk);
	return walk->at;
}

SEC("tc") int nw_dns_query(struct __sk_buff *skb)
{
	int action = dns_filter(skb);

	return action == TC_ACT_UNSPEC ? dns_query(skb) : action;
}

SEC("tc") int nw_dns_answer(struct __sk_buff *skb)
{
	return dns_answer(skb);
}

SEC("tc") int nw_dns_replay(struct __sk_buff *skb)
{
	return dns_replay(skb);
}

char program_license[] SEC("license") = "Dual BSD/GPL";
