/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Queries under way. An answer counts once, and only if the pod asked that resolver, from that port, under that number,
 * just this question (F13). One that has the wrong question does not use the query up: the true one may still come.
 */
#ifndef NODEWALL_DNS_PENDING_H
#define NODEWALL_DNS_PENDING_H

#include "dns_maps.h"
#include "dns_packet.h"
#include "dns_walk.h"

static __always_inline void dns_pending_key(const struct dns_walk *walk, const struct dns_packet *packet,
					    struct pending_key *key)
{
	key->endpoint = walk->told.endpoint;
	key->resolver = packet->resolver;
	key->client_port = packet->client_port;
	__builtin_memcpy(&key->id, walk->message, sizeof(key->id));
	key->protocol = packet->protocol;
}

static __always_inline void dns_pending_put(const struct dns_walk *walk, const struct dns_packet *packet)
{
	struct pending_value value = { .question = walk->question, .asked_ns = bpf_ktime_get_boot_ns() };
	struct pending_key key = {};

	dns_pending_key(walk, packet, &key);
	bpf_map_update_elem(&fqdn_pending, &key, &value, BPF_ANY);
}

/* Whether `packet` answers a query of the pod; true once for each. */
static __always_inline bool dns_pending_take(const struct dns_walk *walk, const struct dns_packet *packet)
{
	struct pending_value *value;
	struct pending_key key = {};
	__s64 waited_ns;

	dns_pending_key(walk, packet, &key);
	value = NW_LOOKUP(fqdn_pending, &key);
	if (!value || value->question != walk->question)
		return false;
	waited_ns = walk->told.time_ns - value->asked_ns;	/* less than nothing if processors' clocks differ */
	if (waited_ns > NW_DNS_PATIENCE_NS)
		return false;
	return !bpf_map_delete_elem(&fqdn_pending, &key);
}

#endif
