// SPDX-License-Identifier: GPL-2.0
/* Uses a symbol that pf_for exports for kmods of some names only. */
#include "common.h"

int pf_for_some(void);
int (*pf_kept_some)(void) __used = pf_for_some;
MODULE_LICENSE("GPL");
