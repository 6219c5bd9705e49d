/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Where in a frame a DNS message lies. packet.h reads packets by dynptr, which older kernels have not; here it is
 * bpf_skb_load_bytes, which takes them in several pieces just as well.
 *
 * A UDP datagram that is no fragment is one; of a TCP segment dns_stream.h knows what it continues. IPv6 extension
 * headers are not followed: no resolver sends any.
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

#define NW_TCP_FLAGS 13		/* offset in the header */
#define NW_TCP_FIN 0x01
#define NW_TCP_SYN 0x02
#define NW_TCP_RST 0x04
#define NW_TCP_ACK 0x10

enum dns_kind { DNS_NOTHING, DNS_MESSAGE, DNS_SEGMENT, DNS_FRAGMENT, DNS_SPLIT };
enum dns_way { DNS_FROM_RESOLVER, DNS_TO_RESOLVER };

struct dns_packet {
	struct addr6 resolver;
	__be16 client_port;
	__u8 protocol;
	__u8 fragment;
	__u8 flags;		/* TCP: FIN, SYN, RST, ACK */
	__u32 transport;	/* offset in the frame */
	__u32 end;		/* of the packet, likewise; frames may have padding behind it */
	__u32 message;		/* likewise; of a segment: all that it carries */
	__u32 length;		/* of that */
	__u32 sequence;		/* TCP: of its first byte */
};

static __always_inline bool dns_read4(struct __sk_buff *skb, enum dns_way way, struct dns_packet *packet)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return false;
	packet->protocol = ip.protocol;
	packet->fragment = !!(ip.frag_off & bpf_htons(NW_DNS_FRAGMENT));
	packet->transport = ETH_HLEN + ip.ihl * 4;
	packet->end = ip.tot_len ? ETH_HLEN + bpf_ntohs(ip.tot_len) : skb->len;	/* 0: more than fits there */
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
	packet->end = ip.payload_len ? packet->transport + bpf_ntohs(ip.payload_len) : skb->len;
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

/* A segment that carries something, or begins or ends a stream. */
static __always_inline enum dns_kind dns_read_tcp(struct __sk_buff *skb, struct dns_packet *packet)
{
	struct tcphdr tcp;

	if (bpf_skb_load_bytes(skb, packet->transport, &tcp, sizeof(tcp)))
		return DNS_NOTHING;
	packet->flags = ((const __u8 *)&tcp)[NW_TCP_FLAGS] & (NW_TCP_FIN | NW_TCP_SYN | NW_TCP_RST | NW_TCP_ACK);
	packet->message = packet->transport + tcp.doff * 4;
	if (packet->message > packet->end || packet->end > skb->len)
		return DNS_NOTHING;
	packet->length = packet->end - packet->message;
	packet->sequence = bpf_ntohl(tcp.seq) + !!(packet->flags & NW_TCP_SYN);
	return packet->length || packet->flags & ~NW_TCP_ACK ? DNS_SEGMENT : DNS_NOTHING;
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
