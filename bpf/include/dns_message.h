/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* A message, brought from its packet to where it is read, and what its header says. */
#ifndef NODEWALL_DNS_MESSAGE_H
#define NODEWALL_DNS_MESSAGE_H

#include "dns_maps.h"
#include "dns_name.h"
#include "dns_packet.h"
#include "dns_walk.h"

#define NW_DNS_FLAG_ANSWER 0x80		/* first byte of the flags */
#define NW_DNS_OPCODE 0x78
#define NW_DNS_RCODE 0x0f		/* second byte */

/* How much of a message of so many bytes is read. */
static __always_inline __u32 dns_message_length(__u32 length)
{
	if (length > NW_DNS_MESSAGE_MAX)
		length = NW_DNS_MESSAGE_MAX;
	return dns_bounded(length - 1, NW_DNS_MESSAGE_MAX - 1) + 1;
}

/* Take what lies in `walk` for a message of so many bytes, of which nothing is known yet. */
static __always_inline void dns_message_begin(struct dns_walk *walk, const struct dns_packet *packet, __u32 length)
{
	walk->length = length;
	__builtin_memset(&walk->told, 0, sizeof(walk->told));
	walk->told.time_ns = bpf_ktime_get_boot_ns();
	walk->told.length = length;
	walk->told.protocol = packet->protocol;
	walk->told.resolver = packet->resolver;
}

/* Bring the message into this processor's walk. Null: it has no header, or could not be read. */
static __always_inline struct dns_walk *dns_message_load(struct __sk_buff *skb, const struct dns_packet *packet)
{
	struct dns_walk *walk = dns_walk_find();
	__u32 length;

	if (!walk || packet->length < NW_DNS_HEADER)
		return 0;
	length = dns_message_length(packet->length);
	if (bpf_skb_load_bytes(skb, packet->message, walk->message, length))
		return 0;
	dns_message_begin(walk, packet, length);
	return walk;
}

/* Whether the header is a standard query's, or its answer's, with one question. */
static __always_inline bool dns_header_is(const struct dns_walk *walk, __u8 answer)
{
	return (walk->message[2] & (NW_DNS_FLAG_ANSWER | NW_DNS_OPCODE)) == answer && dns_be16(walk->message + 4) == 1;
}

/* Have user space hear of it, with or without the message. */
static __always_inline void dns_tell(struct dns_walk *walk, bool with_message)
{
	__u32 length = dns_bounded(walk->length - 1, NW_DNS_MESSAGE_MAX - 1) + 1 + sizeof(walk->told);
	long lost;

	if (with_message)
		lost = bpf_ringbuf_output(NW_MAP(fqdn_answers), &walk->told, length, 0);
	else
		lost = bpf_ringbuf_output(NW_MAP(fqdn_answers), &walk->told, sizeof(walk->told), 0);
	if (lost)
		dns_count(NW_DNS_COUNT_ANSWERS_LOST);
}

#endif
