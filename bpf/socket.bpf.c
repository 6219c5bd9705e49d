// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The socket layer: connect() and sendmsg() of pods, at the root of cgroup v2. Compiled by BCC, so it touches only
 * contexts of the user API. It fails fast and knows the process; it is not the last word, for raw and packet sockets
 * pass it by.
 *
 * A UDP server answers by sendmsg(), some by connect(): to the client that asked, which its own egress policy need
 * not allow (rule A38). Only conntrack knows what is an answer, so only sockets that were made under our eyes and
 * never bound are judged here; any other datagram is left to the packet layer, which judges the connection.
 *
 * The verifier merges two context accesses into a pointer it refuses when the family is a run-time argument: each
 * hook reads its own context and hands over values.
 */
#include <linux/bpf.h>

#include "connect.h"
#include "emit.h"
#include "refuse.h"

/* Whether an allowed call is worth an event: connect() happens once a flow, sendmsg() once a datagram. */
enum { NW_REPORT_DENIED = 0, NW_REPORT_ALL = 1 };

/* Values of the context that every family shares. */
static __always_inline void flow_begin(struct flow *flow, __u8 family, __u32 protocol, __u32 user_port)
{
	flow->family = family;
	flow->protocol = protocol;
	if (protocol_has_ports(protocol))
		flow->server_port = user_port;
}

/* An IPv6 socket that talks to an IPv4-mapped address talks IPv4 (rule A24); connect6 and sendmsg6 alike. */
static __always_inline void flow_normalise(struct flow *flow)
{
	if (addr_is_mapped4(&flow->server))
		flow->family = NW_IPV4;
}

static __always_inline bool socket_may_answer(const struct flow *flow, __u64 socket)
{
	if (flow->protocol != NW_PROTO_UDP && flow->protocol != NW_PROTO_UDPLITE)
		return false;
	return !NW_LOOKUP(udp_clients, &socket);
}

static __always_inline int judge(const struct flow *flow, __u64 cookie, int report)
{
	struct decision decision = {};
	struct moment now;

	if (!moment_read(&now) || !decide_connect(&decision, flow, cookie, now.slot))
		return NW_PROCEED;
	if (decision.verdict != NW_DROPPED) {
		count(NW_COUNT_SOCKET_ALLOWED);
		if (report == NW_REPORT_ALL)
			emit_socket(flow, &decision, &now, cookie);
		return NW_PROCEED;
	}
	count(NW_COUNT_SOCKET_DENIED);
	emit_socket(flow, &decision, &now, cookie);
	if (now.flags & NW_CONFIG_DROP_SILENTLY)
		return NW_PROCEED;	/* the packet layer drops it, as deny mode `drop` wants it to look */
	return refuse();
}

int nw_connect4(struct bpf_sock_addr *ctx)
{
	struct flow flow = {};

	flow_begin(&flow, NW_IPV4, ctx->protocol, ctx->user_port);
	addr_set4(&flow.server, ctx->user_ip4);
	if (socket_may_answer(&flow, bpf_get_socket_cookie(ctx)))
		return NW_PROCEED;
	return judge(&flow, bpf_get_netns_cookie(ctx), NW_REPORT_ALL) ? NW_PROCEED : NW_REJECT;
}

int nw_sendmsg4(struct bpf_sock_addr *ctx)
{
	struct flow flow = {};

	flow_begin(&flow, NW_IPV4, ctx->protocol, ctx->user_port);
	addr_set4(&flow.server, ctx->user_ip4);
	if (socket_may_answer(&flow, bpf_get_socket_cookie(ctx)))
		return NW_PROCEED;
	return judge(&flow, bpf_get_netns_cookie(ctx), NW_REPORT_DENIED) ? NW_PROCEED : NW_REJECT;
}

int nw_connect6(struct bpf_sock_addr *ctx)
{
	struct flow flow = {};

	flow_begin(&flow, NW_IPV6, ctx->protocol, ctx->user_port);
	flow.server.word[0] = ctx->user_ip6[0];
	flow.server.word[1] = ctx->user_ip6[1];
	flow.server.word[2] = ctx->user_ip6[2];
	flow.server.word[3] = ctx->user_ip6[3];
	flow_normalise(&flow);
	if (socket_may_answer(&flow, bpf_get_socket_cookie(ctx)))
		return NW_PROCEED;
	return judge(&flow, bpf_get_netns_cookie(ctx), NW_REPORT_ALL) ? NW_PROCEED : NW_REJECT;
}

int nw_sendmsg6(struct bpf_sock_addr *ctx)
{
	struct flow flow = {};

	flow_begin(&flow, NW_IPV6, ctx->protocol, ctx->user_port);
	flow.server.word[0] = ctx->user_ip6[0];
	flow.server.word[1] = ctx->user_ip6[1];
	flow.server.word[2] = ctx->user_ip6[2];
	flow.server.word[3] = ctx->user_ip6[3];
	flow_normalise(&flow);
	if (socket_may_answer(&flow, bpf_get_socket_cookie(ctx)))
		return NW_PROCEED;
	return judge(&flow, bpf_get_netns_cookie(ctx), NW_REPORT_DENIED) ? NW_PROCEED : NW_REJECT;
}

int nw_sock_create(struct bpf_sock *ctx)
{
	__u64 socket = bpf_get_socket_cookie(ctx);
	__u32 one = 1;

	if (ctx->protocol == NW_PROTO_UDP || ctx->protocol == NW_PROTO_UDPLITE)
		NW_UPDATE(udp_clients, &socket, &one);
	return NW_PROCEED;
}

/* After bind(): not run for the port that the kernel picks at the first send. */
int nw_post_bind4(struct bpf_sock *ctx)
{
	__u64 socket = bpf_get_socket_cookie(ctx);

	NW_DELETE(udp_clients, &socket);
	return NW_PROCEED;
}

int nw_post_bind6(struct bpf_sock *ctx)
{
	__u64 socket = bpf_get_socket_cookie(ctx);

	NW_DELETE(udp_clients, &socket);
	return NW_PROCEED;
}
