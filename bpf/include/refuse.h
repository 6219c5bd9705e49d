/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * How a socket hook says no. The calling process sees EPERM, unless the hook chooses another error, which
 * bpf_set_retval() lets it do from Linux 5.18 on; the loader tries that and defines NW_SETS_ERRNO. EACCES is what
 * connect(2) documents for a call that a local rule forbids.
 */
#ifndef NODEWALL_REFUSE_H
#define NODEWALL_REFUSE_H

#define NW_PROCEED 1
#define NW_REJECT 0
#define NW_EACCES 13

#ifdef NW_SETS_ERRNO

static __always_inline int refuse(void)
{
	bpf_set_retval(-NW_EACCES);
	return NW_REJECT;
}

#else

static __always_inline int refuse(void)
{
	return NW_REJECT;
}

#endif

#endif
