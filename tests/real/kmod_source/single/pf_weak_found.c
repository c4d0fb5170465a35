// SPDX-License-Identifier: GPL-2.0
/* Would use a function that the kernel has. */
#include "common.h"

void __weak misc_deregister(void *device);
void (*pf_kept_found)(void *device) __used = misc_deregister;
MODULE_LICENSE("GPL");
