/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A query becomes its own answer: sender and receiver change places in every header, which no checksum notices, and the
 * flags say no. It goes back to the pod at once, and no resolver ever sees it.
 */
#ifndef NODEWALL_DNS_REFUSE_H
#define NODEWALL_DNS_REFUSE_H

#include <linux/pkt_cls.h>

#include "dns_ask.h"

#define NW_DNS_FLAGS 2			/* offset in a message */
#define NW_DNS_FLAGS_KEPT 0x79		/* first byte: the operation, and that recursion was desired */
#define NW_DNS_FLAG_RECURSION 0x80	/* second byte: recursion is available */
#define NW_DNS_FLAGS2_KEPT 0x10		/* likewise: checking was disabled */
#define NW_DNS_MADE_HERE 0x4e57		/* skb->tc_index of an answer on its way to the pod */

/* Let what lies at `at` and right behind it change places; `length` is that of each. */
static __always_inline long halves_swap(struct __sk_buff *skb, __u32 at, void *room, __u32 length)
{
	long failed = bpf_skb_load_bytes(skb, at, room, 2 * length);

	return failed || bpf_skb_store_bytes(skb, at, room + length, length, 0) ||
	       bpf_skb_store_bytes(skb, at + length, room, length, 0);
}

static __always_inline long addresses_swap(struct __sk_buff *skb, __u8 family)
{
	__u8 room[2 * sizeof(struct addr6)];

	if (family == NW_IPV4)
		return halves_swap(skb, ETH_HLEN + __builtin_offsetof(struct iphdr, saddr), room, sizeof(__be32));
	return halves_swap(skb, ETH_HLEN + __builtin_offsetof(struct ipv6hdr, saddr), room, sizeof(struct addr6));
}

/* The checksum, if there is one, knows what changes here; whether it is complete or the card's to complete. */
static __always_inline long flags_answer(struct __sk_buff *skb, const struct ask *ask, __u8 rcode)
{
	__u32 at = ask->transport + sizeof(struct udphdr) + NW_DNS_FLAGS;
	__be16 before, after;
	__u8 *flags = (__u8 *)&after;

	if (bpf_skb_load_bytes(skb, at, &before, sizeof(before)))
		return 1;
	after = before;
	flags[0] = (flags[0] & NW_DNS_FLAGS_KEPT) | NW_DNS_FLAG_ANSWER;
	flags[1] = (flags[1] & NW_DNS_FLAGS2_KEPT) | NW_DNS_FLAG_RECURSION | (rcode & NW_DNS_RCODE);
	return bpf_skb_store_bytes(skb, at, &after, sizeof(after), 0) ||
	       bpf_l4_csum_replace(skb, ask->transport + __builtin_offsetof(struct udphdr, check), before, after,
				   BPF_F_MARK_MANGLED_0 | sizeof(after));
}

/* Send the query back as an answer with `rcode`. Returns the action; what fails drops it. */
static __always_inline int ask_answer(struct __sk_buff *skb, const struct ask *ask, __u8 rcode)
{
	__u8 room[2 * ETH_ALEN];

	if (halves_swap(skb, 0, room, ETH_ALEN) || addresses_swap(skb, ask->flow.family) ||
	    halves_swap(skb, ask->transport, room, sizeof(__be16)) || flags_answer(skb, ask, rcode))
		return TC_ACT_SHOT;
	skb->tc_index = NW_DNS_MADE_HERE;
	return bpf_redirect(skb->ifindex, 0);
}

#endif
