/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The name that is asked for. It is written from the end of a buffer towards its beginning while it is read once from
 * left to right, and so comes to lie there as `fqdn_names` has it: reversed. Compression pointers are refused: nothing
 * comes before the question that one could point to.
 */
#ifndef NODEWALL_DNS_NAME_H
#define NODEWALL_DNS_NAME_H

#include "dns_loop.h"
#include "dns_packet.h"
#include "dns_walk.h"

#define NW_DNS_LABEL_MAX 63
#define NW_DNS_QUESTION_TAIL 4	/* type and class behind the name */
#define NW_DNS_CLASS_IN 1
#define NW_FNV_BASIS 0xcbf29ce484222325ULL	/* FNV-1a of 64 bits */
#define NW_FNV_PRIME 0x100000001b3ULL

/* What a host name may have, in lower case; 0: it may not. */
static __always_inline __u8 dns_fold(__u8 byte)
{
	if (byte >= 'A' && byte <= 'Z')
		return byte | 0x20;
	if ((byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') || byte == '-' || byte == '_')
		return byte;
	return 0;
}

static __always_inline void dns_hash(struct dns_walk *walk, __u8 byte)
{
	walk->question = (walk->question ^ byte) * NW_FNV_PRIME;
}

/* The byte of the name that comes `index` bytes after its beginning: a mark where a label begins, else a character. */
static __always_inline __u8 *dns_name_byte(struct dns_walk *walk, __u32 index)
{
	return &walk->key[sizeof(__u32) + dns_bounded(NW_DNS_NAME_MAX - 1 - index, NW_DNS_NAME_MAX - 1)];
}


/* One byte of the name; `fault` until the root label is found. */
NW_DNS_STEP nw_dns_name_step(NW_DNS_TURN)
{
	struct dns_walk *walk = NW_DNS_WALK;
	__u32 at = NW_DNS_HEADER + index;
	__u8 byte, kept;

	if (!walk || at >= walk->length)
		return 1;
	byte = *dns_bytes(walk, at);
	if (walk->label_left) {
		kept = dns_fold(byte);
		if (!kept)
			return 1;
		walk->label_left--;
	} else if (byte) {
		if (byte > NW_DNS_LABEL_MAX)
			return 1;
		walk->label_left = byte;
		walk->labels++;
		kept = NW_DNS_DOT;
	} else {
		walk->name_length = index;
		walk->fault = 0;
		return 1;
	}
	*dns_name_byte(walk, index) = kept;
	dns_hash(walk, kept);
	return 0;
}

/* The question of the message in `walk`: its name and hash; false: it cannot be read. `at` is behind it. */
static __always_inline bool dns_question_read(struct dns_walk *walk)
{
	const __u8 *tail;
	__u32 index;

	walk->fault = 1;
	walk->name_length = 0;
	walk->labels = 0;
	walk->label_left = 0;
	walk->question = NW_FNV_BASIS;
	dns_repeat(NW_DNS_NAME_MAX - 1, NW_DNS_NAME_MAX - 1, nw_dns_name_step, walk);
	if (walk->fault)
		return false;
	walk->fault = 1;
	walk->at = NW_DNS_HEADER + walk->name_length + 1;
	if (walk->at + NW_DNS_QUESTION_TAIL > walk->length)
		return false;
	tail = dns_bytes(walk, walk->at);
	for (index = 0; index < NW_DNS_QUESTION_TAIL; index++)
		dns_hash(walk, tail[index]);
	walk->at += NW_DNS_QUESTION_TAIL;
	walk->fault = dns_be16(tail + 2) != NW_DNS_CLASS_IN;
	return !walk->fault;
}

/* The name as a key of `fqdn_names`. */
static __always_inline struct name_key *dns_name_key(struct dns_walk *walk)
{
	__u32 length = dns_bounded(walk->name_length, NW_DNS_NAME_MAX - 1);
	__u32 bits = length * 8;
	__u8 *key = &walk->key[NW_DNS_NAME_MAX - length];

	__builtin_memcpy(key, &bits, sizeof(bits));
	return (struct name_key *)key;
}

#endif
