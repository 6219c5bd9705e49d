/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Where in a frame a DNS message lies. packet.h reads packets by dynptr, which older kernels have not; here it is
 * bpf_skb_load_bytes, which takes them in several pieces just as well.
 *
 * Only what can be read whole: a UDP datagram that is no fragment, or a TCP segment that is exactly one message with
 * its length before it (RFC 1035 4.2.2). IPv6 extension headers are not followed: no resolver sends any.
 */
#ifndef NODEWALL_DNS_PACKET_H
#define NODEWALL_DNS_PACKET_H

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "addr.h"

#define NW_DNS_PORT 53
#define NW_DNS_HEADER 12	/* id, flags, four counts of 16 bits */
#define NW_DNS_FRAGMENT 0x3fff	/* iphdr.frag_off: more fragments, or an offset */
#define NW_DNS_FRAGMENT6 44	/* ipv6hdr.nexthdr */

enum dns_kind { DNS_NOTHING, DNS_MESSAGE, DNS_FRAGMENT, DNS_SPLIT };
enum dns_way { DNS_FROM_RESOLVER, DNS_TO_RESOLVER };

struct dns_packet {
	struct addr6 resolver;
	__be16 client_port;
	__u8 protocol;
	__u8 fragment;
	__u32 transport;	/* offset in the frame */
	__u32 message;		/* likewise */
	__u32 length;		/* of the message */
};

static __always_inline bool dns_read4(struct __sk_buff *skb, enum dns_way way, struct dns_packet *packet)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return false;
	packet->protocol = ip.protocol;
	packet->fragment = !!(ip.frag_off & bpf_htons(NW_DNS_FRAGMENT));
	packet->transport = ETH_HLEN + ip.ihl * 4;
	addr_set4(&packet->resolver, way == DNS_FROM_RESOLVER ? ip.saddr : ip.daddr);
	return true;
}

static __always_inline bool dns_read6(struct __sk_buff *skb, enum dns_way way, struct dns_packet *packet)
{
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return false;
	packet->fragment = ip.nexthdr == NW_DNS_FRAGMENT6;
	packet->protocol = packet->fragment ? NW_PROTO_UDP : ip.nexthdr;
	packet->transport = ETH_HLEN + sizeof(ip);
	if (way == DNS_FROM_RESOLVER)
		__builtin_memcpy(&packet->resolver, &ip.saddr, sizeof(packet->resolver));
	else
		__builtin_memcpy(&packet->resolver, &ip.daddr, sizeof(packet->resolver));
	return true;
}

static __always_inline bool dns_read_ports(struct __sk_buff *skb, enum dns_way way, struct dns_packet *packet)
{
	__be16 ports[2];

	if (bpf_skb_load_bytes(skb, packet->transport, ports, sizeof(ports)))
		return false;
	packet->client_port = way == DNS_FROM_RESOLVER ? ports[1] : ports[0];
	return (way == DNS_FROM_RESOLVER ? ports[0] : ports[1]) == bpf_htons(NW_DNS_PORT);
}

static __always_inline enum dns_kind dns_read_udp(struct __sk_buff *skb, struct dns_packet *packet)
{
	struct udphdr udp;
	__u32 length;

	if (bpf_skb_load_bytes(skb, packet->transport, &udp, sizeof(udp)))
		return DNS_NOTHING;
	if (skb->gso_segs > 1)
		return DNS_SPLIT;	/* several datagrams that the driver has put together */
	length = bpf_ntohs(udp.len);
	if (length < sizeof(udp) + NW_DNS_HEADER || packet->transport + length > skb->len)
		return DNS_NOTHING;
	packet->message = packet->transport + sizeof(udp);
	packet->length = length - sizeof(udp);
	return DNS_MESSAGE;
}

static __always_inline enum dns_kind dns_read_tcp(struct __sk_buff *skb, struct dns_packet *packet)
{
	struct tcphdr tcp;
	__be16 length;
	__u32 begin;

	if (bpf_skb_load_bytes(skb, packet->transport, &tcp, sizeof(tcp)))
		return DNS_NOTHING;
	begin = packet->transport + tcp.doff * 4;
	if (begin >= skb->len)
		return DNS_NOTHING;	/* no payload */
	if (bpf_skb_load_bytes(skb, begin, &length, sizeof(length)))
		return DNS_SPLIT;
	packet->message = begin + sizeof(length);
	packet->length = bpf_ntohs(length);
	if (packet->length < NW_DNS_HEADER || packet->message + packet->length != skb->len)
		return DNS_SPLIT;
	return DNS_MESSAGE;
}

/* What there is between a pod and port 53 in this frame. */
static __always_inline enum dns_kind dns_packet_read(struct __sk_buff *skb, enum dns_way way,
						     struct dns_packet *packet)
{
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (!dns_read4(skb, way, packet))
			return DNS_NOTHING;
	} else if (skb->protocol != bpf_htons(ETH_P_IPV6) || !dns_read6(skb, way, packet)) {
		return DNS_NOTHING;
	}
	if (packet->protocol != NW_PROTO_UDP && packet->protocol != NW_PROTO_TCP)
		return DNS_NOTHING;
	if (packet->fragment)
		return DNS_FRAGMENT;
	if (!dns_read_ports(skb, way, packet))
		return DNS_NOTHING;
	return packet->protocol == NW_PROTO_UDP ? dns_read_udp(skb, packet) : dns_read_tcp(skb, packet);
}

#endif
