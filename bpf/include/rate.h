/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * How many events of one kind are told: a pod in a loop of connect() shall neither fill the ring nor hide what others
 * do. A token bucket in the shape of one time stamp: an event moves `due_ns` on by the interval, and may do so until
 * it lies NW_RATE_SAVED_NS ahead. What is kept back is counted, and the next event of the kind carries the number.
 *
 * Nothing locks: `kept_back` is only added to, and two events of one kind that get through at the same instant may
 * both tell of the same ones. A kind that falls out of the map takes its untold number with it; user space finds it as
 * the difference between what was kept back, what was told and what the map still has.
 */
#ifndef NODEWALL_RATE_H
#define NODEWALL_RATE_H

#include "decide.h"

/* False: keep it back. `bucket` is null for the first of its kind, which has nothing to tell. */
static __always_inline bool rate_admits(const struct rate_key *key, __u64 time_ns, __u32 interval_ns,
					struct rate_value **bucket)
{
	struct rate_value first = { .due_ns = time_ns + interval_ns };
	struct rate_value *found = NW_LOOKUP(verdict_rates, key);
	__u64 due_ns;

	*bucket = found;
	if (!found) {
		NW_INSERT(verdict_rates, key, &first);
		return true;
	}
	due_ns = found->due_ns;
	if (due_ns + interval_ns > time_ns + NW_RATE_SAVED_NS) {
		__sync_fetch_and_add(&found->kept_back, 1);
		return false;
	}
	found->due_ns = (due_ns > time_ns ? due_ns : time_ns) + interval_ns;
	return true;
}

/* How many were kept back since the last that got through. */
static __always_inline __u32 rate_take(struct rate_value *bucket)
{
	__u32 kept_back = bucket->kept_back;
	__u32 repeats = kept_back - bucket->told;

	bucket->told = kept_back;
	return repeats;
}

#endif
