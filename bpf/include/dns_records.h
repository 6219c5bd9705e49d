/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The records of an answer's first section. The question's name alone decides what they are worth (F5): whose names
 * the records have is not looked at, and what the chain of aliases leads to is learned for the name that was asked.
 * Only A and AAAA are (F6). They are read twice, because an alias behind an address counts, too: first the TTLs of
 * all aliases, then the addresses (F19).
 */
#ifndef NODEWALL_DNS_RECORDS_H
#define NODEWALL_DNS_RECORDS_H

#include "addr.h"
#include "dns_learned.h"
#include "dns_name.h"

enum dns_type { DNS_A = 1, DNS_CNAME = 5, DNS_AAAA = 28, DNS_DNAME = 39 };

#define NW_DNS_RECORD 10	/* type, class, TTL and length of the data, behind the owner's name */
#define NW_DNS_RECORD_MIN (1 + NW_DNS_RECORD)
#define NW_DNS_POINTER 0xc0
#define NW_DNS_LABELS_MAX 128	/* 255 bytes have not more */
#define NW_DNS_TTL_MAX 0x7fffffff	/* above this: none at all (RFC 2181 8, F20) */
#define NW_SECOND_NS 1000000000ULL

/* One label of an owner's name; `fault` until its end is found. */
NW_DNS_STEP nw_dns_owner_step(NW_DNS_TURN)
{
	struct dns_walk *walk = NW_DNS_WALK;
	__u32 at;
	__u8 byte;

	if (!walk)
		return 1;
	at = walk->at;
	if (at >= walk->length)
		return 1;
	byte = *dns_bytes(walk, at);
	if (byte && byte <= NW_DNS_LABEL_MAX) {
		walk->at = at + 1 + byte;
		return 0;
	}
	if (byte && byte < NW_DNS_POINTER)
		return 1;
	walk->at = at + (byte ? 2 : 1);
	walk->fault = 0;
	return 1;
}

static __always_inline bool dns_owner_skip(struct dns_walk *walk)
{
	__u32 at = walk->at;

	if (at < walk->length && *dns_bytes(walk, at) >= NW_DNS_POINTER) {	/* nearly always */
		walk->at = at + 2;
		return true;
	}
	walk->fault = 1;
	dns_repeat(NW_DNS_LABELS_MAX, NW_DNS_LABELS_MAX, nw_dns_owner_step, walk);
	return !walk->fault;
}

static __always_inline __u32 dns_ttl(const __u8 *record)
{
	__u32 ttl_s = dns_be32(record + 4);

	return ttl_s > NW_DNS_TTL_MAX ? 0 : ttl_s;
}

/* Note one record whose data lie in the message. False: it is not what it says it is. */
static __always_inline bool dns_record_note(struct dns_walk *walk, const __u8 *record, __u32 at)
{
	__u32 type = dns_be16(record), length = dns_be16(record + 8), ttl_s = dns_ttl(record);

	if (dns_be16(record + 2) != NW_DNS_CLASS_IN)
		return true;
	if (type == DNS_CNAME || type == DNS_DNAME) {
		if (ttl_s < walk->chain_ttl_s)
			walk->chain_ttl_s = ttl_s;
		return true;
	}
	if (type != DNS_A && type != DNS_AAAA)
		return true;
	if (length != (type == DNS_A ? 4 : 16))
		return false;
	walk->address_at[dns_bounded(walk->addresses, NW_DNS_RECORDS_MAX - 1)] = at;
	walk->addresses++;
	return true;
}

/* Read one record; not zero: there are no more, or it cannot be read, which `fault` says. */
NW_DNS_STEP nw_dns_scan_step(NW_DNS_TURN)
{
	struct dns_walk *walk = NW_DNS_WALK;
	const __u8 *record;
	__u32 at, end;

	if (!walk || !dns_owner_skip(walk))
		return 1;
	walk->fault = 1;
	at = walk->at;
	if (at + NW_DNS_RECORD > walk->length)
		return 1;
	record = dns_bytes(walk, at);
	end = at + NW_DNS_RECORD + dns_be16(record + 8);
	if (end > walk->length || !dns_record_note(walk, record, at))
		return 1;
	walk->at = end;
	walk->fault = 0;
	return 0;
}

static __always_inline void dns_target_set(struct dns_walk *walk, const __u8 *record)
{
	__be32 address4;

	if (dns_be16(record) == DNS_AAAA) {
		__builtin_memcpy(&walk->target.address, record + NW_DNS_RECORD, sizeof(walk->target.address));
		return;
	}
	__builtin_memcpy(&address4, record + NW_DNS_RECORD, sizeof(address4));
	addr_set4(&walk->target.address, address4);
}

/* Learn the address that was noted at `index`, for every class of the name. */
NW_DNS_STEP nw_dns_learn_step(NW_DNS_TURN)
{
	struct dns_walk *walk = NW_DNS_WALK;
	__u32 zero = 0, turn, ttl_s;
	struct fqdn_config *config = NW_LOOKUP(fqdn_config, &zero);
	const __u8 *record;

	if (!walk || !config)
		return 1;
	record = dns_bytes(walk, walk->address_at[dns_bounded(index, NW_DNS_RECORDS_MAX - 1)]);
	ttl_s = dns_ttl(record);
	if (ttl_s > walk->chain_ttl_s)
		ttl_s = walk->chain_ttl_s;
	if (ttl_s < config->min_ttl_s)
		ttl_s = config->min_ttl_s;
	walk->expires_ns = walk->told.time_ns + ((__u64)ttl_s + config->grace_s) * NW_SECOND_NS;
	walk->target.endpoint = walk->told.endpoint;
	dns_target_set(walk, record);
#pragma clang loop unroll(disable)
	for (turn = 0; turn < NW_DNS_CLASSES; turn++) {
		if (turn < walk->classes)
			nw_dns_add(walk->class_[turn]);
	}
	return 0;
}

/* Read `count` records from `walk->at` on and learn the addresses among them. */
static __always_inline void dns_records_learn(struct dns_walk *walk, __u32 count)
{
	walk->chain_ttl_s = NW_DNS_TTL_MAX;
	walk->addresses = 0;
	walk->fault = 0;
	dns_repeat(count, NW_DNS_RECORDS_MAX, nw_dns_scan_step, walk);
	dns_repeat(walk->addresses, NW_DNS_RECORDS_MAX, nw_dns_learn_step, walk);
}

#endif
