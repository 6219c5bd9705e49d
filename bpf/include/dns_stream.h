/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * DNS over TCP: what of a stream has been read, and where in it a segment belongs. Each way of a connection is a
 * stream of its own. It begins with SYN, from there on every byte is read once and in order, whatever segments it comes
 * in, and so the segment that completes a message for the pod completes it here, before the pod has it.
 *
 *   in order, or with something new behind what was seen  -> what is new is read
 *   all of it was seen                                    -> passes
 *   ahead, from the resolver: what is before it was lost  -> dropped, for the pod must not have what was not read;
 *                                                            the resolver's kernel sends it again, in order
 *   likewise, NW_DNS_HELD_MAX times without any progress, -> passes; nothing more is read until the next SYN
 *   or to a pod that no policy by names selects
 *   ahead, from the pod                                   -> passes, for nobody would send it again; one that is
 *                                                            whole is read, as long as what is before it comes next
 *   of a stream whose beginning was not seen              -> an answer passes unread; a whole question is read, and its
 *                                                            stream followed from there on
 *
 * A stream is its sender's: what a pod says in one can make it an asker, and never anybody an answerer.
 */
#ifndef NODEWALL_DNS_STREAM_H
#define NODEWALL_DNS_STREAM_H

#include "dns_maps.h"
#include "dns_packet.h"
#include "dns_walk.h"
#include "maps.h"

#define NW_DNS_STREAMS 16384	/* on the node; the one that was silent longest is forgotten first */
#define NW_DNS_HELD_MAX 16

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, NW_DNS_STREAMS);
	__type(key, struct dns_stream_key);
	__type(value, struct dns_stream);
} dns_streams SEC(".maps");

/*
 * Have a stream to oneself. Two processors seldom have segments of one at a time; who comes second goes without. An
 * addition that returns nothing is what every kernel has: of two who add, at most one reads 1.
 */
static __always_inline bool dns_stream_claim(struct dns_stream *stream)
{
	__sync_fetch_and_add(&stream->claims, 1);
	if (*(volatile __u32 *)&stream->claims == 1)
		return true;
	__sync_fetch_and_add(&stream->claims, -1);
	return false;
}

static __always_inline void dns_stream_release(struct dns_stream *stream)
{
	__sync_fetch_and_add(&stream->claims, -1);
}

static __always_inline void dns_stream_key(const struct dns_packet *packet, __u32 endpoint, enum dns_way way,
					   struct dns_stream_key *key)
{
	key->endpoint = endpoint;
	key->resolver = packet->resolver;
	key->client_port = packet->client_port;
	key->way = way;
	key->pad1 = 0;
}

/* Follow the segment's stream from `next` on. */
static __always_inline void dns_stream_follow(struct dns_segment *segment, __u32 next)
{
	__builtin_memset(&segment->begun, 0, sizeof(segment->begun));
	segment->begun.first = next - 1;
	segment->begun.next = next;
	bpf_map_update_elem(&dns_streams, &segment->key, &segment->begun, BPF_ANY);
}

/* Whether a segment begins a stream: a SYN from who asks, one with ACK from who is asked. */
static __always_inline bool dns_segment_begins(const struct dns_packet *packet, enum dns_way way)
{
	return (packet->flags & (NW_TCP_SYN | NW_TCP_ACK)) ==
	       (way == DNS_TO_RESOLVER ? NW_TCP_SYN : NW_TCP_SYN | NW_TCP_ACK);
}

/* A SYN that comes twice begins nothing anew: what is behind it may have been read. */
static __always_inline void dns_stream_begin(struct dns_segment *segment, __u32 next)
{
	struct dns_stream *stream = bpf_map_lookup_elem(&dns_streams, &segment->key);

	if (!stream || stream->first != next - 1)
		dns_stream_follow(segment, next);
}

/* Whether nothing more is to come: a FIN behind all there was, or a reset that the receiver believes (RFC 5961 3.2). */
static __always_inline bool dns_stream_ends(const struct dns_stream *stream, const struct dns_packet *packet)
{
	if (packet->flags & NW_TCP_RST)
		return packet->sequence == stream->next;
	return packet->flags & NW_TCP_FIN && packet->sequence + packet->length == stream->next;
}

/* In either generation; `endpoint` lies in a map, for the stack is full. */
static __always_inline bool dns_endpoint_has_names(const __u32 *endpoint)
{
	const struct endpoint_value *value = NW_LOOKUP(endpoints, endpoint);

	return value && (value->slot[0].flags | value->slot[1].flags) &
				(NW_FLAG_EGRESS_NAMES | NW_FLAG_EGRESS_AUDIT_NAMES);
}

/*
 * Drop what would come before it is read, unless that has been done too often. Returns whether to. For pods without a
 * policy by names, what is read is but a memory of what they were told, and no packet is worth that.
 */
static __always_inline bool dns_stream_hold(struct dns_stream *stream, const __u32 *endpoint)
{
	if (stream->held >= NW_DNS_HELD_MAX || !dns_endpoint_has_names(endpoint))
		return false;
	stream->held++;
	dns_count(NW_DNS_COUNT_HELD);
	return true;
}

/* Whether a segment is exactly one message with its length before it. */
static __always_inline bool dns_segment_is_message(struct __sk_buff *skb, const struct dns_packet *packet)
{
	__be16 length;

	return packet->length >= sizeof(length) + NW_DNS_HEADER &&
	       !bpf_skb_load_bytes(skb, packet->message, &length, sizeof(length)) &&
	       bpf_ntohs(length) == packet->length - sizeof(length);
}

#endif
