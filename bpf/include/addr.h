/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Addresses in one form for both families: 128 bits on the wire, IPv4 mapped (::ffff:a.b.c.d, RFC 4291 2.5.5.2).
 * `family` says which lookup tables an address belongs to. Everything here is in network byte order.
 */
#ifndef NODEWALL_ADDR_H
#define NODEWALL_ADDR_H

#include "engine.h"
#include "types.h"

enum nw_family { NW_IPV4 = 4, NW_IPV6 = 6 };

/* A connection, or a packet seen as one: always from the side that asked to the side that was asked. */
struct flow {
	struct addr6 client;
	struct addr6 server;
	__be16 client_port;	/* 0 where the protocol has no ports, or a fragment does not show them */
	__be16 server_port;
	__u8 protocol;
	__u8 family;		/* enum nw_family */
	__u8 malformed;		/* the headers could not be followed: `protocol` is not to be trusted */
	__u8 established;	/* not 0: conntrack has seen both sides of it */
};

static __always_inline void addr_set4(struct addr6 *to, __be32 address)
{
	to->word[0] = 0;
	to->word[1] = 0;
	to->word[2] = bpf_htonl(0xffff);
	to->word[3] = address;
}

static __always_inline bool addr_is_mapped4(const struct addr6 *address)
{
	return !address->word[0] && !address->word[1] && address->word[2] == bpf_htonl(0xffff);
}

static __always_inline bool addr_is_unspecified6(const struct addr6 *address)
{
	return !(address->word[0] | address->word[1] | address->word[2] | address->word[3]);
}

static __always_inline bool addr_is_link_local6(const struct addr6 *address)
{
	return (address->word[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

static __always_inline bool addr_equal(const struct addr6 *one, const struct addr6 *other)
{
	return one->word[0] == other->word[0] && one->word[1] == other->word[1] && one->word[2] == other->word[2] &&
	       one->word[3] == other->word[3];
}

/*
 * Traffic to these never leaves the socket's own network namespace (rule A40). The unspecified address counts:
 * connect() to it reaches the loopback interface.
 */
static __always_inline bool addr_is_loopback(const struct addr6 *address, __u8 family)
{
	if (family == NW_IPV4)
		return !address->word[3] || (address->word[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return !address->word[0] && !address->word[1] && !address->word[2] &&
	       (!address->word[3] || address->word[3] == bpf_htonl(1));
}

enum { NW_PROTO_TCP = 6, NW_PROTO_UDP = 17, NW_PROTO_SCTP = 132, NW_PROTO_UDPLITE = 136 };

/* Only these have ports that policies can name; UDP-Lite and all others are judged by their number alone. */
static __always_inline bool protocol_has_ports(__u8 protocol)
{
	return protocol == NW_PROTO_TCP || protocol == NW_PROTO_UDP || protocol == NW_PROTO_SCTP;
}

/* The same connection, told from its reply. */
static __always_inline void flow_turn(struct flow *flow)
{
	struct addr6 address = flow->client;
	__be16 port = flow->client_port;

	flow->client = flow->server;
	flow->client_port = flow->server_port;
	flow->server = address;
	flow->server_port = port;
}

#endif
