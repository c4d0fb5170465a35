// SPDX-License-Identifier: GPL-2.0
/* Written for the tests of kmm-preflight: its init answers what a driver's does whose device is not there. */
#include <linux/module.h>

static int answer = -ENODEV;
module_param(answer, int, 0444);

static int __init pf_no_device_init(void)
{
	return answer;
}
module_init(pf_no_device_init);
MODULE_DESCRIPTION("Finds no device");
MODULE_LICENSE("GPL");
