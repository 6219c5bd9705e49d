/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The DNS learner's maps as libbpf finds them in the object; created and pinned by agent/datapath/bpf/fqdn_maps.py.
 * What is in maps.h is there too: the learner shares `config`, `ep_by_ifindex` and what it learns with the programs
 * that enforce.
 */
#ifndef NODEWALL_DNS_MAPS_H
#define NODEWALL_DNS_MAPS_H

#include "engine.h"

NW_DECLARE(fqdn_resolvers, BPF_MAP_TYPE_HASH, struct addr6, __u32, BPF_F_NO_PREALLOC);
NW_DECLARE(fqdn_names, BPF_MAP_TYPE_LPM_TRIE, struct name_key, struct name_value, BPF_F_NO_PREALLOC);
NW_DECLARE(fqdn_dfa, BPF_MAP_TYPE_ARRAY, __u32, struct dfa_state, 0);
NW_DECLARE(fqdn_pending, BPF_MAP_TYPE_LRU_HASH, struct pending_key, struct pending_value, 0);
NW_DECLARE(fqdn_places, BPF_MAP_TYPE_HASH, struct place_key, struct addr6, BPF_F_NO_PREALLOC);
NW_DECLARE(fqdn_hands, BPF_MAP_TYPE_HASH, __u32, __u32, BPF_F_NO_PREALLOC);
NW_DECLARE(fqdn_counting, BPF_MAP_TYPE_HASH, __u32, __u32, BPF_F_NO_PREALLOC);
NW_DECLARE(fqdn_config, BPF_MAP_TYPE_ARRAY, __u32, struct fqdn_config, BPF_F_MMAPABLE);
NW_DECLARE(fqdn_counters, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, __u64, 0);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} fqdn_answers SEC(".maps");

static __always_inline void dns_count(__u32 counter)
{
	__u64 *value = NW_LOOKUP(fqdn_counters, &counter);

	if (value)
		__sync_fetch_and_add(value, 1);
}

#endif
