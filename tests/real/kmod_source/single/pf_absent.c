// SPDX-License-Identifier: GPL-2.0
/* Needs functions that nobody has. */
#include "common.h"

int pf_nobody_has_this(void);
int pf_nor_this(void);
int (*pf_kept_absent[])(void) __used = { pf_nobody_has_this, pf_nor_this };
MODULE_LICENSE("GPL");
