/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* IPv6 extension headers (RFC 8200 section 4), however a packet is read. */
#ifndef NODEWALL_IP6_H
#define NODEWALL_IP6_H

#include "addr.h"

enum {
	NW_PROTO_HOPOPTS = 0,
	NW_PROTO_ICMP = 1,
	NW_PROTO_ROUTING = 43,
	NW_PROTO_FRAGMENT = 44,
	NW_PROTO_AH = 51,
	NW_PROTO_ICMPV6 = 58,
	NW_PROTO_DSTOPTS = 60,
	NW_PROTO_MOBILITY = 135,
	NW_PROTO_HIP = 139,
	NW_PROTO_SHIM6 = 140,
};

static __always_inline bool header_is_extension(__u8 protocol)
{
	return protocol == NW_PROTO_HOPOPTS || protocol == NW_PROTO_ROUTING || protocol == NW_PROTO_FRAGMENT ||
	       protocol == NW_PROTO_AH || protocol == NW_PROTO_DSTOPTS || protocol == NW_PROTO_MOBILITY ||
	       protocol == NW_PROTO_HIP || protocol == NW_PROTO_SHIM6;
}

/* One extension header. */
struct extension {
	__u8 next;
	__u8 length;
	__be16 offset;		/* fragment header: upper 13 bits */
};

static __always_inline __u32 extension_size(__u8 protocol, const struct extension *header)
{
	if (protocol == NW_PROTO_FRAGMENT)
		return 8;
	if (protocol == NW_PROTO_AH)
		return (header->length + 2) * 4;
	return (header->length + 1) * 8;
}

#endif
