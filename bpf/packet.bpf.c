// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The packet layer: netfilter hooks in the node's network namespace (BPF_PROG_TYPE_NETFILTER, Linux 6.4).
 *
 *   nw_source4/6   PRE_ROUTING  before conntrack and reassembly: the source address is the sender's (source.h)
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

/*
 * What the hooks share: the time, and the packet, whose bytes `data` gives. False, and then the packet passes, does not
 * happen once the programs are loaded: `config` is an array of one, and a dynptr of an skb is refused for flags only.
 * What cannot be parsed is no such case: it is malformed, and judged (packet.h). A program has one dynptr: the verifier
 * refuses a stack slot that was one and is something else later.
 */
static __always_inline bool packet_begin(struct bpf_nf_ctx *ctx, __u8 family, struct moment *now,
					 struct bpf_dynptr *data, struct packet *packet)
{
	if (!moment_read(now) || bpf_dynptr_from_skb(ctx->skb, 0, data))
		return false;
	packet_parse(data, 0, family, packet);
	return true;
}

/* The packet that an error quotes, eight bytes behind the beginning of the error (RFC 792, RFC 4443). */
static __always_inline bool error_quotes(const struct bpf_dynptr *data, const struct packet *error, __u8 family,
					 struct packet *quoted)
{
	if (!error->transport)
		return false;
	packet_parse(data, error->transport + 8, family, quoted);
	return !quoted->flow.malformed;
}

static __always_inline bool packet_is_error(const struct packet *packet, __u32 ctinfo)
{
	return packet->icmp && (ctinfo == NW_CT_RELATED || ctinfo == NW_CT_RELATED_REPLY);
}

/*
 * An error is judged as the connection it is about: what conntrack knows may have been forbidden since. It comes from
 * that packet's destination or from a router on the way. A pod is no router: an error from a pod about a packet that
 * was not for it tries to speak into somebody else's connection. False: it does.
 */
static __always_inline bool error_resolve(const struct bpf_dynptr *data, struct packet *error, __u8 family,
					  __u32 ctinfo, __u32 slot)
{
	struct packet quoted = {};

	if (!error_quotes(data, error, family, &quoted))
		return false;
	if (identity_of_pod(&error->flow.client, family, slot) != NW_SLOT_EMPTY &&
	    !addr_equal(&quoted.flow.server, &error->flow.client))
		return false;
	error->flow = quoted.flow;
	error->flow.established = true;	/* or there would be no error */
	if (ctinfo == NW_CT_RELATED)	/* goes the way of the connection, so it is about an answer */
		flow_turn(&error->flow);
	return true;
}

static __always_inline int drop_forged(const struct packet *packet, const struct moment *now)
{
	struct decision decision = {
		.direction = NW_EGRESS, .verdict = NW_DROPPED, .reason = NW_RELATED_FORGED
	};

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

/* Allowed flows, would-be denials among them, are reported once, when conntrack calls them new; their other packets are
 * not even counted. */
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
	struct bpf_dynptr data;
	struct moment now;
	struct net_device *in = ctx->state->in;
	__u32 forged_by;

	if (!in || !packet_begin(ctx, family, &now, &data, &packet))
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
	struct bpf_dynptr data;
	struct moment now;
	__u32 ctinfo = ctinfo_of(ctx->skb);

	if (!packet_begin(ctx, family, &now, &data, &packet) || packet_is_discovery(&packet))
		return NF_ACCEPT;
	packet.flow.established = ctinfo_is_established(ctinfo);
	if (packet_is_error(&packet, ctinfo)) {
		if (!error_resolve(&data, &packet, family, ctinfo, now.slot))
			return drop_forged(&packet, &now);
	} else if (ctinfo == NW_CT_ESTABLISHED_REPLY || ctinfo == NW_CT_RELATED_REPLY) {
		flow_turn(&packet.flow);
	}
	if (decide_forward(&packet.flow, now.slot, &egress, &ingress) == NW_DROPPED)
		return drop(&packet.flow, egress.verdict == NW_DROPPED ? &egress : &ingress, &now);
	if (ctinfo == NW_CT_NEW) {
		report_allowed(&packet.flow, &egress, &now);
		report_allowed(&packet.flow, &ingress, &now);
	}
	return NF_ACCEPT;
}

/*
 * The node's addresses may lie in a pod range (its gateway): only the client can be held here, and not where the node
 * speaks to itself, which it does by its loopback interface whatever the addresses.
 */
static __always_inline int local(struct bpf_nf_ctx *ctx, __u8 family)
{
	struct decision egress = {};
	struct packet packet = {};
	struct bpf_dynptr data;
	struct moment now;
	struct net_device *in = ctx->state->in;
	__u32 ctinfo = ctinfo_of(ctx->skb);

	if (ctinfo == NW_CT_ESTABLISHED_REPLY || (in && in->ifindex == NW_LOOPBACK_IFINDEX) ||
	    !packet_begin(ctx, family, &now, &data, &packet) || packet_is_discovery(&packet))
		return NF_ACCEPT;
	packet.flow.established = ctinfo_is_established(ctinfo);
	if (packet_is_error(&packet, ctinfo) && !error_resolve(&data, &packet, family, ctinfo, now.slot))
		return drop_forged(&packet, &now);
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
