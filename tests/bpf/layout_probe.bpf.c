// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Names every struct and enum of types.h, and what is shared of dns_types.h, so that all of them are in this object's BTF. Never shipped. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "dns_types.h"
#include "types.h"

struct slot_value slot_value;
struct endpoint_value endpoint_value;
struct policy_key policy_key;
struct policy_value policy_value;
struct cidr4_key cidr4_key;
struct cidr6_key cidr6_key;
struct frontend4_key frontend4_key;
struct frontend6_key frontend6_key;
struct class_key class_key;
struct class_value class_value;
struct config_value config_value;
struct rate_key rate_key;
struct rate_value rate_value;
struct event event;
struct learned_key learned_key;
struct learned_value learned_value;
enum nw_direction direction;
enum nw_action action;
enum nw_class class_;
enum nw_layer layer;
enum nw_verdict verdict;
enum nw_reason reason;
enum nw_endpoint_flag endpoint_flag;
enum nw_config_flag config_flag;
enum nw_counter counter;

enum constant {
	IDENTITY_ANY = NW_IDENTITY_ANY,
	IDENTITY_HOST = NW_IDENTITY_HOST,
	IDENTITY_WORLD = NW_IDENTITY_WORLD,
	IDENTITY_UNMANAGED = NW_IDENTITY_UNMANAGED,
	NOT_ISOLATED = NW_NOT_ISOLATED,
	RANK_NONE = NW_RANK_NONE,
	ASKS_ANYTHING = NW_ASKS_ANYTHING,
	SLOT_EMPTY = NW_SLOT_EMPTY,
	ENDPOINT_PROBE = NW_ENDPOINT_PROBE,
	POLICY_BITS = NW_POLICY_BITS,
	POLICY_ANY_PROTOCOL = NW_POLICY_ANY_PROTOCOL,
} constant;
