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
 * But for what is refused they let every packet through, whatever is in it. Here no pod can speak to itself: what it
 * sends over its loopback interface, or over one that it made, never comes by (F12, F12b).
 */
#include <linux/pkt_cls.h>

#include "dns_class.h"
#include "dns_filter.h"
#include "dns_maps.h"
#include "dns_message.h"
#include "dns_packet.h"
#include "dns_pending.h"
#include "dns_records.h"
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

static __always_inline void dns_query(struct __sk_buff *skb)
{
	struct dns_packet packet = {};
	struct dns_walk *walk;
	__u32 endpoint;

	if (dns_packet_read(skb, DNS_TO_RESOLVER, &packet) != DNS_MESSAGE ||
	    !dns_resolver_is_trusted(&packet.resolver))
		return;
	endpoint = dns_endpoint(skb);
	if (endpoint == NW_SLOT_EMPTY)
		return;
	walk = dns_message_load(skb, &packet);
	if (!walk || !dns_header_is(walk, 0) || !dns_question_read(walk))
		return;
	walk->told.endpoint = endpoint;
	dns_pending_put(walk, &packet);
	dns_count(NW_DNS_COUNT_QUERIES);
}

/* Learn what the answer in `walk` says; returns what came of it. `at` is behind the question. */
static __always_inline __u8 dns_answer_learn(struct dns_walk *walk)
{
	__u32 zero = 0, records = dns_be16(walk->message + 6);
	struct fqdn_config *config = NW_LOOKUP(fqdn_config, &zero);

	if (!config || walk->message[3] & NW_DNS_RCODE || !records)
		return NW_DNS_NEGATIVE;
	dns_classify(walk, config);
	if (!walk->classes)
		return NW_DNS_NO_RULE;
	if (records > NW_DNS_RECORDS_MAX)
		dns_count(NW_DNS_COUNT_TOO_MANY_RECORDS);
	dns_records_learn(walk, records);
	return walk->fault ? NW_DNS_MALFORMED : NW_DNS_LEARNED;
}

static __always_inline void dns_answer_tell(struct dns_walk *walk)
{
	dns_count(NW_DNS_COUNT_ANSWERS);
	dns_count(NW_DNS_COUNT_LEARNED - NW_DNS_LEARNED + walk->told.outcome);
	dns_tell(walk, true);
}

/* A whole message from port 53 to a pod of ours. */
static __always_inline void dns_answer_read(struct __sk_buff *skb, const struct dns_packet *packet, __u32 endpoint)
{
	struct dns_walk *walk = dns_message_load(skb, packet);

	if (!walk)
		return;
	walk->told.endpoint = endpoint;
	if (!dns_header_is(walk, NW_DNS_FLAG_ANSWER) || !dns_question_read(walk) || !dns_pending_take(walk, packet)) {
		if (skb->tc_index != NW_DNS_MADE_HERE)
			dns_count(NW_DNS_COUNT_UNASKED);
		return;
	}
	walk->told.outcome = dns_answer_learn(walk);
	if (packet->length > NW_DNS_MESSAGE_MAX)
		dns_count(NW_DNS_COUNT_TOO_LONG);
	dns_answer_tell(walk);
}

static __always_inline void dns_answer(struct __sk_buff *skb)
{
	struct dns_packet packet = {};
	enum dns_kind kind = dns_packet_read(skb, DNS_FROM_RESOLVER, &packet);
	__u32 endpoint;

	if (kind == DNS_NOTHING)
		return;
	endpoint = dns_endpoint(skb);
	if (endpoint == NW_SLOT_EMPTY)
		return;
	if (!dns_resolver_is_trusted(&packet.resolver)) {
		if (kind == DNS_MESSAGE)
			dns_count(NW_DNS_COUNT_UNTRUSTED);
		return;
	}
	if (kind == DNS_MESSAGE)
		dns_answer_read(skb, &packet, endpoint);
	else
		dns_count(kind == DNS_SPLIT ? NW_DNS_COUNT_SPLIT : NW_DNS_COUNT_FRAGMENTED);
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

	if (action == TC_ACT_UNSPEC)
		dns_query(skb);
	return action;
}

SEC("tc") int nw_dns_answer(struct __sk_buff *skb)
{
	dns_answer(skb);
	return TC_ACT_UNSPEC;
}

SEC("tc") int nw_dns_replay(struct __sk_buff *skb)
{
	return dns_replay(skb);
}

char program_license[] SEC("license") = "Dual BSD/GPL";
