// SPDX-License-Identifier: GPL-2.0
/* Has the name of built-in code that has parameters. */
#include "common.h"

MODULE_LICENSE("GPL");
