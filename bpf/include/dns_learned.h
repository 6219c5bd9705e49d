/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What an endpoint has learned: address -> name classes, each until its time. Nothing here is ever shortened (F19).
 *
 * One LRU map for all would let a pod push out another's addresses; one a pod takes all of its memory from the
 * beginning, and neither says what it forgets. Here each endpoint has a ring of places. A new address takes the next
 * place that is free or whose address has expired and was never used; where none of NW_DNS_LOOK is, that of the one
 * which has expired and was not used for longest, for connections may still need it (F17); else that of the one which
 * expires soonest (F21).
 */
#ifndef NODEWALL_DNS_LEARNED_H
#define NODEWALL_DNS_LEARNED_H

#include "dns_loop.h"
#include "dns_maps.h"
#include "dns_walk.h"

#define NW_DNS_LOOK 8
#define NW_DNS_NO_PLACE -1

static __always_inline __u64 learned_expires(const struct learned_value *value)
{
	__u64 latest = 0;
	__u32 index;

	for (index = 0; index < NW_DNS_CLASSES; index++) {
		if (value->of[index].class_ && value->of[index].expires_ns > latest)
			latest = value->of[index].expires_ns;
	}
	return latest;
}

/*
 * What the address in a place is worth: when it expires, which is to come, or when it was last used, which is past;
 * 0: nobody needs it, or the place is free.
 */
static __always_inline __u64 place_worth(const struct place_key *key, __u64 now_ns)
{
	struct learned_key of = { .endpoint = key->endpoint };
	struct learned_value *value;
	struct addr6 *address = NW_LOOKUP(fqdn_places, key);
	__u64 expires;

	if (!address)
		return 0;
	of.address = *address;
	value = NW_LOOKUP(fqdn_learned, &of);
	if (!value || value->place != key->place)
		return 0;	/* its row was deleted, and perhaps learned anew elsewhere */
	expires = learned_expires(value);
	return expires > now_ns ? expires : value->used_ns;
}

/* Forget what is in a place; of two who try, one succeeds. */
static __always_inline bool place_clear(const struct place_key *key, __u64 now_ns)
{
	struct learned_key of = { .endpoint = key->endpoint };
	struct addr6 *address = NW_LOOKUP(fqdn_places, key);
	struct learned_value *value;

	if (!address)
		return true;
	of.address = *address;
	if (bpf_map_delete_elem(&fqdn_places, key))
		return false;
	value = NW_LOOKUP(fqdn_learned, &of);
	if (!value || value->place != key->place)
		return true;
	if (learned_expires(value) > now_ns)
		dns_count(NW_DNS_COUNT_EVICTED);
	bpf_map_delete_elem(&fqdn_learned, &of);
	return true;
}

/* The place from the hand on to be taken: the first that nobody needs, else the one that is worth least. */
static __always_inline __u32 place_choose(__u32 endpoint, __u32 hand, __u64 now_ns)
{
	struct place_key key = { .endpoint = endpoint };
	__u64 worth, least = ~0ULL;
	__u32 index, best = hand;

#pragma clang loop unroll(disable)
	for (index = 0; index < NW_DNS_LOOK; index++) {
		key.place = (hand + index) & (NW_DNS_ADDRESSES_MAX - 1);
		worth = place_worth(&key, now_ns);
		if (!worth)
			return key.place;
		if (worth < least) {
			least = worth;
			best = key.place;
		}
	}
	return best & (NW_DNS_ADDRESSES_MAX - 1);
}

/* Give the address in `walk->target` a place; NW_DNS_NO_PLACE: somebody else took it, or the map is full. */
__noinline int nw_dns_place(void)
{
	struct dns_walk *walk = dns_walk_find();
	struct place_key key = {};
	__u32 *hand, first = 0, next;

	if (!walk)
		return NW_DNS_NO_PLACE;
	key.endpoint = walk->target.endpoint;
	hand = NW_LOOKUP(fqdn_hands, &key.endpoint);
	key.place = place_choose(key.endpoint, hand ? *hand : first, walk->told.time_ns);
	next = (key.place + 1) & (NW_DNS_ADDRESSES_MAX - 1);
	bpf_map_update_elem(&fqdn_hands, &key.endpoint, &next, BPF_ANY);
	if (!place_clear(&key, walk->told.time_ns) ||
	    bpf_map_update_elem(&fqdn_places, &key, &walk->target.address, BPF_NOEXIST))
		return NW_DNS_NO_PLACE;
	return key.place;
}

static __always_inline void learned_raise(struct learned_class *of, __u64 expires_ns)
{
	__u64 before = of->expires_ns;

	if (before < expires_ns && !dns_swap64(&of->expires_ns, before, expires_ns)) {
		before = of->expires_ns;
		if (before < expires_ns)
			of->expires_ns = expires_ns;
	}
}

/* Whether a class is one that policies have now, or are about to have. */
static __always_inline bool class_counts(__u32 class_)
{
	return NW_LOOKUP(fqdn_counting, &class_) != 0;
}

/*
 * The class to write over: a free one, else one that does not count any more, else any; of several the one that expires
 * soonest. All that come of one answer expire at once, so that time alone would have them push out each other.
 */
static __always_inline struct learned_class *learned_choose(struct learned_value *value)
{
	struct learned_class *of, *best = &value->of[0];
	bool counts, best_counts = true;
	__u32 index;

	for (index = 0; index < NW_DNS_CLASSES; index++) {
		of = &value->of[index];
		if (!of->class_)
			return of;
		counts = class_counts(of->class_);
		if (counts == best_counts ? of->expires_ns < best->expires_ns : best_counts) {
			best = of;
			best_counts = counts;
		}
	}
	return best;
}

/* Put a class into a row that is there. False: another processor was quicker. */
static __always_inline bool learned_merge(struct learned_value *value, __u32 class_, __u64 expires_ns, __u64 now_ns)
{
	struct learned_class *of;
	__u32 index, before;

	for (index = 0; index < NW_DNS_CLASSES; index++) {
		if (value->of[index].class_ == class_) {
			learned_raise(&value->of[index], expires_ns);
			return true;
		}
	}
	of = learned_choose(value);
	before = of->class_;
	if (before && of->expires_ns > now_ns && class_counts(before))
		dns_count(NW_DNS_COUNT_CLASS_EVICTED);
	if (!dns_swap32(&of->class_, before, class_))
		return false;
	of->expires_ns = expires_ns;
	of->datagrams_until_s = 0;
	return true;
}

static __always_inline bool learned_insert(struct dns_walk *walk, __u32 class_)
{
	struct learned_value *value = &walk->row;
	int place = nw_dns_place();

	if (place == NW_DNS_NO_PLACE)
		return false;
	__builtin_memset(value, 0, sizeof(*value));
	value->of[0].class_ = class_;
	value->of[0].expires_ns = walk->expires_ns;
	value->place = place;
	return !bpf_map_update_elem(&fqdn_learned, &walk->target, value, BPF_NOEXIST);
}

/* Learn `walk->target` for one class. Returns whether it could not be; then nothing is lost but this. */
__noinline int nw_dns_add(__u32 class_)
{
	struct dns_walk *walk = dns_walk_find();
	struct learned_value *value;
	__u32 turn;

	if (!walk)
		return 1;
#pragma clang loop unroll(disable)
	for (turn = 0; turn < 3; turn++) {	/* again where another processor was quicker */
		value = NW_LOOKUP(fqdn_learned, &walk->target);
		if (value ? learned_merge(value, class_, walk->expires_ns, walk->told.time_ns)
			  : learned_insert(walk, class_)) {
			dns_count(NW_DNS_COUNT_ADDRESSES);
			return 0;
		}
	}
	dns_count(NW_DNS_COUNT_FULL);
	return 1;
}

#endif
