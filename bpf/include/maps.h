/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The maps as libbpf finds them in the object. User space creates and pins them first (agent/datapath/bpf/maps.py)
 * and sets their capacity; the object only names them and says the shape, which libbpf compares with the pin.
 */
#ifndef NODEWALL_MAPS_H
#define NODEWALL_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "dns_types.h"
#include "types.h"

/* max_entries 1 stands for "as pinned": the loader replaces it. */
#define NW_DECLARE(name, kind, key_type, value_type, flags) \
	struct {                                            \
		__uint(type, kind);                         \
		__uint(max_entries, 1);                     \
		__uint(map_flags, flags);                   \
		__type(key, key_type);                      \
		__type(value, value_type);                  \
	} name SEC(".maps")

NW_DECLARE(config, BPF_MAP_TYPE_ARRAY, __u32, struct config_value, BPF_F_MMAPABLE);
NW_DECLARE(counters, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, __u64, 0);
NW_DECLARE(endpoints, BPF_MAP_TYPE_HASH, __u32, struct endpoint_value, BPF_F_NO_PREALLOC);
NW_DECLARE(ep_by_netns, BPF_MAP_TYPE_HASH, __u64, struct slot_value, BPF_F_NO_PREALLOC);
NW_DECLARE(ep_by_ifindex, BPF_MAP_TYPE_HASH, __u32, struct slot_value, BPF_F_NO_PREALLOC);
NW_DECLARE(ep_by_ip4, BPF_MAP_TYPE_HASH, __be32, struct slot_value, BPF_F_NO_PREALLOC);
NW_DECLARE(ep_by_ip6, BPF_MAP_TYPE_HASH, struct addr6, struct slot_value, BPF_F_NO_PREALLOC);
NW_DECLARE(ipcache_host4, BPF_MAP_TYPE_HASH, __be32, struct slot_value, BPF_F_NO_PREALLOC);
NW_DECLARE(ipcache_host6, BPF_MAP_TYPE_HASH, struct addr6, struct slot_value, BPF_F_NO_PREALLOC);
NW_DECLARE(ipcache_cidr4, BPF_MAP_TYPE_LPM_TRIE, struct cidr4_key, struct slot_value, BPF_F_NO_PREALLOC);
NW_DECLARE(ipcache_cidr6, BPF_MAP_TYPE_LPM_TRIE, struct cidr6_key, struct slot_value, BPF_F_NO_PREALLOC);
NW_DECLARE(held4, BPF_MAP_TYPE_LPM_TRIE, struct cidr4_key, struct slot_value, BPF_F_NO_PREALLOC);
NW_DECLARE(held6, BPF_MAP_TYPE_LPM_TRIE, struct cidr6_key, struct slot_value, BPF_F_NO_PREALLOC);
NW_DECLARE(policy, BPF_MAP_TYPE_LPM_TRIE, struct policy_key, struct policy_value, BPF_F_NO_PREALLOC);
NW_DECLARE(frontend4, BPF_MAP_TYPE_HASH, struct frontend4_key, struct slot_value, BPF_F_NO_PREALLOC);
NW_DECLARE(frontend6, BPF_MAP_TYPE_HASH, struct frontend6_key, struct slot_value, BPF_F_NO_PREALLOC);
NW_DECLARE(service_class, BPF_MAP_TYPE_HASH, struct class_key, struct class_value, BPF_F_NO_PREALLOC);
NW_DECLARE(fqdn_learned, BPF_MAP_TYPE_HASH, struct learned_key, struct learned_value, BPF_F_NO_PREALLOC);
NW_DECLARE(verdict_rates, BPF_MAP_TYPE_LRU_HASH, struct rate_key, struct rate_value, 0);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

#endif
