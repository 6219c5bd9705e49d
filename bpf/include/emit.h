/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Events and counters. An event that finds the ring full is counted, never waited for: the datapath has no reader
 * it depends on.
 */
#ifndef NODEWALL_EMIT_H
#define NODEWALL_EMIT_H

#include "decide.h"

/* A per-CPU word, and yet atomic: socket programs may be preempted by one another. */
static __always_inline void count(__u32 counter)
{
	__u64 *value = NW_LOOKUP(counters, &counter);

	if (value)
		__sync_fetch_and_add(value, 1);
}

static __always_inline void event_fill(struct event *to, const struct flow *flow, const struct decision *decision,
				       const struct moment *now)
{
	__builtin_memset(to, 0, sizeof(*to));
	to->time_ns = bpf_ktime_get_ns();
	to->endpoint = decision->endpoint;
	to->generation = now->generation;
	to->policy_set = decision->policy_set;
	to->rule = decision->rule;
	to->source_identity = identity_of(&flow->client, flow->family, now->slot);
	to->destination_identity = identity_of(&flow->server, flow->family, now->slot);
	to->source = flow->client;
	to->destination = flow->server;
	to->source_port = flow->client_port;
	to->destination_port = flow->server_port;
	to->protocol = flow->protocol;
	to->family = flow->family;
	to->direction = decision->direction;
	to->verdict = decision->verdict;
	to->reason = decision->reason;
}

/* Null when nobody shall hear of it, or when the ring is full, which is counted. */
static __always_inline struct event *event_reserve(const struct decision *decision)
{
	struct event *event;

	if (decision->endpoint == NW_ENDPOINT_PROBE)
		return 0;
	event = bpf_ringbuf_reserve(NW_MAP(events), sizeof(struct event), 0);
	if (!event)
		count(NW_COUNT_EVENTS_LOST);
	return event;
}

static __always_inline void emit_packet(const struct flow *flow, const struct decision *decision,
					const struct moment *now)
{
	struct event *event = event_reserve(decision);

	if (!event)
		return;
	event_fill(event, flow, decision, now);
	event->layer = NW_LAYER_PACKET;
	bpf_ringbuf_submit(event, 0);
}

/* Runs in the process that connects. */
static __always_inline void emit_socket(const struct flow *flow, const struct decision *decision,
					const struct moment *now, __u64 cookie)
{
	struct event *event = event_reserve(decision);

	if (!event)
		return;
	event_fill(event, flow, decision, now);
	event->layer = NW_LAYER_SOCKET;
	event->source_identity = NW_IDENTITY_ANY;	/* no source address yet: user space knows the endpoint */
	event->netns_cookie = cookie;
	event->pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(event->command, sizeof(event->command));
	bpf_ringbuf_submit(event, 0);
}

#endif
