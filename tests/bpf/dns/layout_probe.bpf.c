// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Names every struct and enum of dns_types.h, so that all of them are in this object's BTF. Never shipped. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "dns_types.h"

struct name_key name_key;
struct name_value name_value;
struct dfa_state dfa_state;
struct pending_key pending_key;
struct pending_value pending_value;
struct learned_key learned_key;
struct learned_value learned_value;
struct place_key place_key;
struct fqdn_config fqdn_config;
struct dns_answer dns_answer;
struct replay_row replay_row;
enum nw_dns_outcome outcome;
enum nw_dns_counter counter;

enum constant {
	NAME_MAX = NW_DNS_NAME_MAX,
	MESSAGE_MAX = NW_DNS_MESSAGE_MAX,
	RECORDS_MAX = NW_DNS_RECORDS_MAX,
	ADDRESSES_MAX = NW_DNS_ADDRESSES_MAX,
	CLASSES = NW_DNS_CLASSES,
	SYMBOLS = NW_DNS_SYMBOLS,
	CLASS_NONE = NW_DNS_CLASS_NONE,
	DOT = NW_DNS_DOT,
} constant;
