// SPDX-License-Identifier: GPL-2.0
/* Exports a name that the tests change to one that an in-tree kmod has. */
#include "common.h"

int v4l2_device_registeX(void);
int v4l2_device_registeX(void)
{
	return 0;
}
EXPORT_SYMBOL_GPL(v4l2_device_registeX);
MODULE_LICENSE("GPL");
