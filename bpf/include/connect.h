/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What connect() and sendmsg() may know: the address as the application wrote it, before any translation.
 *
 * In this order:
 *   1. not a pod of ours                             -> silent
 *   2. loopback, or an address of the pod itself     -> silent (rule A40)
 *   3. held                                          -> denied  ENDPOINT_HELD
 *   4. no policy selects it for egress               -> silent, the packet layer reports it
 *   5. a Service listens there: none of its backends allowed -> denied SERVICE_DENIED; all -> allowed;
 *      otherwise -> silent, the packet layer judges the backend that is chosen
 *   6. the rows decide (decide.h); that an unknown address of a pod range is held is left to the packet layer,
 *      which knows it from the node's own gateway address
 *   7. what is allowed, or passes for 4, is put to the audit set by 5 and 6: what that denies passes as AUDIT (rule A51)
 * Silent means: passes here, no event.
 */
#ifndef NODEWALL_CONNECT_H
#define NODEWALL_CONNECT_H

#include "decide.h"

/* False: the backends differ, or nothing is known of them. */
static __always_inline bool decide_service(struct decision *to, __u32 service)
{
	const struct class_value *class = class_of(to->policy_set, service);

	if (!class)
		return false;
	if (class->asks != NW_ASKS_ANYTHING && !to->asks)
		return false;
	if (class->class_ == NW_CLASS_NONE) {
		to->rule = class->rule;
		decide(to, NW_DROPPED, NW_SERVICE_DENIED);
		return true;
	}
	if (class->class_ == NW_CLASS_ALL) {
		to->rule = class->rule;
		decide(to, NW_FORWARDED, NW_RULE_ALLOWED);
		return true;
	}
	return false;
}

/* What one set says of an address as it was dialled. False: nothing, it is left to the packet layer. */
static __always_inline bool decide_dialled(struct decision *to, const struct flow *flow, __u32 slot)
{
	__u32 service;

	if (to->policy_set == NW_NOT_ISOLATED)
		return false;
	service = service_at(flow, slot);
	if (service != NW_SLOT_EMPTY)
		return decide_service(to, service);
	decide_rows(to, flow, identity_of(&flow->server, flow->family, slot));
	return true;
}

/* False: silent. */
static __always_inline bool decide_connect(struct decision *to, const struct flow *flow, __u64 cookie, __u32 slot)
{
	struct decision audit = {};
	struct endpoint subject = {};
	bool told;

	endpoint_read(endpoint_of_netns(cookie, slot), slot, &subject);
	if (subject.number == NW_SLOT_EMPTY || addr_is_loopback(&flow->server, flow->family) ||
	    endpoint_of_address(&flow->server, flow->family, slot) == subject.number)
		return false;
	to->endpoint = subject.number;
	to->direction = NW_EGRESS;
	if (subject.held) {
		decide(to, NW_DROPPED, NW_ENDPOINT_HELD);
		return true;
	}
	audit = *to;
	to->policy_set = subject.egress_set;
	to->names = subject.egress_names;
	to->asks = subject.egress_asks;
	audit.policy_set = subject.egress_audit;
	audit.names = subject.egress_audit_names;
	audit.asks = subject.egress_audit_asks;
	told = decide_dialled(to, flow, slot);
	if (audit.policy_set == NW_NOT_ISOLATED || to->verdict == NW_DROPPED)
		return told;
	if (!told && subject.egress_set != NW_NOT_ISOLATED)
		return false;	/* the backends differ: the packet layer has the say, and audits */
	decide_dialled(&audit, flow, slot);
	decide_audit(to, &audit);
	return told || to->verdict == NW_AUDIT;
}

#endif
