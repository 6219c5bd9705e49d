/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * One function a map. A miss is a named outcome of each, never a null pointer to the callers.
 * `slot` is generation & 1, the same in every lookup of one decision (types.h).
 */
#ifndef NODEWALL_LOOKUP_H
#define NODEWALL_LOOKUP_H

#include "addr.h"
#include "dns_types.h"
#include "engine.h"
#include "types.h"

/* What counts in this run; read once, so that a flip between two lookups cannot mix two generations. */
struct moment {
	__u32 generation;
	__u32 flags;		/* enum nw_config_flag */
	__u32 slot;
	__u32 verdict_interval_ns;
};

static __always_inline bool moment_read(struct moment *now)
{
	__u32 zero = 0;
	volatile struct config_value *value = NW_LOOKUP(config, &zero);

	if (!value)
		return false;
	now->generation = value->generation;
	now->flags = value->flags;
	now->slot = now->generation & 1;
	now->verdict_interval_ns = value->verdict_interval_ns;
	return true;
}

static __always_inline __u32 slot_of(const struct slot_value *value, __u32 slot)
{
	return value ? value->slot[slot & 1] : NW_SLOT_EMPTY;
}

/* An endpoint as one generation sees it; `number` NW_SLOT_EMPTY: none. */
struct endpoint {
	__u32 number;
	__u32 ingress_set;
	__u32 egress_set;
	__u32 ingress_audit;
	__u32 egress_audit;
	__u32 ingress_ifindex;
	__u8 egress_names;	/* not 0: the set has rows of name classes; as the flag is, for the verifier's sake */
	__u8 egress_audit_names;
	__u8 egress_asks;	/* likewise: the set has filters, and queries are read at the endpoint's veth */
	__u8 egress_audit_asks;
	bool held;
};

/* Written by the agent for each pod of this node. */
static __always_inline void endpoint_read(__u32 number, __u32 slot, struct endpoint *to)
{
	struct endpoint_value *value;
	struct endpoint_slot *state;

	to->number = NW_SLOT_EMPTY;
	if (number == NW_SLOT_EMPTY)
		return;
	value = NW_LOOKUP(endpoints, &number);
	if (!value)
		return;
	state = &value->slot[slot & 1];
	if (!(state->flags & NW_FLAG_PRESENT))
		return;
	to->number = number;
	to->ingress_set = state->ingress_set;
	to->egress_set = state->egress_set;
	to->ingress_audit = state->ingress_audit;
	to->egress_audit = state->egress_audit;
	to->ingress_ifindex = value->ingress_ifindex;
	to->held = state->flags & NW_FLAG_HELD;
	to->egress_names = state->flags & NW_FLAG_EGRESS_NAMES;
	to->egress_audit_names = state->flags & NW_FLAG_EGRESS_AUDIT_NAMES;
	to->egress_asks = state->flags & NW_FLAG_EGRESS_ASKS;
	to->egress_audit_asks = state->flags & NW_FLAG_EGRESS_AUDIT_ASKS;
}

static __always_inline __u32 endpoint_of_netns(__u64 cookie, __u32 slot)
{
	return slot_of(NW_LOOKUP(ep_by_netns, &cookie), slot);
}

static __always_inline __u32 endpoint_of_interface(__u32 ifindex, __u32 slot)
{
	return slot_of(NW_LOOKUP(ep_by_ifindex, &ifindex), slot);
}

static __always_inline __u32 endpoint_of_address(const struct addr6 *address, __u8 family, __u32 slot)
{
	__be32 address4 = address->word[3];

	if (family == NW_IPV4)
		return slot_of(NW_LOOKUP(ep_by_ip4, &address4), slot);
	return slot_of(NW_LOOKUP(ep_by_ip6, address), slot);
}

/* The identity of an address that is some pod's, anywhere in the cluster; NW_SLOT_EMPTY: no pod's. */
static __always_inline __u32 identity_of_pod(const struct addr6 *address, __u8 family, __u32 slot)
{
	__be32 address4 = address->word[3];

	if (family == NW_IPV4)
		return slot_of(NW_LOOKUP(ipcache_host4, &address4), slot);
	return slot_of(NW_LOOKUP(ipcache_host6, address), slot);
}

static __always_inline __u32 identity_of_prefix(const struct addr6 *address, __u8 family, __u32 slot)
{
	struct cidr6_key key6 = { .prefixlen = 128, .addr = *address };
	struct cidr4_key key4 = { .prefixlen = 32, .addr = address->word[3] };

	if (family == NW_IPV4)
		return slot_of(NW_LOOKUP(ipcache_cidr4, &key4), slot);
	return slot_of(NW_LOOKUP(ipcache_cidr6, &key6), slot);
}

/* A pod's address, else the longest prefix that some policy mentions, else the world. */
static __always_inline __u32 identity_of(const struct addr6 *address, __u8 family, __u32 slot)
{
	__u32 identity = identity_of_pod(address, family, slot);

	if (identity == NW_SLOT_EMPTY)
		identity = identity_of_prefix(address, family, slot);
	return identity == NW_SLOT_EMPTY ? NW_IDENTITY_WORLD : identity;
}

/* Whether an address lies in a pod range of this node in which unknown pods are held (rule A45). */
static __always_inline bool range_is_held(const struct addr6 *address, __u8 family, __u32 slot)
{
	struct cidr6_key key6 = { .prefixlen = 128, .addr = *address };
	struct cidr4_key key4 = { .prefixlen = 32, .addr = address->word[3] };

	if (family == NW_IPV4)
		return slot_of(NW_LOOKUP(held4, &key4), slot);
	return slot_of(NW_LOOKUP(held6, &key6), slot);
}

/* The longest match among the rows of an identity, or of a name class, in one set; null: none. */
static __always_inline const struct policy_value *row_of(__u32 set, __u32 identity, __u8 direction,
							 const struct flow *flow)
{
	struct policy_key key = {
		.prefixlen = NW_POLICY_BITS,
		.set = set,
		.identity = identity,
		.direction = direction,
		.protocol = flow->protocol,
		.port = flow->server_port,
	};

	return NW_LOOKUP(policy, &key);
}

/* What an egress set allows of a Service; null: mixed. */
static __always_inline const struct class_value *class_of(__u32 set, __u32 service)
{
	struct class_key key = { .set = set, .service = service };

	return NW_LOOKUP(service_class, &key);
}

/* What an endpoint has learned of an address; null: nothing. Written by the DNS learner. */
static __always_inline struct learned_value *learned_of(__u32 endpoint, const struct addr6 *address)
{
	struct learned_key key = { .endpoint = endpoint, .address = *address };

	return NW_LOOKUP(fqdn_learned, &key);
}

/* The Service that listens there; NW_SLOT_EMPTY: none. */
static __always_inline __u32 service_at(const struct flow *flow, __u32 slot)
{
	struct frontend4_key key4 = {
		.addr = flow->server.word[3], .port = flow->server_port, .protocol = flow->protocol
	};
	struct frontend6_key key6 = { .addr = flow->server, .port = flow->server_port, .protocol = flow->protocol };

	if (flow->family == NW_IPV4)
		return slot_of(NW_LOOKUP(frontend4, &key4), slot);
	return slot_of(NW_LOOKUP(frontend6, &key6), slot);
}

#endif
