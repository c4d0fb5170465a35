// SPDX-License-Identifier: GPL-2.0
/* Has a tentative definition; compiled with -fcommon. */
#include "common.h"

int pf_tentative;
int *pf_kept_common __used = &pf_tentative;
MODULE_LICENSE("GPL");
