/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What becomes of a message that lies in this processor's walk: a question is remembered, its answer is learned. */
#ifndef NODEWALL_DNS_TAKE_H
#define NODEWALL_DNS_TAKE_H

#include "dns_class.h"
#include "dns_message.h"
#include "dns_pending.h"
#include "dns_records.h"
#include "dns_refuse.h"

/* What a pod of ours sends. Returns whether it was a query. */
static __always_inline bool dns_query_take(struct dns_walk *walk, const struct dns_packet *packet, __u32 endpoint)
{
	if (!dns_header_is(walk, 0) || !dns_question_read(walk))
		return false;
	walk->told.endpoint = endpoint;
	dns_pending_put(walk, packet);
	dns_count(NW_DNS_COUNT_QUERIES);
	return true;
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

/* What comes from a resolver to a pod of ours. */
static __always_inline void dns_answer_take(struct __sk_buff *skb, struct dns_walk *walk,
					    const struct dns_packet *packet, __u32 endpoint)
{
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

#endif
