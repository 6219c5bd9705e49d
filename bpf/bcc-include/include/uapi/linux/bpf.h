/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Left empty: BCC brings its own copy, and a second one would define every enum again. */
