/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * One message and how far it has been read. It lies in a per-CPU map: the stack has no room for it, and the verifier
 * would follow every offset it could have. A processor runs one program at a traffic control hook at a time, for these
 * run with softirqs off.
 */
#ifndef NODEWALL_DNS_WALK_H
#define NODEWALL_DNS_WALK_H

#include "dns_packet.h"
#include "dns_types.h"
#include "engine.h"

#define NW_DNS_BEYOND 32	/* behind the longest message: what is read at its last byte is ours, too */

/* One way of a connection. */
struct dns_stream_key {
	__u32 endpoint;
	struct addr6 resolver;
	__be16 client_port;
	__u8 way;			/* enum dns_way */
	__u8 pad1;
};

/* Where a stream is within its messages, each with its length before it (RFC 1035 4.2.2). */
struct dns_place {
	__u32 have;			/* bytes of the message under way that are there, its length's included */
	__u32 length;			/* of it, as it says; of the first byte alone: what that says */
	__u32 torn;			/* its content is not there: it cannot be read, but its end is known */
};

struct dns_stream {
	__u32 claims;		/* processors that are here; one at a time reads */
	__u32 first;		/* number of its SYN, or before where reading began */
	__u32 next;		/* of the byte that is to be read next */
	struct dns_place place;
	__u32 early;		/* where a query begins that came ahead and was read, and */
	__u32 early_end;	/* what is behind it; the same: none */
	__u32 held;		/* segments that were dropped since it last went on */
	__u32 lost;		/* what came is not known any more */
};

/* A segment that is being read. */
struct dns_segment {
	struct dns_stream_key key;
	struct dns_stream begun;	/* what is to be written down of it */
	struct dns_place place;
	__u32 at;			/* offset in the frame of what is still to be read */
	__u32 left;			/* bytes of it */
	__u32 taken;			/* the pod's last message was a query */
};

struct dns_walk {
	struct dns_answer told;		/* with the message behind it: one piece for the ring */
	__u8 message[NW_DNS_MESSAGE_MAX];
	__u8 beyond[NW_DNS_BEYOND];
	__u8 key[sizeof(__u32) + 2 * NW_DNS_NAME_MAX];	/* struct name_key at some offset (dns_name.h) */
	__u32 length;			/* of the message */
	__u32 at;			/* the next byte to read */
	__u32 fault;			/* the message cannot be read any further */
	__u32 name_length;		/* bytes of the question's name, the last one (the root) left out */
	__u32 labels;
	__u32 label_left;		/* bytes of the current label that are still to come */
	__u64 question;			/* hash, as in struct pending_value */
	__u32 dfa_at;			/* state */
	__u32 classes;
	__u32 class_[NW_DNS_CLASSES];
	__u32 chain_ttl_s;		/* the smallest of the CNAMEs' */
	__u32 addresses;
	__u16 address_at[NW_DNS_RECORDS_MAX];	/* type, class, TTL, length and data of each */
	struct learned_key target;	/* what is being learned */
	__u64 expires_ns;
	struct learned_value row;	/* that is being made; like the following one it has no room on the stack */
	struct dns_packet packet;	/* the message that is being read, as one of a segment */
	struct dns_segment segment;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct dns_walk);
} dns_walks SEC(".maps");

static __always_inline struct dns_walk *dns_walk_find(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&dns_walks, &zero);
}

/*
 * `value` as arithmetic bounds it. The compiler must not know that it is in bounds already: it would leave the mask
 * out, and verifiers up to 6.1 forget what a branch has proved when a register goes to the stack and comes back.
 */
static __always_inline __u32 dns_bounded(__u32 value, __u32 mask)
{
	asm volatile("" : "+r"(value));
	return value & mask;
}

/* Bytes at `at`, which is below `length`; NW_DNS_BEYOND bytes may be read behind it. */
static __always_inline const __u8 *dns_bytes(const struct dns_walk *walk, __u32 at)
{
	return &walk->message[dns_bounded(at, NW_DNS_MESSAGE_MAX - 1)];
}

static __always_inline __u32 dns_be16(const __u8 *bytes)
{
	return (__u32)bytes[0] << 8 | bytes[1];
}

static __always_inline __u32 dns_be32(const __u8 *bytes)
{
	return dns_be16(bytes) << 16 | dns_be16(bytes + 2);
}

#endif
