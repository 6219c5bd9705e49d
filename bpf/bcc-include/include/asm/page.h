/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Left empty: BCC includes it for the kernel's programs; ours need nothing from it. */
