/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Keys, values and records of the DNS learner (dns_learn.bpf.c) and user space (agent/datapath/bpf/fqdn_layout.py,
 * which a test checks against this file's BTF).
 *
 * A *name class* is the set of patterns that a name matches, as one number (the highest bit set, so that it is no
 * identity's). What is learned for an address is the classes of the names that led to it. Names change with policies:
 * each row of `fqdn_names` and each automaton has two slots as in types.h, and an answer is learned for both, so that
 * no flip can fall between an answer and its use.
 */
#ifndef NODEWALL_DNS_TYPES_H
#define NODEWALL_DNS_TYPES_H

#include "types.h"

#define NW_DNS_NAME_MAX 256		/* bytes of an LPM key, the kernel's limit; on the wire it is 255 at most */
#define NW_DNS_MESSAGE_MAX 4096		/* bytes that are read; resolvers stay below 1,232 by UDP */
#define NW_DNS_RECORDS_MAX 256		/* as many as fit: an A record takes 16 bytes */
#define NW_DNS_CLASSES 4		/* of one address: as many names may share it, classes taken together */
#define NW_DNS_ADDRESSES_MAX 4096	/* of one endpoint */
#define NW_DNS_SYMBOLS 64		/* of an automaton: a-z, 0-9, '-', '_', NW_DNS_DOT; room for a mask */
#define NW_DNS_CLASS_NONE 0
#define NW_DNS_DOT 0x80			/* behind each label in a key; no host name has this byte */

/* fqdn_resolvers (hash): struct addr6 -> __u32 1. Whose answers are believed. */

/*
 * fqdn_names (LPM): a name from its end, lower case: "moc", NW_DNS_DOT, "elpmaxe", NW_DNS_DOT. A row says what holds
 * for its name and for all below it that have no row of their own, its shorter ones' share included.
 */
struct name_key {
	__u32 prefixlen;	/* bits of `name` */
	__u8 name[NW_DNS_NAME_MAX];
};

struct name_classes {
	__u32 exact;		/* this name */
	__u32 one;		/* one more label */
	__u32 more;		/* two more labels, or any number beyond */
};

struct name_value {
	struct name_classes slot[2];
	__u32 labels;		/* of the row's name */
	__u32 pad1;
};

/*
 * fqdn_dfa (array): states of the automata for patterns with a star inside a label, which read a key as above from its
 * beginning. Number 0 is dead.
 */
struct dfa_state {
	__u16 next[NW_DNS_SYMBOLS];
	__u32 class_;		/* of a name that ends here */
	__u32 pad1;
};

/* fqdn_pending (LRU hash): a query that a pod has sent and nobody has answered. */
struct pending_key {
	__u32 endpoint;
	struct addr6 resolver;
	__be16 client_port;
	__be16 id;
	__u8 protocol;
	__u8 pad1[3];
};

struct pending_value {
	__u64 question;		/* hash of name, type and class */
	__u64 asked_ns;		/* CLOCK_BOOTTIME */
};

#define NW_DNS_PATIENCE_NS 30000000000LL	/* an answer that comes later was not waited for */

/*
 * fqdn_learned (hash): an address as one endpoint learned it. The programs that enforce write its two times of use, both
 * CLOCK_BOOTTIME, about once a second (names.h).
 */
struct learned_key {
	__u32 endpoint;
	struct addr6 address;
};

struct learned_class {
	__u32 class_;		/* NW_DNS_CLASS_NONE: free */
	__u32 datagrams_until_s;	/* until when datagrams go on, whether or not it has expired */
	__u64 expires_ns;	/* CLOCK_BOOTTIME */
};

struct learned_value {
	struct learned_class of[NW_DNS_CLASSES];
	__u64 used_ns;		/* when a flow last needed it; 0: never */
	__u32 place;		/* in fqdn_places */
	__u32 pad1;
};

/*
 * fqdn_places (hash): -> struct addr6. Each endpoint has NW_DNS_ADDRESSES_MAX places, taken in turn, so that nobody's
 * addresses push out another's; fqdn_hands (hash): __u32 endpoint -> __u32, the place to look at next.
 */
struct place_key {
	__u32 endpoint;
	__u32 place;
};

/*
 * fqdn_counting (hash): __u32 name class -> __u32 1. The classes that some name has in either slot: what an address has
 * of others is of policies that are gone, and makes room first.
 */

/* fqdn_config: array of one, mmapable; user space stores each word at once. */
struct fqdn_config {
	__u32 min_ttl_s;	/* a shorter TTL counts as this (F19) */
	__u32 grace_s;		/* added to every TTL */
	__u32 dfa_start[2];	/* state to begin in, one a slot; 0: no automaton */
	__u32 reject;		/* the RCODE of who asks for what it may not; 0: nobody answers */
	__u32 filters;		/* 0: no set on this node has one, so nobody looks */
};

/* How a message was taken: what `fqdn_answers` says of it. */
enum nw_dns_outcome {
	NW_DNS_LEARNED = 1,
	NW_DNS_NO_RULE = 2,	/* no rule has such a name */
	NW_DNS_NEGATIVE = 3,	/* an error, or no records (F7) */
	NW_DNS_MALFORMED = 4,	/* what came before the fault was learned (F14) */
	NW_DNS_REFUSED = 5,	/* no answer, but what a pod sent: a filter does not admit it */
	NW_DNS_WOULD_REFUSE = 6,	/* likewise, and it passed: the filter is in audit (rule A51) */
};

/* fqdn_counters: per-CPU array of __u64. */
enum nw_dns_counter {
	NW_DNS_COUNT_QUERIES = 0,	/* remembered */
	NW_DNS_COUNT_ANSWERS,		/* that answer a query; the following four are a part of these */
	NW_DNS_COUNT_LEARNED,
	NW_DNS_COUNT_NO_RULE,
	NW_DNS_COUNT_NEGATIVE,
	NW_DNS_COUNT_MALFORMED,
	NW_DNS_COUNT_UNTRUSTED,		/* answers from somebody who is no resolver of ours */
	NW_DNS_COUNT_UNASKED,		/* answers from a resolver to what nobody asked, or nobody any more */
	NW_DNS_COUNT_FRAGMENTED,	/* from a resolver, not to be read here */
	NW_DNS_COUNT_SPLIT,		/* likewise, TCP segments of streams that cannot be followed (dns_stream.h) */
	NW_DNS_COUNT_TOO_LONG,		/* the beginning was read */
	NW_DNS_COUNT_TOO_MANY_RECORDS,	/* the first ones were read */
	NW_DNS_COUNT_ADDRESSES,		/* learned or refreshed, once a class */
	NW_DNS_COUNT_EVICTED,		/* addresses that were pushed out before they expired */
	NW_DNS_COUNT_CLASS_EVICTED,	/* classes of an address, likewise */
	NW_DNS_COUNT_FULL,		/* addresses that found no room on the node */
	NW_DNS_COUNT_ANSWERS_LOST,	/* not told: the ring was full */
	NW_DNS_COUNT_REFUSED,		/* refused or dropped by a filter, told or kept back */
	NW_DNS_COUNT_WOULD_REFUSE,
	NW_DNS_COUNT_HELD,		/* TCP segments of a resolver that were dropped: what comes before them was lost */
	NW_DNS_COUNT_MAX,
};

/* fqdn_answers: ring buffer; this, and behind it the message. Of what is no DNS message, `length` is 0. */
struct dns_answer {
	__u64 time_ns;		/* CLOCK_BOOTTIME */
	__u32 endpoint;
	__u16 length;		/* of the message that follows */
	__u8 outcome;		/* enum nw_dns_outcome */
	__u8 protocol;
	struct addr6 resolver;
	__u32 policy_set;	/* that has the filter; 0 of answers, as the following four are */
	__u32 rule;		/* that allows what the filter admits; 0: several, of a Service's backends */
	__be16 client_port;
	__be16 resolver_port;	/* NW_DNS_PORT or any other */
	__u32 repeats;		/* refusals of this kind that were kept back since the last one */
};

/* What user space gives nw_dns_replay: one address of one name class. */
struct replay_row {
	__u32 endpoint;
	__u32 class_;
	struct addr6 address;
	__u64 expires_ns;	/* CLOCK_BOOTTIME */
};

NW_STATIC_ASSERT(sizeof(struct name_key) == 260);
NW_STATIC_ASSERT(sizeof(struct name_value) == 32);
NW_STATIC_ASSERT(sizeof(struct dfa_state) == 136);
NW_STATIC_ASSERT(sizeof(struct pending_key) == 28);
NW_STATIC_ASSERT(sizeof(struct pending_value) == 16);
NW_STATIC_ASSERT(sizeof(struct learned_key) == 20);
NW_STATIC_ASSERT(sizeof(struct learned_value) == 80);
NW_STATIC_ASSERT(__builtin_offsetof(struct learned_value, used_ns) == 64);
NW_STATIC_ASSERT(sizeof(struct place_key) == 8);
NW_STATIC_ASSERT(sizeof(struct fqdn_config) == 24);
NW_STATIC_ASSERT(sizeof(struct dns_answer) == 48);
NW_STATIC_ASSERT(sizeof(struct replay_row) == 32);

#endif
