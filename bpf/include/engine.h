/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What differs between the two compilers, so that no other header has to know which one reads it.
 *
 * BCC (socket programs) rewrites map accesses only in its main file and cannot declare maps that exist already.
 * It is given the descriptor of each pinned map as NW_FD_<map>; the pseudo call makes it a map pointer.
 * clang (packet programs) takes the declarations of maps.h, which libbpf points at the same pins.
 */
#ifndef NODEWALL_ENGINE_H
#define NODEWALL_ENGINE_H

#ifdef NW_BCC

/* The kernel's stddef.h has them; the header tree BCC is given here holds user API headers only. */
#ifndef true
#define true 1
#define false 0
#endif

#define NW_MAP(name) ((void *)bpf_pseudo_fd(1, NW_FD_##name))
#define NW_LOOKUP(name, key) bpf_map_lookup_elem_(bpf_pseudo_fd(1, NW_FD_##name), (void *)(key))
#define NW_UPDATE(name, key, value) bpf_map_update_elem_(bpf_pseudo_fd(1, NW_FD_##name), (void *)(key), (void *)(value), 0)
#define NW_INSERT(name, key, value) bpf_map_update_elem_(bpf_pseudo_fd(1, NW_FD_##name), (void *)(key), (void *)(value), BPF_NOEXIST)
#define NW_DELETE(name, key) bpf_map_delete_elem_(bpf_pseudo_fd(1, NW_FD_##name), (void *)(key))

#else

#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "maps.h"

#define NW_MAP(name) ((void *)&(name))
#define NW_LOOKUP(name, key) bpf_map_lookup_elem(&(name), key)
#define NW_INSERT(name, key, value) bpf_map_update_elem(&(name), key, value, BPF_NOEXIST)

#endif

#endif
