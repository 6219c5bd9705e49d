/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Events and counters. An event that finds the ring full is counted, never waited for: the datapath has no reader
 * it depends on. One of a kind that comes too often is kept back and counted (rate.h).
 */
#ifndef NODEWALL_EMIT_H
#define NODEWALL_EMIT_H

#include "decide.h"
#include "rate.h"

/* A per-CPU word, and yet atomic: socket programs may be preempted by one another. */
static __always_inline void count_more(__u32 counter, __u32 more)
{
	__u64 *value = NW_LOOKUP(counters, &counter);

	if (value)
		__sync_fetch_and_add(value, more);
}

static __always_inline void count(__u32 counter)
{
	count_more(counter, 1);
}

static __always_inline void event_fill(struct event *to, const struct flow *flow, const struct decision *decision,
				       const struct moment *now)
{
	to->endpoint = decision->endpoint;
	to->generation = now->generation;
	to->policy_set = decision->policy_set;
	to->rule = decision->rule;
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

/* Null when nobody shall hear of it, when it is kept back, or when the ring is full; the last two are counted. */
static __always_inline struct event *event_begin(const struct flow *flow, const struct decision *decision,
						 const struct moment *now, __u8 layer)
{
	struct rate_key kind = {};
	struct rate_value *bucket = 0;
	struct event *event;
	__u32 client, server;
	__u64 time_ns;

	if (decision->endpoint == NW_ENDPOINT_PROBE)
		return 0;
	time_ns = bpf_ktime_get_ns();
	client = identity_of(&flow->client, flow->family, now->slot);
	server = identity_of(&flow->server, flow->family, now->slot);
	kind.endpoint = decision->endpoint;
	kind.peer = decision->direction == NW_EGRESS ? server : client;
	kind.port = flow->server_port;
	kind.protocol = flow->protocol;
	kind.direction = decision->direction;
	kind.layer = layer;
	kind.verdict = decision->verdict;
	kind.reason = decision->reason;
	if (now->verdict_interval_ns && !rate_admits(&kind, time_ns, now->verdict_interval_ns, &bucket)) {
		count(NW_COUNT_EVENTS_SUPPRESSED);
		return 0;
	}
	event = bpf_ringbuf_reserve(NW_MAP(events), sizeof(struct event), 0);
	if (!event) {
		count(NW_COUNT_EVENTS_LOST);
		return 0;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->time_ns = time_ns;
	event->layer = layer;
	if (bucket)
		event->repeats = rate_take(bucket);
	event->source_identity = client;
	event->destination_identity = server;
	event_fill(event, flow, decision, now);
	return event;
}

static __always_inline void event_end(struct event *event)
{
	__u32 repeats = event->repeats;

	bpf_ringbuf_submit(event, 0);
	if (repeats)
		count_more(NW_COUNT_EVENTS_REPEATED, repeats);
}

static __always_inline void emit_packet(const struct flow *flow, const struct decision *decision,
					const struct moment *now)
{
	struct event *event = event_begin(flow, decision, now, NW_LAYER_PACKET);

	if (event)
		event_end(event);
}

/* Runs in the process that connects. */
static __always_inline void emit_socket(const struct flow *flow, const struct decision *decision,
					const struct moment *now, __u64 cookie)
{
	struct event *event = event_begin(flow, decision, now, NW_LAYER_SOCKET);

	if (!event)
		return;
	event->source_identity = NW_IDENTITY_ANY;	/* no source address yet: user space knows the endpoint */
	event->netns_cookie = cookie;
	event->pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(event->command, sizeof(event->command));
	event_end(event);
}

#endif
