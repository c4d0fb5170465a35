// SPDX-License-Identifier: GPL-2.0
/* Uses what pf_gives exports to GPL kmods. */
#include "common.h"

int pf_given_gpl(void);
int (*pf_kept_gpl)(void) __used = pf_given_gpl;
MODULE_LICENSE("GPL");
