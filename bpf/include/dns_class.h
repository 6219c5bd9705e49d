/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The classes of a name, in both slots: one that the trie knows it by (exact names, and stars that stand for whole
 * labels), and one that an automaton accepts it with (stars inside a label). At rest the slots agree.
 */
#ifndef NODEWALL_DNS_CLASS_H
#define NODEWALL_DNS_CLASS_H

#include "dns_maps.h"
#include "dns_name.h"

static __always_inline void dns_class_add(struct dns_walk *walk, __u32 class_)
{
	__u32 index;

	if (class_ == NW_DNS_CLASS_NONE)
		return;
	for (index = 0; index < NW_DNS_CLASSES; index++) {
		if (index >= walk->classes) {
			walk->class_[index] = class_;
			walk->classes = index + 1;
			return;
		}
		if (walk->class_[index] == class_)
			return;
	}
}

/* How far below the row's name the name in `walk` is decides which of the row's classes is meant. */
static __always_inline __u32 dns_class_of_row(const struct name_classes *row, __u32 more_labels)
{
	if (!more_labels)
		return row->exact;
	return more_labels == 1 ? row->one : row->more;
}

static __always_inline void dns_class_by_trie(struct dns_walk *walk)
{
	struct name_value *row = NW_LOOKUP(fqdn_names, dns_name_key(walk));
	__u32 more_labels;

	if (!row)
		return;
	more_labels = walk->labels - row->labels;
	dns_class_add(walk, dns_class_of_row(&row->slot[0], more_labels));
	dns_class_add(walk, dns_class_of_row(&row->slot[1], more_labels));
}

static __always_inline __u32 dns_symbol(__u8 byte)
{
	if (byte >= 'a' && byte <= 'z')
		return byte - 'a';
	if (byte >= '0' && byte <= '9')
		return 26 + byte - '0';
	if (byte == '-')
		return 36;
	return byte == '_' ? 37 : 38;
}

/* From the name's end, as in a key, the mark behind the last label included. */
NW_DNS_STEP nw_dns_dfa_step(NW_DNS_TURN)
{
	struct dns_walk *walk = NW_DNS_WALK;
	struct dfa_state *state;
	__u32 at, symbol;

	if (!walk)
		return 1;
	at = walk->dfa_at;
	symbol = dns_symbol(*dns_name_byte(walk, walk->name_length - 1 - index));
	state = NW_LOOKUP(fqdn_dfa, &at);
	if (!state)
		return 1;
	walk->dfa_at = state->next[dns_bounded(symbol, NW_DNS_SYMBOLS - 1)];
	return !walk->dfa_at;
}

static __always_inline void dns_class_by_dfa(struct dns_walk *walk, __u32 start)
{
	struct dfa_state *state;
	__u32 at;

	if (!start)
		return;
	walk->dfa_at = start;
	dns_repeat(walk->name_length, NW_DNS_NAME_MAX - 1, nw_dns_dfa_step, walk);
	at = walk->dfa_at;
	state = NW_LOOKUP(fqdn_dfa, &at);
	if (at && state)
		dns_class_add(walk, state->class_);
}

/* The classes of one slot alone. */
static __always_inline void dns_classify_in(struct dns_walk *walk, const struct fqdn_config *config, __u32 slot)
{
	struct name_value *row = NW_LOOKUP(fqdn_names, dns_name_key(walk));

	walk->classes = 0;
	if (row)
		dns_class_add(walk, dns_class_of_row(&row->slot[slot & 1], walk->labels - row->labels));
	dns_class_by_dfa(walk, config->dfa_start[slot & 1]);
}

static __always_inline void dns_classify(struct dns_walk *walk, const struct fqdn_config *config)
{
	__u32 first = config->dfa_start[0], second = config->dfa_start[1];

	walk->classes = 0;
	dns_class_by_trie(walk);
	dns_class_by_dfa(walk, first);
	if (second != first)
		dns_class_by_dfa(walk, second);
}

#endif
