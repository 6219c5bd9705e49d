// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The DNS learner for kernels without bpf_loop (before Linux 5.17): dns_loop.h has what differs. */
#define NW_PLAIN_LOOPS
#include "dns_learn.bpf.c"
