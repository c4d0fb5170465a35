// SPDX-License-Identifier: GPL-2.0
/* Uses what pf_gives exports to all. */
#include "common.h"

int pf_given(void);
int pf_taken;
module_param(pf_taken, int, 0444);

static int pf_use(void)
{
	return pf_given();
}
int (*pf_kept)(void) __used = pf_use;
MODULE_LICENSE("GPL");
