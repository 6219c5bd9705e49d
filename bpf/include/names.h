/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What an endpoint may reach by name. Asked only where the rows deny, and only for a set that has rows of name classes:
 * whoever is allowed without names, or denied where there are none, pays for no look-up here.
 *
 * A set is a list of rules, and the first that matches decides; rows are what is left of it for an identity, so each
 * says where in the list it comes from (struct policy_value). A name allows what the identity's row denies if its rule
 * comes first; in the Admin tier, which the identity may have left by a Pass, if it comes before that too.
 *
 * An address counts for a class until that expires. That is for what begins; what is under way goes on as long as the
 * class is allowed and the address remembered, which its use prolongs: a connection that conntrack has seen both sides
 * of (F17), and datagrams to the address unless there is none in NW_NAMES_IDLE_S (F18).
 */
#ifndef NODEWALL_NAMES_H
#define NODEWALL_NAMES_H

#include "addr.h"
#include "dns_types.h"
#include "lookup.h"
#include "types.h"

#define NW_NAMES_SECOND_NS 1000000000ULL
#define NW_NAMES_IDLE_S 60

/* conntrack knows where such a connection begins and ends. */
static __always_inline bool protocol_has_connections(__u8 protocol)
{
	return protocol == NW_PROTO_TCP || protocol == NW_PROTO_SCTP;
}

/* The time that counts for a flow. */
struct names_clock {
	__u64 now_ns;		/* CLOCK_BOOTTIME */
	__u64 since_ns;		/* what expires later counts; 0: a connection that has begun does not expire */
	__u64 second_ns;	/* of `datagrams_until_s`; 0: that means nothing to connections */
};

static __always_inline void names_clock_read(struct names_clock *clock, const struct flow *flow)
{
	clock->now_ns = bpf_ktime_get_boot_ns();
	clock->since_ns = clock->now_ns;
	clock->second_ns = NW_NAMES_SECOND_NS;
	if (!protocol_has_connections(flow->protocol))
		return;
	clock->second_ns = 0;
	if (flow->established)
		clock->since_ns = 0;
}

/*
 * NW_DNS_CLASS_NONE: it has expired. The learner may write while this reads: the time is read first, so a class that
 * comes never gives its time to the one that goes.
 */
static __always_inline __u32 learned_class_of(const volatile struct learned_class *of, const struct names_clock *clock)
{
	__u64 expires_ns = of->expires_ns;
	__u32 class = of->class_;

	if (expires_ns <= clock->since_ns && of->datagrams_until_s * clock->second_ns <= clock->since_ns)
		return NW_DNS_CLASS_NONE;
	return class;
}

/*
 * Written when they change, so that busy flows do not pass a cache line to and fro. Datagrams have a time of their own,
 * for a connection shall not keep an address open for new ones; a second more makes up for the part of one that is cut.
 */
static __always_inline void learned_use(struct learned_value *learned, struct learned_class *of,
					const struct names_clock *clock)
{
	__u32 until_s = clock->now_ns / NW_NAMES_SECOND_NS + NW_NAMES_IDLE_S + 1;

	if (clock->now_ns - learned->used_ns >= NW_NAMES_SECOND_NS)
		learned->used_ns = clock->now_ns;
	if (clock->second_ns && of->datagrams_until_s != until_s)
		of->datagrams_until_s = until_s;
}

/* What denies, and before what a name's rule must come. */
struct denial {
	__u32 rule;
	__u16 rank;
	__u16 admin_rank;	/* in the Admin tier; lower where the identity has left that by a Pass */
};

/* `row` null: no rule allows, which comes after all rules. */
static __always_inline void denial_read(struct denial *to, const struct policy_value *row)
{
	to->rule = row && row->action == NW_DENY ? row->rule : 0;
	to->rank = row ? row->rank : NW_RANK_NONE;
	to->admin_rank = row ? row->passed : NW_RANK_NONE;
	if (to->rank < to->admin_rank)
		to->admin_rank = to->rank;
}

/* A row that carves ports out of what a class allows has NW_RANK_NONE twice, and never comes first. */
static __always_inline bool name_comes_first(const struct policy_value *named, const struct denial *denial)
{
	return named->rank < denial->admin_rank || named->passed < denial->rank;
}

/*
 * Whether a name allows `flow` to what an endpoint has learned; then `rule` is its. Where several names do, the class
 * with the lowest number is told of: the order in which they were learned shall not show.
 */
static __always_inline bool name_allows(__u32 endpoint, __u32 set, const struct flow *flow,
					const struct denial *denial, __u32 *rule)
{
	__u32 index, class, best = 0, lowest = NW_DNS_CLASS_NONE;
	struct learned_value *learned = learned_of(endpoint, &flow->server);
	const struct policy_value *row;
	struct names_clock clock;

	if (!learned)
		return false;
	names_clock_read(&clock, flow);
#pragma clang loop unroll(disable)
	for (index = 0; index < NW_DNS_CLASSES; index++) {
		class = learned_class_of(&learned->of[index], &clock);
		if (class == NW_DNS_CLASS_NONE || (lowest && class >= lowest))
			continue;
		row = row_of(set, class, NW_EGRESS, flow);
		if (!row || !name_comes_first(row, denial))
			continue;
		best = index;
		lowest = class;
		*rule = row->rule;
	}
	if (lowest == NW_DNS_CLASS_NONE)
		return false;
	learned_use(learned, &learned->of[best & (NW_DNS_CLASSES - 1)], &clock);
	return true;
}

#endif
