// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Whether a packet is allowed by what no rule can say: a name that was learned, or that queries are read. For a packet
 * layer that is none of ours: iptables asks by xt_bpf (`-m bpf --object-pinned`) at FORWARD and INPUT, where skb->data is
 * the network header. Matching is yes.
 *
 *   nw_names_new     packets of the connection's direction, of which conntrack has not seen both sides
 *   nw_names_open    those of which it has: a name that has expired still counts (names.h)
 *   nw_names_reply   packets of the other direction
 *
 * Three programs, for a socket filter sees nothing of conntrack; rules choose. What rows allow, and what is held, is
 * the rules' own business, and no match; so is whoever has no such set.
 */
#define NW_PACKET_OF_SKB

#include "engine.h"

#include "decide.h"
#include "packet.h"

#define NW_IP_VERSION_4 4

/* A packet of neither version is malformed. */
static __always_inline void names_parse(const struct __sk_buff *skb, struct packet *packet)
{
	__u8 version = 0;

	packet_read(skb, 0, &version, sizeof(version));
	if (version >> 4 == NW_IP_VERSION_4)
		packet_parse4(skb, 0, packet);
	else
		packet_parse6(skb, 0, packet);
}

/*
 * The client is an endpoint whose set has names or filters. A row with a filter allows where queries are read
 * (decide.h); a row without one is for the rules; and what rows deny may be allowed by a name.
 */
static __always_inline bool names_decide(const struct flow *flow, __u32 slot)
{
	const struct policy_value *row;
	struct endpoint client = {};
	struct denial denial;
	__u32 rule;

	endpoint_read(endpoint_of_address(&flow->client, flow->family, slot), slot, &client);
	if (client.number == NW_SLOT_EMPTY || client.held || !(client.egress_names | client.egress_asks))
		return false;
	row = row_find(client.egress_set, identity_of(&flow->server, flow->family, slot), NW_EGRESS, flow);
	if (row_allows(row, client.egress_asks))
		return row->asks != NW_ASKS_ANYTHING;
	denial_read(&denial, row);
	return client.egress_names && name_allows(client.number, client.egress_set, flow, &denial, &rule);
}

static __always_inline int names_allow(const struct __sk_buff *skb, bool established, bool reply)
{
	struct packet packet = {};
	struct moment now;

	if (!moment_read(&now))
		return 0;
	names_parse(skb, &packet);
	if (packet.flow.malformed)
		return 0;
	packet.flow.established = established;
	if (reply)
		flow_turn(&packet.flow);
	return names_decide(&packet.flow, now.slot);
}

SEC("socket") int nw_names_new(struct __sk_buff *skb)
{
	return names_allow(skb, false, false);
}

SEC("socket") int nw_names_open(struct __sk_buff *skb)
{
	return names_allow(skb, true, false);
}

SEC("socket") int nw_names_reply(struct __sk_buff *skb)
{
	return names_allow(skb, true, true);
}

char program_license[] SEC("license") = "Dual BSD/GPL";
