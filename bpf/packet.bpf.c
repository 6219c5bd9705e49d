// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The packet layer: netfilter hooks in the node's network namespace (BPF_PROG_TYPE_NETFILTER, Linux 6.4).
 *
 *   nw_source4/6   PRE_ROUTING  before conntrack: the source address is the sender's (source.h)
 *   nw_forward4/6  FORWARD      every packet of every flow, judged as the connection it belongs to (rules A38, A39)
 *   nw_local4/6    LOCAL_IN     a pod's packets to its own node; the node's own flows pass (rule A37)
 *
 * FORWARD sees pods and backends after DNAT and before SNAT, in both directions: what a reply comes from is what the
 * connection went to. conntrack says which direction a packet has; there is no connection state of our own that could
 * disagree with it.
 */
#include "kernel.h"

#include "decide.h"
#include "emit.h"
#include "packet.h"
#include "source.h"

/* What the hooks share: the time, the packet and its place in a connection. False: nothing to judge by, pass. */
static __always_inline bool packet_begin(struct bpf_nf_ctx *ctx, __u8 family, struct moment *now,
					 struct packet *packet)
{
	struct bpf_dynptr data;

	if (!moment_read(now) || bpf_dynptr_from_skb(ctx->skb, 0, &data))
		return false;
	packet_parse(&data, 0, family, packet);
	return true;
}

/* Where the error's inner packet was going (RFC 792, RFC 4443: the offending packet follows eight bytes). */
static __always_inline bool inner_destination(struct bpf_nf_ctx *ctx, const struct packet *packet, struct addr6 *to)
{
	struct bpf_dynptr data;
	__u32 inner = packet->transport + 8;
	__be32 address4;

	if (!packet->transport || bpf_dynptr_from_skb(ctx->skb, 0, &data))
		return false;
	if (packet->flow.family == NW_IPV6)
		return packet_read(&data, inner + 24, to, sizeof(*to));
	if (!packet_read(&data, inner + 16, &address4, sizeof(address4)))
		return false;
	addr_set4(to, address4);
	return true;
}

/*
 * An error about a flow comes from its destination or from a router on the way. A pod is no router: an error from
 * a pod about a packet that was not for it tries to speak into somebody else's connection.
 */
static __always_inline bool error_is_forged(struct bpf_nf_ctx *ctx, const struct packet *packet, __u32 slot)
{
	struct addr6 destination = {};

	if (identity_of_pod(&packet->flow.client, packet->flow.family, slot) == NW_SLOT_EMPTY)
		return false;
	return !inner_destination(ctx, packet, &destination) || !addr_equal(&destination, &packet->flow.client);
}

static __always_inline bool packet_is_error(const struct packet *packet, __u32 ctinfo)
{
	return packet->icmp && (ctinfo == NW_CT_RELATED || ctinfo == NW_CT_RELATED_REPLY);
}

static __always_inline int judge_error(struct bpf_nf_ctx *ctx, const struct packet *packet, const struct moment *now)
{
	struct decision decision = {
		.direction = NW_EGRESS, .verdict = NW_DROPPED, .reason = NW_RELATED_FORGED
	};

	if (!error_is_forged(ctx, packet, now->slot))
		return NF_ACCEPT;
	decision.endpoint = endpoint_of_address(&packet->flow.client, packet->flow.family, now->slot);
	count(NW_COUNT_PACKET_DENIED);
	emit_packet(&packet->flow, &decision, now);
	return NF_DROP;
}

static __always_inline int drop(const struct flow *flow, const struct decision *decision, const struct moment *now)
{
	count(decision->reason == NW_MALFORMED ? NW_COUNT_MALFORMED : NW_COUNT_PACKET_DENIED);
	emit_packet(flow, decision, now);
	return NF_DROP;
}

/* Allowed flows are reported once, when conntrack calls them new; packets of them are not even counted. */
static __always_inline void report_allowed(const struct flow *flow, const struct decision *decision,
					   const struct moment *now)
{
	if (!decision->direction)
		return;
	count(NW_COUNT_PACKET_ALLOWED);
	emit_packet(flow, decision, now);
}

static __always_inline int source(struct bpf_nf_ctx *ctx, __u8 family)
{
	struct packet packet = {};
	struct moment now;
	struct net_device *in = ctx->state->in;
	__u32 forged_by;

	if (!in || !packet_begin(ctx, family, &now, &packet))
		return NF_ACCEPT;
	forged_by = source_forged_by(&packet, in->ifindex, now.slot);
	if (forged_by == NW_SLOT_EMPTY)
		return NF_ACCEPT;
	source_report(&packet.flow, forged_by, &now);
	return NF_DROP;
}

static __always_inline int forward(struct bpf_nf_ctx *ctx, __u8 family)
{
	struct decision egress = {}, ingress = {};
	struct packet packet = {};
	struct moment now;
	__u32 ctinfo = ctinfo_of(ctx->skb);

	if (!packet_begin(ctx, family, &now, &packet) || packet_is_discovery(&packet))
		return NF_ACCEPT;
	if (packet_is_error(&packet, ctinfo))
		return judge_error(ctx, &packet, &now);
	if (ctinfo == NW_CT_ESTABLISHED_REPLY || ctinfo == NW_CT_RELATED_REPLY)
		flow_turn(&packet.flow);
	if (decide_forward(&packet.flow, now.slot, &egress, &ingress) == NW_DROPPED)
		return drop(&packet.flow, egress.verdict == NW_DROPPED ? &egress : &ingress, &now);
	if (ctinfo == NW_CT_NEW) {
		report_allowed(&packet.flow, &egress, &now);
		report_allowed(&packet.flow, &ingress, &now);
	}
	return NF_ACCEPT;
}

/* The node's addresses may lie in a pod range (its gateway): only the client can be held here. */
static __always_inline int local(struct bpf_nf_ctx *ctx, __u8 family)
{
	struct decision egress = {};
	struct packet packet = {};
	struct moment now;
	__u32 ctinfo = ctinfo_of(ctx->skb);

	if (ctinfo == NW_CT_ESTABLISHED_REPLY || !packet_begin(ctx, family, &now, &packet) ||
	    packet_is_discovery(&packet))
		return NF_ACCEPT;
	if (packet_is_error(&packet, ctinfo))
		return judge_error(ctx, &packet, &now);
	if (ctinfo == NW_CT_RELATED_REPLY)
		return NF_ACCEPT;
	decide_end(&egress, &packet.flow, NW_EGRESS, now.slot);
	if (egress.verdict == NW_DROPPED)
		return drop(&packet.flow, &egress, &now);
	if (ctinfo == NW_CT_NEW)
		report_allowed(&packet.flow, &egress, &now);
	return NF_ACCEPT;
}

SEC("netfilter") int nw_source4(struct bpf_nf_ctx *ctx)
{
	return source(ctx, NW_IPV4);
}

SEC("netfilter") int nw_source6(struct bpf_nf_ctx *ctx)
{
	return source(ctx, NW_IPV6);
}

SEC("netfilter") int nw_forward4(struct bpf_nf_ctx *ctx)
{
	return forward(ctx, NW_IPV4);
}

SEC("netfilter") int nw_forward6(struct bpf_nf_ctx *ctx)
{
	return forward(ctx, NW_IPV6);
}

SEC("netfilter") int nw_local4(struct bpf_nf_ctx *ctx)
{
	return local(ctx, NW_IPV4);
}

SEC("netfilter") int nw_local6(struct bpf_nf_ctx *ctx)
{
	return local(ctx, NW_IPV6);
}

char program_license[] SEC("license") = "Dual BSD/GPL";
