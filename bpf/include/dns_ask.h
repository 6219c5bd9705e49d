/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What a pod sends, as far as a filter of names needs it: to whom, and whether it is a query that can be read whole.
 *
 * Ports are in the first part of a datagram, which is therefore the part that is judged: without it the others never
 * become one (RFC 8200 4.5, RFC 791 3.2; Linux takes no overlapping ones). A receiver acts on what comes behind IPv6
 * extension headers, so whoever has a filter may not hide behind any but a fragment header.
 */
#ifndef NODEWALL_DNS_ASK_H
#define NODEWALL_DNS_ASK_H

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#include "addr.h"
#include "dns_message.h"
#include "dns_packet.h"
#include "ip6.h"

#define NW_IP_OFFSET 0x1fff	/* iphdr.frag_off; of a fragment header it is the upper 13 bits */
#define NW_IP6_OFFSET 0xfff8
#define NW_MLD_HOP_LIMIT 1

enum ask_shape { ASK_WHOLE, ASK_FIRST_PART, ASK_LATER_PART, ASK_HIDDEN };

struct ask {
	struct flow flow;	/* from the pod to whom it sends */
	__u32 transport;	/* offset in the frame */
	__u32 end;		/* of the packet, likewise */
	__u32 shape;		/* enum ask_shape */
};

/* What a filter makes of it: a query it can look up, one whose name it cannot read, or nothing that may be answered. */
enum ask_kind { ASK_FOR_NAME, ASK_UNREADABLE, ASK_NO_QUERY };

static __always_inline bool ask_read4(struct __sk_buff *skb, struct ask *ask)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return false;
	ask->flow.family = NW_IPV4;
	addr_set4(&ask->flow.client, ip.saddr);
	addr_set4(&ask->flow.server, ip.daddr);
	ask->flow.protocol = ip.protocol;
	ask->transport = ETH_HLEN + ip.ihl * 4;
	ask->end = ETH_HLEN + bpf_ntohs(ip.tot_len);
	if (ip.frag_off & bpf_htons(NW_IP_OFFSET))
		ask->shape = ASK_LATER_PART;
	else if (ip.frag_off & bpf_htons(NW_DNS_FRAGMENT))
		ask->shape = ASK_FIRST_PART;
	return true;
}

/* Multicast listener discovery, the one thing that pods send behind a hop-by-hop header; it never leaves its link. */
static __always_inline bool ask_is_listening(struct __sk_buff *skb, const struct ask *ask, __u8 hop_limit)
{
	struct extension header;
	__u8 type;

	if (ask->flow.protocol != NW_PROTO_HOPOPTS || hop_limit != NW_MLD_HOP_LIMIT ||
	    bpf_skb_load_bytes(skb, ask->transport, &header, sizeof(header)) || header.next != NW_PROTO_ICMPV6 ||
	    bpf_skb_load_bytes(skb, ask->transport + extension_size(NW_PROTO_HOPOPTS, &header), &type, sizeof(type)))
		return false;
	return (type >= 130 && type <= 132) || type == 143;
}

static __always_inline bool ask_read6(struct __sk_buff *skb, struct ask *ask)
{
	struct extension header;
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return false;
	ask->flow.family = NW_IPV6;
	__builtin_memcpy(&ask->flow.client, &ip.saddr, sizeof(ask->flow.client));
	__builtin_memcpy(&ask->flow.server, &ip.daddr, sizeof(ask->flow.server));
	ask->flow.protocol = ip.nexthdr;
	ask->transport = ETH_HLEN + sizeof(ip);
	ask->end = ask->transport + bpf_ntohs(ip.payload_len);
	if (ask->flow.protocol == NW_PROTO_FRAGMENT) {
		if (bpf_skb_load_bytes(skb, ask->transport, &header, sizeof(header)))
			return false;
		ask->flow.protocol = header.next;
		ask->transport += extension_size(NW_PROTO_FRAGMENT, &header);
		ask->shape = header.offset & bpf_htons(NW_IP6_OFFSET) ? ASK_LATER_PART : ASK_FIRST_PART;
	}
	if (ask->shape != ASK_LATER_PART && header_is_extension(ask->flow.protocol) &&
	    !ask_is_listening(skb, ask, ip.hop_limit))
		ask->shape = ASK_HIDDEN;
	return true;
}

/* False: it is no packet whose receiver a filter could restrict. */
static __always_inline bool ask_read(struct __sk_buff *skb, struct ask *ask)
{
	__be16 ports[2] = {};

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (!ask_read4(skb, ask))
			return false;
	} else if (skb->protocol != bpf_htons(ETH_P_IPV6) || !ask_read6(skb, ask)) {
		return false;
	}
	if (ask->shape == ASK_LATER_PART)
		return false;
	if (ask->shape != ASK_HIDDEN && protocol_has_ports(ask->flow.protocol))
		bpf_skb_load_bytes(skb, ask->transport, ports, sizeof(ports));
	ask->flow.client_port = ports[0];
	ask->flow.server_port = ports[1];
	return true;
}

/* Bring the query into this processor's walk. Several datagrams in one buffer (GSO) are none. */
static __always_inline enum ask_kind ask_load(struct __sk_buff *skb, const struct ask *ask)
{
	struct dns_packet packet = { .resolver = ask->flow.server, .protocol = ask->flow.protocol };
	struct dns_walk *walk;
	struct udphdr udp;
	__u32 length;

	if (ask->shape != ASK_WHOLE || ask->flow.protocol != NW_PROTO_UDP || skb->gso_size ||
	    bpf_skb_load_bytes(skb, ask->transport, &udp, sizeof(udp)))
		return ASK_NO_QUERY;
	length = bpf_ntohs(udp.len);
	if (length < sizeof(udp) + NW_DNS_HEADER || length > sizeof(udp) + NW_DNS_MESSAGE_MAX ||
	    ask->transport + length != ask->end || ask->end > skb->len)
		return ASK_NO_QUERY;
	packet.message = ask->transport + sizeof(udp);
	packet.length = length - sizeof(udp);
	walk = dns_message_load(skb, &packet);
	if (!walk || !dns_header_is(walk, 0))
		return ASK_NO_QUERY;
	return dns_question_read(walk) ? ASK_FOR_NAME : ASK_UNREADABLE;
}

#endif
