/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The few fields of kernel structures that the netfilter programs read. Offsets are relocated at load against the
 * running kernel's BTF (preserve_access_index), so a field needs only its name and type here; a kernel that lacks
 * one refuses the program and names it.
 */
#ifndef NODEWALL_KERNEL_H
#define NODEWALL_KERNEL_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct net_device {
	int ifindex;
};

struct nf_hook_state {
	struct net_device *in;
};

struct sk_buff {
	unsigned long _nfct;	/* struct nf_conn *, and enum ip_conntrack_info in the lowest three bits */
};

/* Context of BPF_PROG_TYPE_NETFILTER (Linux 6.4). */
struct bpf_nf_ctx {
	const struct nf_hook_state *state;
	struct sk_buff *skb;
};

#pragma clang attribute pop

/* Reads packets whether or not they lie in one piece; a sender chooses that (AF_PACKET rings do not). */
extern int bpf_dynptr_from_skb(struct sk_buff *skb, __u64 flags, struct bpf_dynptr *ptr) __ksym;

#define NF_DROP 0
#define NF_ACCEPT 1
#define NW_LOOPBACK_IFINDEX 1	/* LOOPBACK_IFINDEX, include/net/flow.h: the same in every network namespace */

/* enum ip_conntrack_info, include/uapi/linux/netfilter/nf_conntrack_common.h. */
enum nw_ctinfo {
	NW_CT_ESTABLISHED = 0,
	NW_CT_RELATED = 1,
	NW_CT_NEW = 2,
	NW_CT_ESTABLISHED_REPLY = 3,
	NW_CT_RELATED_REPLY = 4,
	NW_CT_UNTRACKED = 7,	/* also what a packet without any conntrack entry is to us */
};

static __always_inline __u32 ctinfo_of(const struct sk_buff *skb)
{
	unsigned long nfct = skb->_nfct;

	return nfct ? nfct & 7 : NW_CT_UNTRACKED;
}

/*
 * Not 0: both sides have spoken; what conntrack merely expects (RELATED, but errors) is as new as any. Without a branch,
 * or the verifier follows the rest of a program once for each answer.
 */
static __always_inline __u8 ctinfo_is_established(__u32 ctinfo)
{
	return 1 << (ctinfo & 7) & (1 << NW_CT_ESTABLISHED | 1 << NW_CT_ESTABLISHED_REPLY);
}

#endif
