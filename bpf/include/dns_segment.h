/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A segment to or from a resolver: which of its bytes are new (dns_stream.h), and every message that they make whole
 * (dns_piece.h), one after the other, each taken as a datagram's is (dns_take.h).
 *
 * A turn is a global function, which the verifier looks at once however many turns there are. Tail calls would do as
 * well only while somebody holds the map of programs: the kernel empties it with its last user, and there may be none.
 */
#ifndef NODEWALL_DNS_SEGMENT_H
#define NODEWALL_DNS_SEGMENT_H

#include <linux/pkt_cls.h>

#include "dns_piece.h"
#include "dns_stream.h"
#include "dns_take.h"

#define NW_DNS_TURNS 2048	/* messages of a segment: 64 KiB of the shortest answers that have an address */

/* Take one more message of the segment in this processor's walk. Returns whether there shall be no further turn. */
static __always_inline int dns_turn(struct __sk_buff *skb, enum dns_way way)
{
	struct dns_walk *walk = dns_walk_find();
	__u32 before;

	if (!walk)
		return 1;
	before = walk->segment.left;
	if (dns_piece_read(skb, walk, way)) {
		if (way == DNS_TO_RESOLVER)
			walk->segment.taken = dns_query_take(walk, &walk->packet, walk->segment.key.endpoint);
		else
			dns_answer_take(skb, walk, &walk->packet, walk->segment.key.endpoint);
	}
	return !walk->segment.left || walk->segment.left == before;
}

__noinline int nw_dns_query_turn(struct __sk_buff *skb)
{
	return dns_turn(skb, DNS_TO_RESOLVER);
}

__noinline int nw_dns_answer_turn(struct __sk_buff *skb)
{
	return dns_turn(skb, DNS_FROM_RESOLVER);
}

/* Take every message that `left` bytes at `at` make whole, from `place` on. */
static __always_inline void dns_turns(struct __sk_buff *skb, struct dns_segment *segment, __u32 at, __u32 left,
				      enum dns_way way)
{
	__u32 turn;

	segment->at = at;
	segment->left = left;
	segment->taken = 0;
#pragma clang loop unroll(disable)
	for (turn = 0; turn < NW_DNS_TURNS; turn++) {
		if (way == DNS_TO_RESOLVER ? nw_dns_query_turn(skb) : nw_dns_answer_turn(skb))
			return;
	}
}

/* Read what of a segment is new; `seen` bytes of it are not. */
static __always_inline void dns_segment_read(struct __sk_buff *skb, struct dns_segment *segment,
					     struct dns_stream *stream, const struct dns_packet *packet, __u32 seen,
					     enum dns_way way)
{
	__u32 new = packet->length - seen;

	segment->place = stream->place;
	dns_turns(skb, segment, packet->message + seen, new, way);
	stream->place = segment->place;
	stream->next += new - segment->left;
	stream->held = 0;
	stream->lost = !!segment->left;
	if (stream->early != stream->early_end && stream->early == stream->next && !stream->place.have) {
		stream->next = stream->early_end;
		stream->early = stream->early_end;
	}
}

/* A pod's, whose place in its stream is not known. Returns whether it was a query, and nothing else. */
static __always_inline bool dns_segment_take(struct __sk_buff *skb, struct dns_segment *segment,
					     const struct dns_packet *packet)
{
	if (!dns_segment_is_message(skb, packet))
		return false;
	__builtin_memset(&segment->place, 0, sizeof(segment->place));
	dns_turns(skb, segment, packet->message, packet->length, DNS_TO_RESOLVER);
	return segment->taken;
}

/*
 * Of a stream whose beginning was not seen, or of a pod's that cannot be followed any more. Where an answer begins in it
 * nobody knows: what looks like one may lie inside a record, whose owner writes what he likes, and a pod chooses how long
 * segments are. A question teaches nothing by itself.
 */
static __always_inline int dns_segment_alone(struct __sk_buff *skb, struct dns_segment *segment,
					     const struct dns_packet *packet, enum dns_way way)
{
	if (!packet->length)
		return TC_ACT_UNSPEC;
	if (way == DNS_FROM_RESOLVER)
		dns_count(NW_DNS_COUNT_SPLIT);
	else if (dns_segment_take(skb, segment, packet))
		dns_stream_follow(segment, packet->sequence + packet->length);
	return TC_ACT_UNSPEC;
}

/* Before this something is missing. */
static __always_inline int dns_segment_ahead(struct __sk_buff *skb, struct dns_segment *segment,
					     struct dns_stream *stream, const struct dns_packet *packet,
					     enum dns_way way)
{
	if (way == DNS_FROM_RESOLVER) {
		if (dns_stream_hold(stream, &segment->key.endpoint))
			return TC_ACT_SHOT;
		stream->lost = 1;
		dns_count(NW_DNS_COUNT_SPLIT);
		return TC_ACT_UNSPEC;
	}
	if (dns_segment_take(skb, segment, packet) && stream->early == stream->early_end) {
		stream->early = packet->sequence;
		stream->early_end = packet->sequence + packet->length;
	} else {
		stream->lost = 1;
	}
	return TC_ACT_UNSPEC;
}

/* The action for a segment of a stream that is known, and this processor's for now. */
static __always_inline int dns_segment_follow(struct __sk_buff *skb, struct dns_segment *segment,
					      struct dns_stream *stream, const struct dns_packet *packet,
					      enum dns_way way)
{
	__s32 seen = stream->next - packet->sequence;

	if (!packet->length)
		return TC_ACT_UNSPEC;
	if (stream->lost) {
		dns_count(NW_DNS_COUNT_SPLIT);
		return TC_ACT_UNSPEC;
	}
	if (seen < 0)
		return dns_segment_ahead(skb, segment, stream, packet, way);
	if (seen < packet->length) {
		dns_segment_read(skb, segment, stream, packet, seen, way);
		if (stream->lost && way == DNS_FROM_RESOLVER)
			dns_count(NW_DNS_COUNT_SPLIT);
	}
	return TC_ACT_UNSPEC;
}

/* The action for a segment between a pod of ours and a resolver that is believed. */
static __always_inline int dns_segment(struct __sk_buff *skb, const struct dns_packet *packet, __u32 endpoint,
				       enum dns_way way)
{
	struct dns_walk *walk = dns_walk_find();
	struct dns_segment *segment;
	struct dns_stream *stream;
	int action;

	if (!walk)
		return TC_ACT_UNSPEC;
	segment = &walk->segment;
	dns_stream_key(packet, endpoint, way, &segment->key);
	if (dns_segment_begins(packet, way))
		dns_stream_begin(segment, packet->sequence);
	stream = bpf_map_lookup_elem(&dns_streams, &segment->key);
	if (!stream || (way == DNS_TO_RESOLVER && stream->lost))
		return dns_segment_alone(skb, segment, packet, way);
	if (!dns_stream_claim(stream))
		return way == DNS_FROM_RESOLVER && packet->length && dns_stream_hold(stream, &segment->key.endpoint) ?
			       TC_ACT_SHOT :
			       TC_ACT_UNSPEC;
	action = dns_segment_follow(skb, segment, stream, packet, way);
	if (dns_stream_ends(stream, packet)) {
		bpf_map_delete_elem(dns_pieces_map(way), &segment->key);
		bpf_map_delete_elem(&dns_streams, &segment->key);
	} else {
		dns_stream_release(stream);
	}
	return action;
}

#endif
