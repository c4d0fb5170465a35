// SPDX-License-Identifier: GPL-2.0
/* Nothing but the least that a kmod is. */
#include "common.h"
MODULE_LICENSE("GPL");
