// SPDX-License-Identifier: GPL-2.0
/* Has the name of an in-tree kmod. */
#include "common.h"

MODULE_LICENSE("GPL");
