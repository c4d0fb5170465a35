// SPDX-License-Identifier: GPL-2.0
/* Exports a name that the tests change to one that vmlinux has. */
#include "common.h"

int misc_registeX(void);
int misc_registeX(void)
{
	return 0;
}
EXPORT_SYMBOL(misc_registeX);
MODULE_LICENSE("GPL");
