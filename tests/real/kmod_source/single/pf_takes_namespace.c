// SPDX-License-Identifier: GPL-2.0
/* Uses a symbol from a namespace of pf_gives, and imports it. */
#include "common.h"

int pf_given_in_namespace(void);
int (*pf_kept_space)(void) __used = pf_given_in_namespace;
MODULE_IMPORT_NS(PF_SPACE);
MODULE_LICENSE("GPL");
