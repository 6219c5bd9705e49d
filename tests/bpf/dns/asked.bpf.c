// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The learner's answer program behind one that asks whatever question the frame answers, so that the same frame can be
 * run again and again. `nw_ask` is the first half alone. Never shipped.
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
	dns_answer(skb);
	return TC_ACT_UNSPEC;
}
