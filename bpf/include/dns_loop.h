/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What differs between the two variants of the learner, so that no other header has to know which one it is in.
 *
 * With bpf_loop (Linux 5.17) the verifier looks at a step once. Without it (NW_PLAIN_LOOPS, Linux 5.10) it follows
 * every turn, and would give up; there a step is a global function of numbers, which it looks at once, whoever calls
 * it (Linux 5.6). Either way what a walk knows lies in a map: what is read back is any number to the verifier.
 *
 * Two processors may learn the same address at one time. Where atomic instructions return a value (Linux 5.12) neither
 * loses what it wrote; older kernels may, and the next answer mends it.
 */
#ifndef NODEWALL_DNS_LOOP_H
#define NODEWALL_DNS_LOOP_H

#include "dns_walk.h"

/*
 * A step is `NW_DNS_STEP name(NW_DNS_TURN)`. It takes the walk from `NW_DNS_WALK`, has the number of its turn in
 * `index`, and returns 1 where there shall be no further one, else 0.
 */
#ifdef NW_PLAIN_LOOPS

#define NW_DNS_STEP __noinline int
#define NW_DNS_TURN __u32 index
#define NW_DNS_WALK dns_walk_find()

typedef int (*dns_step)(NW_DNS_TURN);

/* `most` is known at compile time, `count` when it runs. */
static __always_inline void dns_repeat(__u32 count, __u32 most, dns_step step, struct dns_walk *walk)
{
	__u32 index;

#pragma clang loop unroll(disable)
	for (index = 0; index < most; index++) {
		if (index >= count || step(index))
			return;
	}
}

static __always_inline bool dns_swap32(__u32 *word, __u32 from, __u32 to)
{
	*word = to;
	return true;
}

static __always_inline bool dns_swap64(__u64 *word, __u64 from, __u64 to)
{
	*word = to;
	return true;
}

#else

#define NW_DNS_STEP static long
#define NW_DNS_TURN __u32 index, void *cursor
#define NW_DNS_WALK (((struct dns_cursor *)cursor)->walk)

typedef long (*dns_step)(NW_DNS_TURN);

/* What a step is given: bpf_loop takes a pointer into the stack only. */
struct dns_cursor {
	struct dns_walk *walk;
};

static __always_inline void dns_repeat(__u32 count, __u32 most, dns_step step, struct dns_walk *walk)
{
	struct dns_cursor cursor = { .walk = walk };

	bpf_loop(count < most ? count : most, step, &cursor, 0);
}

static __always_inline bool dns_swap32(__u32 *word, __u32 from, __u32 to)
{
	return __sync_val_compare_and_swap(word, from, to) == from;
}

static __always_inline bool dns_swap64(__u64 *word, __u64 from, __u64 to)
{
	return __sync_val_compare_and_swap(word, from, to) == from;
}

#endif

#endif
