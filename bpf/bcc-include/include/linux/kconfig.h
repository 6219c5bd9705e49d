/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What BCC includes before every program. The kernel's own file would switch on internals; programs that read only the
 * user API need the short type names and no more.
 */
#ifndef NODEWALL_BCC_KCONFIG_H
#define NODEWALL_BCC_KCONFIG_H

#define CONFIG_BPF_SYSCALL 1

#ifndef __ASSEMBLY__

typedef __INT8_TYPE__ s8;
typedef __UINT8_TYPE__ u8;
typedef __INT16_TYPE__ s16;
typedef __UINT16_TYPE__ u16;
typedef __INT32_TYPE__ s32;
typedef __UINT32_TYPE__ u32;
typedef long long s64;		/* as in the kernel, where 64 bits are long long everywhere */
typedef unsigned long long u64;
typedef _Bool bool;
typedef __SIZE_TYPE__ size_t;
typedef __UINTPTR_TYPE__ uintptr_t;
typedef __INTPTR_TYPE__ intptr_t;

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif
#define offsetof(type, member) __builtin_offsetof(type, member)
#define NULL ((void *)0)

#endif
#endif
