// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The learner's answer program behind one that asks whatever question the frame answers, so that the same frame can be
 * run again and again. `nw_ask` is the first half alone. The same for a segment of TCP: `nw_ask_again` puts its stream
 * back to where the segment begins; what it completes is the last message that this processor has read. Never shipped.
 */
#include "../../../bpf/dns_learn.bpf.c"

static __always_inline void ask(struct __sk_buff *skb)
{
	struct dns_packet packet = {};
	struct dns_walk *walk;

	if (dns_packet_read(skb, DNS_FROM_RESOLVER, &packet) != DNS_MESSAGE)
		return;
	walk = dns_message_load(skb, &packet);
	if (!walk || !dns_question_read(walk))
		return;
	walk->told.endpoint = dns_endpoint(skb);
	dns_pending_put(walk, &packet);
}

SEC("tc") int nw_ask(struct __sk_buff *skb)
{
	ask(skb);
	return TC_ACT_UNSPEC;
}

SEC("tc") int nw_asked(struct __sk_buff *skb)
{
	ask(skb);
	return dns_answer(skb);
}

static __always_inline void ask_again(struct __sk_buff *skb)
{
	struct dns_packet packet = {};
	struct dns_stream_key key = {};
	struct dns_walk *walk = dns_walk_find();
	struct dns_stream *stream;

	if (!walk || dns_packet_read(skb, DNS_FROM_RESOLVER, &packet) != DNS_SEGMENT || !dns_question_read(walk))
		return;
	walk->told.endpoint = dns_endpoint(skb);
	dns_pending_put(walk, &packet);
	dns_stream_key(&packet, walk->told.endpoint, DNS_FROM_RESOLVER, &key);
	stream = bpf_map_lookup_elem(&dns_streams, &key);
	if (!stream)
		return;
	stream->next = packet.sequence;
	stream->place.length = walk->length;
	stream->place.have = walk->length + NW_DNS_PREFIX - packet.length;
	if (stream->place.have > NW_DNS_PREFIX)
		bpf_map_update_elem(&dns_answers_begun, &key, walk->message, BPF_ANY);
}

SEC("tc") int nw_ask_again(struct __sk_buff *skb)
{
	ask_again(skb);
	return TC_ACT_UNSPEC;
}

SEC("tc") int nw_asked_again(struct __sk_buff *skb)
{
	ask_again(skb);
	return dns_answer(skb);
}
