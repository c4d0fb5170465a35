// SPDX-License-Identifier: GPL-2.0
/* Exports one symbol of each kind, for other kmods of the same image. */
#include "common.h"


int pf_given(void)
{
	return 1;
}
EXPORT_SYMBOL(pf_given);

int pf_given_gpl(void)
{
	return 2;
}
EXPORT_SYMBOL_GPL(pf_given_gpl);

int pf_given_in_namespace(void)
{
	return 3;
}
EXPORT_SYMBOL_NS(pf_given_in_namespace, PF_SPACE);
MODULE_LICENSE("GPL");
