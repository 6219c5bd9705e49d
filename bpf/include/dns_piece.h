/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The messages in a segment, one a turn: straight from the packet if all of it is there, else put together in a map of
 * those under way. There is room for few of them, as few are at a time, and for what is read of each: of an answer as
 * much as of one by UDP, of a query its question. What pods say and what resolvers say never lies in one map.
 */
#ifndef NODEWALL_DNS_PIECE_H
#define NODEWALL_DNS_PIECE_H

#include "dns_maps.h"
#include "dns_message.h"
#include "dns_packet.h"
#include "dns_walk.h"

#define NW_DNS_PREFIX 2			/* a message's length */
#define NW_DNS_UNDER_WAY 512		/* messages, each way; the oldest makes room */
#define NW_DNS_QUERY_MAX 512		/* header, name and question are 271 bytes at most */
#define NW_DNS_PIECE 512		/* bytes that are brought at once; so many may be written behind the last one kept */

struct dns_answer_pieces {
	__u8 bytes[NW_DNS_MESSAGE_MAX + NW_DNS_PIECE];
};

struct dns_query_pieces {
	__u8 bytes[NW_DNS_QUERY_MAX + NW_DNS_PIECE];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, NW_DNS_UNDER_WAY);
	__type(key, struct dns_stream_key);
	__type(value, struct dns_answer_pieces);
} dns_answers_begun SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, NW_DNS_UNDER_WAY);
	__type(key, struct dns_stream_key);
	__type(value, struct dns_query_pieces);
} dns_queries_begun SEC(".maps");

/* The following have `way` known at compile time. */
static __always_inline void *dns_pieces_map(enum dns_way way)
{
	return way == DNS_TO_RESOLVER ? (void *)&dns_queries_begun : (void *)&dns_answers_begun;
}

static __always_inline __u32 dns_pieces_max(enum dns_way way)
{
	return way == DNS_TO_RESOLVER ? NW_DNS_QUERY_MAX : NW_DNS_MESSAGE_MAX;
}

/* Read the message's length, or half of it. False: the packet cannot be read. */
static __always_inline bool dns_prefix_read(struct __sk_buff *skb, struct dns_segment *segment)
{
	__u32 index;
	__u8 byte;

#pragma clang loop unroll(disable)
	for (index = 0; index < NW_DNS_PREFIX; index++) {
		if (segment->place.have >= NW_DNS_PREFIX || !segment->left)
			return true;
		if (bpf_skb_load_bytes(skb, segment->at, &byte, sizeof(byte)))
			return false;
		segment->place.length = segment->place.have ? segment->place.length << 8 | byte : byte;
		segment->place.have++;
		segment->at++;
		segment->left--;
	}
	return true;
}

/* Where the message under way is kept; made with its first byte. Null: it is gone, or there was no room. */
static __always_inline __u8 *dns_pieces_find(struct dns_walk *walk, enum dns_way way)
{
	struct dns_segment *segment = &walk->segment;
	__u8 *found = bpf_map_lookup_elem(dns_pieces_map(way), &segment->key);

	if (found || segment->place.have > NW_DNS_PREFIX)
		return found;
	/* Whatever lies there: it is written before it is read. */
	bpf_map_update_elem(dns_pieces_map(way), &segment->key, walk->message, BPF_ANY);
	return bpf_map_lookup_elem(dns_pieces_map(way), &segment->key);
}

/* Keep the next `count` bytes of the segment, as far as they are ever read. */
static __always_inline void dns_piece_keep(struct __sk_buff *skb, struct dns_walk *walk, __u32 count, enum dns_way way)
{
	__u32 most = dns_pieces_max(way), to = walk->segment.place.have - NW_DNS_PREFIX, from = walk->segment.at;
	__u32 turn, size;
	__u8 *kept;

	if (to >= most || walk->segment.place.torn)
		return;
	kept = dns_pieces_find(walk, way);
	walk->segment.place.torn = !kept;
	if (!kept)
		return;
	if (count > most - to)
		count = most - to;
#pragma clang loop unroll(disable)
	for (turn = 0; turn <= most / NW_DNS_PIECE; turn++) {
		if (!count)
			return;
		size = dns_bounded((count < NW_DNS_PIECE ? count : NW_DNS_PIECE) - 1, NW_DNS_PIECE - 1) + 1;
		if (bpf_skb_load_bytes(skb, from, kept + dns_bounded(to, most - 1), size)) {
			walk->segment.place.torn = 1;
			return;
		}
		from += size;
		to += size;
		count -= size;
	}
}

/* Bring the message under way, of which nothing is missing any more, to where it is read. */
static __always_inline bool dns_pieces_load(struct dns_walk *walk, const struct dns_packet *packet, enum dns_way way)
{
	__u32 most = dns_pieces_max(way), length = dns_message_length(packet->length), words, index;
	__u64 *from = bpf_map_lookup_elem(dns_pieces_map(way), &walk->segment.key), *to = (__u64 *)walk->message;

	if (!from || walk->segment.place.torn || packet->length < NW_DNS_HEADER)
		return false;
	if (length > most)
		length = most;
	words = dns_bounded((length + sizeof(*to) - 1) / sizeof(*to), most * 2 - 1);
#pragma clang loop unroll(disable)
	for (index = 0; index < most / sizeof(*to); index++) {
		if (index >= words)
			break;
		to[index] = from[index];
	}
	bpf_map_delete_elem(dns_pieces_map(way), &walk->segment.key);
	dns_message_begin(walk, packet, length);
	return true;
}

/*
 * Read on, as far as one message goes. True: it is whole, and lies in `walk`. Where nothing of what is `left` was
 * taken, it could not be read.
 */
static __always_inline bool dns_piece_read(struct __sk_buff *skb, struct dns_walk *walk, enum dns_way way)
{
	struct dns_packet *packet = &walk->packet;
	struct dns_segment *segment = &walk->segment;
	struct dns_place *place = &segment->place;
	__u32 count, rest;
	bool whole, loaded;

	if (!dns_prefix_read(skb, segment) || place->have < NW_DNS_PREFIX)
		return false;
	rest = place->length + NW_DNS_PREFIX - place->have;
	whole = segment->left >= rest;
	count = whole ? rest : segment->left;
	packet->resolver = segment->key.resolver;
	packet->client_port = segment->key.client_port;
	packet->protocol = NW_PROTO_TCP;
	packet->message = segment->at;
	packet->length = place->length;
	if (whole && place->have == NW_DNS_PREFIX) {
		loaded = dns_message_load(skb, packet);
	} else {
		if (count)
			dns_piece_keep(skb, walk, count, way);
		loaded = whole && dns_pieces_load(walk, packet, way);
		if (whole && !loaded && way == DNS_FROM_RESOLVER && place->torn)
			dns_count(NW_DNS_COUNT_SPLIT);
	}
	segment->at += count;
	segment->left -= count;
	place->have = whole ? 0 : place->have + count;
	place->torn = whole ? 0 : place->torn;
	return loaded;
}

#endif
