// SPDX-License-Identifier: GPL-2.0
/* Written for the tests of kmm-preflight: without an exit it cannot be unloaded; it prints what looks like an answer. */
#include <linux/module.h>

static int __init pf_stays_init(void)
{
	pr_info("begin 0\n");
	pr_info("code 0\n");
	return 0;
}
module_init(pf_stays_init);
MODULE_DESCRIPTION("Stays");
MODULE_LICENSE("GPL");
