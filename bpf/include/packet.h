/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A packet, parsed as far as policy needs it. Nothing read here is trusted: a header that cannot be read or followed
 * makes the packet malformed, never allowed by accident.
 *
 * conntrack has put fragments together before every hook that judges. Should one get there, what follows its first
 * part has no ports, so only rows that hold for every port match it.
 */
#ifndef NODEWALL_PACKET_H
#define NODEWALL_PACKET_H

#include <linux/bpf.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "addr.h"
#include "ip6.h"

#define NW_EXTENSIONS_MAX 8	/* IPv6 extension headers; RFC 8504 lets a host refuse long chains */
#define NW_IP_OFFSET_MASK 0x1fff

struct packet {
	struct flow flow;	/* client is the source, until the flow is turned */
	__u32 transport;	/* where the transport header begins; 0: this fragment has none */
	__u8 icmp;		/* ICMP or ICMPv6 with a type that could be read */
	__u8 icmp_type;
	__u8 hop_limit;		/* IPv6 */
};

/*
 * Where the bytes are. A program that may not ask for a dynptr of its packet, as socket filters, or that shall load
 * before Linux 6.4, defines NW_PACKET_OF_SKB; its packets begin where skb->data does.
 */
#ifdef NW_PACKET_OF_SKB

typedef struct __sk_buff packet_bytes;

static __always_inline bool packet_read(const packet_bytes *data, __u32 offset, void *to, __u32 length)
{
	return !bpf_skb_load_bytes(data, offset, to, length);
}

#else

typedef struct bpf_dynptr packet_bytes;

static __always_inline bool packet_read(const packet_bytes *data, __u32 offset, void *to, __u32 length)
{
	return !bpf_dynptr_read(to, length, data, offset, 0);
}

#endif

static __always_inline void packet_read_transport(const packet_bytes *data, struct packet *packet)
{
	__be16 ports[2] = {};

	if (!packet->transport)
		return;
	if (packet->flow.protocol == NW_PROTO_ICMP || packet->flow.protocol == NW_PROTO_ICMPV6) {
		packet->icmp = packet_read(data, packet->transport, &packet->icmp_type, 1);
		return;
	}
	if (!protocol_has_ports(packet->flow.protocol))
		return;
	packet_read(data, packet->transport, ports, sizeof(ports));
	packet->flow.client_port = ports[0];
	packet->flow.server_port = ports[1];
}

static __always_inline void packet_parse4(const packet_bytes *data, __u32 begin, struct packet *packet)
{
	struct iphdr ip;

	packet->flow.family = NW_IPV4;
	if (!packet_read(data, begin, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5) {
		packet->flow.malformed = 1;
		return;
	}
	addr_set4(&packet->flow.client, ip.saddr);
	addr_set4(&packet->flow.server, ip.daddr);
	packet->flow.protocol = ip.protocol;
	if (!(ip.frag_off & bpf_htons(NW_IP_OFFSET_MASK)))
		packet->transport = begin + ip.ihl * 4;
	packet_read_transport(data, packet);
}

/* Sets protocol and transport; false: the chain cannot be followed to its end. */
static __always_inline bool packet_walk6(const packet_bytes *data, __u32 offset, struct packet *packet)
{
	struct extension header;
	int i;

	for (i = 0; i < NW_EXTENSIONS_MAX; i++) {
		if (!header_is_extension(packet->flow.protocol)) {
			packet->transport = offset;
			return true;
		}
		if (!packet_read(data, offset, &header, sizeof(header)))
			return false;
		offset += extension_size(packet->flow.protocol, &header);
		if (packet->flow.protocol == NW_PROTO_FRAGMENT && header.offset & bpf_htons(0xfff8)) {
			packet->flow.protocol = header.next;
			return !header_is_extension(header.next);
		}
		packet->flow.protocol = header.next;
	}
	return false;
}

static __always_inline void packet_parse6(const packet_bytes *data, __u32 begin, struct packet *packet)
{
	struct ipv6hdr ip;

	packet->flow.family = NW_IPV6;
	if (!packet_read(data, begin, &ip, sizeof(ip)) || ip.version != 6) {
		packet->flow.malformed = 1;
		return;
	}
	__builtin_memcpy(&packet->flow.client, &ip.saddr, sizeof(struct addr6));
	__builtin_memcpy(&packet->flow.server, &ip.daddr, sizeof(struct addr6));
	packet->flow.protocol = ip.nexthdr;
	packet->hop_limit = ip.hop_limit;
	if (packet_walk6(data, begin + sizeof(ip), packet))
		packet_read_transport(data, packet);
	else
		packet->flow.malformed = 1;
}

/* `family` is known at compile time: only one of the two is in a program. */
static __always_inline void packet_parse(const packet_bytes *data, __u32 begin, __u8 family,
					 struct packet *packet)
{
	if (family == NW_IPV4)
		packet_parse4(data, begin, packet);
	else
		packet_parse6(data, begin, packet);
}

/*
 * Neighbour discovery (133-137) and multicast listener discovery: without them there is no IPv6 (rule A41). They
 * never leave a link, which the hop limit proves: 255, so nobody routed it (RFC 4861 6.1), or 1 from a link-local
 * address or none, so nobody will (RFC 3810 5). With any other they are no discovery but data, and judged.
 */
static __always_inline bool packet_is_discovery(const struct packet *packet)
{
	const struct addr6 *source = &packet->flow.client;
	__u8 type = packet->icmp_type;

	if (packet->flow.protocol != NW_PROTO_ICMPV6 || packet->flow.family != NW_IPV6 || !packet->icmp)
		return false;
	if (type >= 133 && type <= 137)
		return packet->hop_limit == 255;
	return ((type >= 130 && type <= 132) || type == 143) && packet->hop_limit == 1 &&
	       (addr_is_link_local6(source) || addr_is_unspecified6(source));
}

#endif
