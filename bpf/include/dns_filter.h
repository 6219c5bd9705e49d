/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Which names a pod may ask for. What it sends is judged by address as it was dialled, before any translation: the row
 * that allows it may have a filter, and then it is a query for a name that the filter has, or it does not get through.
 *
 * In this order:
 *   1. not a pod of ours, held, or no filter in its sets  -> passes; the packet layer has the say
 *   2. behind extension headers                           -> dropped
 *   3. a Service listens there: the filter of what is sent to it; else that of the row that allows it; none -> passes
 *   4. no whole standard query by UDP with one question   -> dropped
 *   5. a class of the name, as of this generation, has a row in the filter -> passes; else -> refused
 * The set in audit is asked likewise, and what it would not let through passes and is told (rule A51). A name that was
 * learned for an address lifts no filter from it.
 */
#ifndef NODEWALL_DNS_FILTER_H
#define NODEWALL_DNS_FILTER_H

#include "dns_ask.h"
#include "dns_class.h"
#include "dns_refuse.h"
#include "emit.h"

#define NW_ASKS_NOTHING 1	/* the filter that admits no name */

/* The filter that holds for a packet in one set; `number` NW_ASKS_ANYTHING: none. */
struct filter {
	__u32 number;
	__u32 set;
	__u32 rule;
};

static __always_inline void filter_find(struct filter *to, __u32 set, __u8 asks, const struct ask *ask, __u32 slot)
{
	const struct policy_value *row;
	const struct class_value *class;
	__u32 service;

	to->set = set;
	if (!asks)
		return;
	if (ask->shape == ASK_HIDDEN) {
		to->number = NW_ASKS_NOTHING;
		return;
	}
	service = service_at(&ask->flow, slot);
	if (service != NW_SLOT_EMPTY) {
		class = class_of(set, service);
		to->number = class ? class->asks : NW_ASKS_ANYTHING;
		to->rule = class ? class->rule : 0;
		return;
	}
	row = row_find(set, identity_of(&ask->flow.server, ask->flow.family, slot), NW_EGRESS, &ask->flow);
	if (!row || row->action != NW_ALLOW)
		return;
	to->number = row->asks;
	to->rule = row->rule;
}

/* Whether the name in this processor's walk may be asked for. */
static __always_inline bool filter_admits(const struct filter *filter, const struct ask *ask, enum ask_kind kind)
{
	struct dns_walk *walk = dns_walk_find();
	__u32 index;

	if (filter->number == NW_ASKS_ANYTHING)
		return true;
	if (!walk || kind != ASK_FOR_NAME)
		return false;
#pragma clang loop unroll(disable)
	for (index = 0; index < NW_DNS_CLASSES; index++) {
		if (index < walk->classes && row_of(filter->number, walk->class_[index], NW_ASK, &ask->flow))
			return true;
	}
	return false;
}

/* False: it is kept back, as too many of its kind were told. */
static __always_inline bool filter_may_tell(const struct ask *ask, __u32 endpoint, __u8 verdict,
					    const struct moment *now, __u32 *repeats)
{
	struct rate_key kind = {
		.endpoint = endpoint,
		.peer = identity_of(&ask->flow.server, ask->flow.family, now->slot),
		.port = ask->flow.server_port,
		.protocol = ask->flow.protocol,
		.direction = NW_ASK,
		.layer = NW_LAYER_PACKET,
		.verdict = verdict,
		.reason = NW_POLICY_DENIED,
	};
	struct rate_value *bucket = 0;

	if (!now->verdict_interval_ns)
		return true;
	if (!rate_admits(&kind, bpf_ktime_get_ns(), now->verdict_interval_ns, &bucket)) {
		count(NW_COUNT_EVENTS_SUPPRESSED);
		return false;
	}
	if (bucket)
		*repeats = rate_take(bucket);
	if (*repeats)
		count_more(NW_COUNT_EVENTS_REPEATED, *repeats);
	return true;
}

static __always_inline void filter_tell(const struct filter *filter, const struct ask *ask, enum ask_kind kind,
					__u32 endpoint, __u8 outcome, const struct moment *now)
{
	__u8 verdict = outcome == NW_DNS_REFUSED ? NW_DROPPED : NW_AUDIT;
	struct dns_walk *walk = dns_walk_find();
	__u32 repeats = 0;

	dns_count(outcome == NW_DNS_REFUSED ? NW_DNS_COUNT_REFUSED : NW_DNS_COUNT_WOULD_REFUSE);
	if (!walk || !filter_may_tell(ask, endpoint, verdict, now, &repeats))
		return;
	if (kind == ASK_NO_QUERY)
		walk->told.length = 0;
	walk->told.time_ns = bpf_ktime_get_boot_ns();
	walk->told.endpoint = endpoint;
	walk->told.outcome = outcome;
	walk->told.protocol = ask->flow.protocol;
	walk->told.resolver = ask->flow.server;
	walk->told.policy_set = filter->set;
	walk->told.rule = filter->rule;
	walk->told.client_port = ask->flow.client_port;
	walk->told.resolver_port = ask->flow.server_port;
	walk->told.repeats = repeats;
	dns_tell(walk, kind != ASK_NO_QUERY);
}

/* Read the query, and find out what classes its name has in the generation that counts. */
static __always_inline enum ask_kind filter_read(struct __sk_buff *skb, const struct ask *ask,
						 const struct fqdn_config *config, __u32 slot)
{
	enum ask_kind kind = ask_load(skb, ask);
	struct dns_walk *walk = dns_walk_find();

	if (kind == ASK_FOR_NAME && walk)
		dns_classify_in(walk, config, slot);
	return kind;
}

/* The action for what a pod with filters sends; TC_ACT_UNSPEC: it passes. */
static __always_inline int filter_judge(struct __sk_buff *skb, const struct endpoint *subject, const struct moment *now,
					const struct fqdn_config *config)
{
	struct filter enforced = {}, audit = {};
	struct ask ask = {};
	enum ask_kind kind;

	if (!ask_read(skb, &ask))
		return TC_ACT_UNSPEC;
	filter_find(&enforced, subject->egress_set, subject->egress_asks, &ask, now->slot);
	filter_find(&audit, subject->egress_audit, subject->egress_audit_asks, &ask, now->slot);
	if (enforced.number == NW_ASKS_ANYTHING && audit.number == NW_ASKS_ANYTHING)
		return TC_ACT_UNSPEC;
	kind = filter_read(skb, &ask, config, now->slot);
	if (!filter_admits(&enforced, &ask, kind)) {
		filter_tell(&enforced, &ask, kind, subject->number, NW_DNS_REFUSED, now);
		return kind == ASK_NO_QUERY || !config->reject ? TC_ACT_SHOT : ask_answer(skb, &ask, config->reject);
	}
	if (!filter_admits(&audit, &ask, kind))
		filter_tell(&audit, &ask, kind, subject->number, NW_DNS_WOULD_REFUSE, now);
	return TC_ACT_UNSPEC;
}

static __always_inline int dns_filter(struct __sk_buff *skb)
{
	struct endpoint subject = {};
	struct moment now;
	__u32 zero = 0;
	struct fqdn_config *config = NW_LOOKUP(fqdn_config, &zero);

	if (!config || !config->filters || !moment_read(&now))
		return TC_ACT_UNSPEC;
	endpoint_read(endpoint_of_interface(skb->ifindex, now.slot), now.slot, &subject);
	if (subject.number == NW_SLOT_EMPTY || subject.held || !(subject.egress_asks | subject.egress_audit_asks))
		return TC_ACT_UNSPEC;
	return filter_judge(skb, &subject, &now, config);
}

#endif
