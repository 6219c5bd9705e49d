/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Keys, values and events shared by the socket programs (compiled by BCC), the packet programs (clang and libbpf)
 * and user space (agent/datapath/bpf/layout.py, which a test checks against this file's BTF).
 *
 * One flip moves the whole node. Every value that changes with the inputs has two slots, and slot
 * [generation & 1] counts, generation being one aligned word in `config` that user space stores through mmap.
 * User space writes the other slot, stores generation + 1, waits for running programs (RCU), then mends the slot
 * left behind; at rest both are equal, so a change costs what changed, and a crash at any point leaves the old or
 * the new state. Policy rows need no slots: a policy set's number is a digest of what it says. A program reads the
 * generation once.
 */
#ifndef NODEWALL_TYPES_H
#define NODEWALL_TYPES_H

#include <linux/types.h>

#define NW_IDENTITY_ANY 0
#define NW_IDENTITY_HOST 1
#define NW_IDENTITY_WORLD 2
#define NW_IDENTITY_UNMANAGED 3

#define NW_NOT_ISOLATED 0	/* policy set of an endpoint that no policy selects in a direction; audit set: none in audit */
#define NW_ASKS_ANYTHING 0
#define NW_SLOT_EMPTY 0		/* no entry in this generation */
#define NW_RANK_NONE 0xffff	/* comes after every rank that a rule can have */
#define NW_ENDPOINT_PROBE 1	/* endpoint of the agent's self-test: judged like any other, emits no events */

enum nw_direction { NW_INGRESS = 1, NW_EGRESS = 2, NW_ASK = 3 };	/* NW_ASK: rows of a filter, never a flow's */
enum nw_action { NW_ALLOW = 1, NW_DENY = 2 };
enum nw_class { NW_CLASS_ALL = 1, NW_CLASS_NONE = 2, NW_CLASS_MIXED = 3 };	/* no row is mixed, too: the packet layer decides */
enum nw_layer { NW_LAYER_SOCKET = 1, NW_LAYER_PACKET = 2 };
enum nw_verdict { NW_FORWARDED = 1, NW_DROPPED = 2, NW_AUDIT = 4 };	/* as in Hubble; AUDIT: passes, and is told */

enum nw_reason {
	NW_RULE_ALLOWED = 1,
	NW_NOT_ISOLATED_ALLOWED = 2,
	NW_POLICY_DENIED = 3,
	NW_POLICY_DENY = 4,
	NW_ENDPOINT_HELD = 5,
	NW_SOURCE_SPOOFED = 6,
	NW_SERVICE_DENIED = 7,
	NW_MALFORMED = 8,
	NW_RELATED_FORGED = 9,
	NW_UNJUDGED = 10,	/* of the iptables engine alone: nobody comes before these programs */
};


enum nw_endpoint_flag {
	NW_FLAG_PRESENT = 1,	/* else: no such endpoint in that generation */
	NW_FLAG_HELD = 2,
	NW_FLAG_EGRESS_NAMES = 4,	/* the egress set has rows of name classes; without them nobody looks for names */
	NW_FLAG_EGRESS_AUDIT_NAMES = 8,	/* likewise, the set that is in audit */
	NW_FLAG_EGRESS_ASKS = 16,	/* the egress set has filters, and queries are read at this endpoint's veth */
	NW_FLAG_EGRESS_AUDIT_ASKS = 32,	/* likewise, the set that is in audit */
};

enum nw_config_flag { NW_CONFIG_DROP_SILENTLY = 1 };	/* deny mode drop: the socket hooks only report */

enum nw_counter {
	NW_COUNT_EVENTS_LOST = 0,
	NW_COUNT_SOCKET_ALLOWED,
	NW_COUNT_SOCKET_DENIED,
	NW_COUNT_PACKET_ALLOWED,
	NW_COUNT_PACKET_DENIED,
	NW_COUNT_SPOOFED,
	NW_COUNT_MALFORMED,
	NW_COUNT_EVENTS_SUPPRESSED,	/* kept back by the rate limit */
	NW_COUNT_EVENTS_REPEATED,	/* of those, told as `repeats` of a later event */
	NW_COUNT_MAX,
};

struct addr6 {
	__be32 word[4];
};

/* A number a generation: an endpoint, an identity, a service, or 1 for "held". */
struct slot_value {
	__u32 slot[2];		/* [generation & 1]; NW_SLOT_EMPTY: no entry in that generation */
};

/*
 * Hash, -> struct slot_value of endpoint numbers:
 * ep_by_netns: __u64 netns cookie; ep_by_ifindex: __u32 host veth ifindex; ep_by_ip4: __be32; ep_by_ip6: struct addr6.
 */

/* endpoints (hash): __u32 endpoint number -> struct endpoint_value. */
struct endpoint_slot {
	__u32 ingress_set;	/* NW_NOT_ISOLATED: everything passes in this direction */
	__u32 egress_set;
	__u32 flags;		/* enum nw_endpoint_flag */
	__u32 ingress_audit;	/* what would count were the policies in audit enforced too (rule A51) */
	__u32 egress_audit;
};

struct endpoint_value {
	struct endpoint_slot slot[2];
	__u32 ingress_ifindex;	/* what PRE_ROUTING sees: the veth, or the bridge it hangs on; 0: unknown */
	__u32 pad1;
};

/*
 * policy (LPM): set, identity or name class, direction, then protocol and port, the wildcards in that order from the
 * right. Numbers of name classes have their highest bit set, those of identities have not.
 */
struct policy_key {
	__u32 prefixlen;	/* NW_POLICY_BITS: all; less 16 - port_bits: a port prefix; NW_POLICY_ANY_PROTOCOL: neither */
	__u32 set;
	__u32 identity;
	__u8 direction;
	__u8 protocol;
	__be16 port;
};

#define NW_POLICY_BITS 96
#define NW_POLICY_ANY_PROTOCOL 72

/*
 * Sets that allow by name rank their rules in the order in which they are asked. Of the row of an identity, `rank` is
 * the deciding rule's and `passed` that of the first Pass it met; of the row of a name class, which only allows, they
 * are those of its first Allow in the Admin tier and of its first one after that (names.h).
 *
 * What a row allows may be DNS queries for some names only. `asks` is then the number of a filter, whose rows are here,
 * too: { set = filter, identity = name class, NW_ASK, any protocol }, one for each class that may be asked for.
 */
struct policy_value {
	__u32 rule;
	__u16 rank;		/* NW_RANK_NONE: no such rule */
	__u16 passed;
	__u8 action;		/* enum nw_action */
	__u8 pad1[3];
	__u32 asks;		/* NW_ASKS_ANYTHING: no filter */
};

/*
 * ipcache_host4: __be32, ipcache_host6: struct addr6 (hash); ipcache_cidr4, ipcache_cidr6 (LPM) -> struct slot_value
 * of identities. A prefix that one generation lacks carries there the identity of the next shorter one it has,
 * NW_SLOT_EMPTY where there is none (then: world).
 */
struct cidr4_key {
	__u32 prefixlen;
	__be32 addr;
};

struct cidr6_key {
	__u32 prefixlen;
	struct addr6 addr;
};

/* held4, held6 (LPM): cidr key -> struct slot_value of 1. Addresses in there that are no endpoint's are held. */

/* frontend4, frontend6 (hash): where a Service listens -> struct slot_value of service numbers. */
struct frontend4_key {
	__be32 addr;
	__be16 port;
	__u8 protocol;
	__u8 pad1;
};

struct frontend6_key {
	struct addr6 addr;
	__be16 port;
	__u8 protocol;
	__u8 pad1;
};

/* service_class: what an egress policy set allows of a Service's backends; written once per (set, service). */
struct class_key {
	__u32 set;
	__u32 service;
};

struct class_value {
	__u32 rule;
	__u8 class_;		/* enum nw_class */
	__u8 pad1[3];
	__u32 asks;		/* filter of what is sent to the Service's address; NW_ASKS_ANYTHING: none */
};

/*
 * udp_clients (LRU hash): __u64 socket cookie -> __u32 1. UDP sockets that were made under our eyes and never bound:
 * what they send, they ask. Of any other it may be an answer (rule A38).
 */

/* config: array of one, mmapable; user space stores each word at once. */
struct config_value {
	__u32 generation;
	__u32 flags;		/* enum nw_config_flag */
	__u32 verdict_interval_ns;	/* one event of a kind in so long, once its burst is spent; 0: no limit */
	__u32 pad1;
};

#define NW_RATE_SAVED_NS 10000000000ULL	/* a kind that was silent for so long may tell so much at once */

/*
 * verdict_rates (LRU hash): a kind of event -> when the next is due, and how many were kept back. `kept_back` only
 * grows; `told` is what it was at the last event that got through.
 */
struct rate_key {
	__u32 endpoint;
	__u32 peer;		/* identity of the other end */
	__be16 port;		/* destination */
	__u8 protocol;
	__u8 direction;
	__u8 layer;
	__u8 verdict;
	__u8 reason;
	__u8 pad1;
};

struct rate_value {
	__u64 due_ns;
	__u32 kept_back;
	__u32 told;
};

/* counters: per-CPU array of __u64, indexed by enum nw_counter. events: ring buffer of struct event. */
struct event {
	__u64 time_ns;		/* CLOCK_MONOTONIC (bpf_ktime_get_ns) */
	__u64 netns_cookie;	/* socket layer; else 0 */
	__u32 endpoint;
	__u32 generation;
	__u32 policy_set;
	__u32 rule;
	__u32 source_identity;
	__u32 destination_identity;
	__u32 pid;		/* thread group, socket layer; else 0 */
	__u32 repeats;		/* events of this kind that were kept back since the last one */
	struct addr6 source;	/* IPv4 in mapped form; all zero where the socket is not bound yet */
	struct addr6 destination;
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 family;		/* 4 or 6 */
	__u8 layer;		/* enum nw_layer */
	__u8 direction;		/* enum nw_direction */
	__u8 verdict;		/* enum nw_verdict */
	__u8 reason;		/* enum nw_reason */
	__u8 pad2[6];
	char command[16];
};

#ifndef NW_STATIC_ASSERT
#define NW_STATIC_ASSERT(what) _Static_assert(what, #what)
#endif

NW_STATIC_ASSERT(sizeof(struct endpoint_value) == 48);
NW_STATIC_ASSERT(sizeof(struct policy_key) == 16);
NW_STATIC_ASSERT(sizeof(struct policy_value) == 16);
NW_STATIC_ASSERT(sizeof(struct class_value) == 12);
NW_STATIC_ASSERT(sizeof(struct frontend4_key) == 8);
NW_STATIC_ASSERT(sizeof(struct frontend6_key) == 20);
NW_STATIC_ASSERT(sizeof(struct config_value) == 16);
NW_STATIC_ASSERT(sizeof(struct rate_key) == 16);
NW_STATIC_ASSERT(sizeof(struct rate_value) == 16);
NW_STATIC_ASSERT(__builtin_offsetof(struct event, repeats) == 44);
NW_STATIC_ASSERT(sizeof(struct event) == 112);

#endif
