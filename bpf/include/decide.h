/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The decision: values in, verdict out. The compiler has flattened tiers and orders, so the row found is final.
 *
 * One side of a flow, in this order:
 *   1. the endpoint is held                          -> denied  ENDPOINT_HELD (rule A45)
 *   2. no policy selects it in this direction        -> allowed NOT_ISOLATED  (rule A15)
 *   3. the headers could not be followed             -> denied  MALFORMED
 *   4. longest match among the rows of the peer's identity decides: RULE_ALLOWED or POLICY_DENY, and
 *      POLICY_DENIED where the row names no rule (it carves a port out of what is allowed to everybody) or allows
 *      queries for some names only, and nobody reads what this endpoint asks for
 *   5. longest match among the rows for any identity decides
 *   6. otherwise                                     -> denied  POLICY_DENIED (rule A15)
 *   7. what is denied by 4 to 6 may be allowed by a name, where the set has names: RULE_ALLOWED (names.h)
 * What is allowed is then put to the audit set, if there is one, by steps 3 to 7: what that denies passes all the same,
 * as AUDIT with the reason, the set and the rule of the denial (rule A51). A flow needs both sides (rule A16).
 */
#ifndef NODEWALL_DECIDE_H
#define NODEWALL_DECIDE_H

#include "addr.h"
#include "lookup.h"
#include "names.h"
#include "types.h"

/* What one side says; `direction` 0: this side is no endpoint of ours and has no say. */
struct decision {
	__u32 endpoint;
	__u32 policy_set;
	__u32 rule;
	__u8 direction;		/* enum nw_direction */
	__u8 verdict;		/* enum nw_verdict */
	__u8 reason;		/* enum nw_reason */
	__u8 names;		/* not 0: the set may allow by name */
	__u8 asks;		/* not 0: queries are read at the endpoint's veth; else what a filter restricts is denied */
	__u8 pad1[3];
};

static __always_inline void decide(struct decision *to, __u8 verdict, __u8 reason)
{
	to->verdict = verdict;
	to->reason = reason;
}

static __always_inline const struct policy_value *row_find(__u32 set, __u32 identity, __u8 direction,
							    const struct flow *flow)
{
	const struct policy_value *row = row_of(set, identity, direction, flow);

	return row ? row : row_of(set, NW_IDENTITY_ANY, direction, flow);
}

/* What a row with a filter allows is for nw_dns_query to restrict further, at the pod's veth. */
static __always_inline bool row_allows(const struct policy_value *row, __u8 asks)
{
	return row && row->action == NW_ALLOW && (row->asks == NW_ASKS_ANYTHING || asks);
}

/* `row` does not allow; null: there is none. */
static __always_inline void decide_denied(struct decision *to, const struct flow *flow, const struct policy_value *row)
{
	struct denial denial;

	denial_read(&denial, row);
	if (to->names && name_allows(to->endpoint, to->policy_set, flow, &denial, &to->rule)) {
		decide(to, NW_FORWARDED, NW_RULE_ALLOWED);
		return;
	}
	to->rule = denial.rule;
	decide(to, NW_DROPPED, denial.rule ? NW_POLICY_DENY : NW_POLICY_DENIED);
}

static __always_inline void decide_rows(struct decision *to, const struct flow *flow, __u32 identity)
{
	const struct policy_value *row = row_find(to->policy_set, identity, to->direction, flow);

	if (!row_allows(row, to->asks)) {
		decide_denied(to, flow, row);
		return;
	}
	to->rule = row->rule;
	decide(to, NW_FORWARDED, NW_RULE_ALLOWED);
}

/* What one set says; `to` has nothing yet but whose it is, the set and the direction. */
static __always_inline void decide_set(struct decision *to, const struct flow *flow, const struct addr6 *peer,
				       __u32 slot)
{
	if (to->policy_set == NW_NOT_ISOLATED)
		decide(to, NW_FORWARDED, NW_NOT_ISOLATED_ALLOWED);
	else if (flow->malformed)
		decide(to, NW_DROPPED, NW_MALFORMED);
	else
		decide_rows(to, flow, identity_of(peer, flow->family, slot));
}

/* `to` is allowed: where the audit set denies, it becomes AUDIT with what that denial says. */
static __always_inline void decide_audit(struct decision *to, const struct decision *audit)
{
	if (audit->verdict != NW_DROPPED)
		return;
	to->policy_set = audit->policy_set;
	to->rule = audit->rule;
	decide(to, NW_AUDIT, audit->reason);
}

/* One side, into a decision that is all zero: `subject` is an endpoint of ours. */
static __always_inline void decide_side(struct decision *to, const struct endpoint *subject, const struct flow *flow,
					__u8 direction, __u32 slot)
{
	const struct addr6 *peer = direction == NW_EGRESS ? &flow->server : &flow->client;
	struct decision audit = { .endpoint = subject->number, .direction = direction };

	to->endpoint = subject->number;
	to->direction = direction;
	if (subject->held) {
		decide(to, NW_DROPPED, NW_ENDPOINT_HELD);
		return;
	}
	to->policy_set = direction == NW_EGRESS ? subject->egress_set : subject->ingress_set;
	to->names = direction == NW_EGRESS ? subject->egress_names : 0;
	to->asks = direction == NW_EGRESS ? subject->egress_asks : 0;
	decide_set(to, flow, peer, slot);
	audit.policy_set = direction == NW_EGRESS ? subject->egress_audit : subject->ingress_audit;
	audit.names = direction == NW_EGRESS ? subject->egress_audit_names : 0;
	audit.asks = direction == NW_EGRESS ? subject->egress_audit_asks : 0;
	if (audit.policy_set == NW_NOT_ISOLATED || to->verdict != NW_FORWARDED)
		return;
	decide_set(&audit, flow, peer, slot);
	decide_audit(to, &audit);
}

/* One end of a flow that crosses the node: an endpoint, an unknown address that is held, or nothing to us. */
static __always_inline void decide_end(struct decision *to, const struct flow *flow, __u8 direction, __u32 slot)
{
	const struct addr6 *address = direction == NW_EGRESS ? &flow->client : &flow->server;
	struct endpoint subject = {};

	endpoint_read(endpoint_of_address(address, flow->family, slot), slot, &subject);
	if (subject.number != NW_SLOT_EMPTY) {
		decide_side(to, &subject, flow, direction, slot);
	} else if (range_is_held(address, flow->family, slot)) {
		to->direction = direction;
		decide(to, NW_DROPPED, NW_ENDPOINT_HELD);
	} else {
		decide(to, NW_FORWARDED, NW_NOT_ISOLATED_ALLOWED);
	}
}

/* A flow that the node forwards; both ends may be endpoints of ours. Returns enum nw_verdict. */
static __always_inline __u8 decide_forward(const struct flow *flow, __u32 slot, struct decision *egress,
					   struct decision *ingress)
{
	decide_end(egress, flow, NW_EGRESS, slot);
	if (egress->verdict == NW_DROPPED)
		return NW_DROPPED;
	decide_end(ingress, flow, NW_INGRESS, slot);
	return ingress->verdict;
}

#endif
