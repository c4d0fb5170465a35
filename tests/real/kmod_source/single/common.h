/* SPDX-License-Identifier: GPL-2.0 */
/* What all small kmods of the loader's tests share: they do nothing, and are gone again. */
#include <linux/module.h>

static int __init single_init(void)
{
	return 0;
}

static void __exit single_exit(void)
{
}

module_init(single_init);
module_exit(single_exit);
MODULE_DESCRIPTION("Small kmod of the kmm-preflight tests");
