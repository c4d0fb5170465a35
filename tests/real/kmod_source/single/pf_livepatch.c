// SPDX-License-Identifier: GPL-2.0
/* Says that it is a livepatch, and patches nothing. */
#include "common.h"

MODULE_INFO(livepatch, "Y");
MODULE_LICENSE("GPL");
