// SPDX-License-Identifier: GPL-2.0
/* Exports a symbol for kmods of some names only. */
#include "common.h"

int pf_for_some(void);

int pf_for_some(void)
{
	return 4;
}
EXPORT_SYMBOL_FOR_MODULES(pf_for_some, "pf_some,pf_glob*");
MODULE_LICENSE("GPL");
