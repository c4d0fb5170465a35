// SPDX-License-Identifier: GPL-2.0
/* Uses a GPL-only symbol of the kernel and one of pf_gives, so that a proprietary owner matters. */
#include <linux/device.h>
#include "common.h"

int pf_given(void);
int (*pf_kept_plain)(void) __used = pf_given;
void *pf_kept_gpl_of_kernel __used = device_add;
MODULE_LICENSE("GPL");
