// SPDX-License-Identifier: GPL-2.0
/* Uses GPL-only symbols of the kernel; the tests change its licence. */
#include <linux/device.h>
#include "common.h"

void *pf_kept_add __used = device_add;
void *pf_kept_del __used = device_del;
MODULE_LICENSE("GPL");
