// SPDX-License-Identifier: GPL-2.0
/* Written for the tests of kmm-preflight: its init reads where nothing is. */
#include <linux/module.h>

static int __init pf_panics_init(void)
{
	return *(volatile int *)8;
}
module_init(pf_panics_init);
MODULE_DESCRIPTION("Brings the kernel down");
MODULE_LICENSE("GPL");
