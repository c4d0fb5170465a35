// SPDX-License-Identifier: GPL-2.0
/* Would use a function that nobody has. */
#include "common.h"

int __weak pf_nobody_has_this_either(void);
int (*pf_kept_weak)(void) __used = pf_nobody_has_this_either;
MODULE_LICENSE("GPL");
