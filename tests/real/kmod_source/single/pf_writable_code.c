// SPDX-License-Identifier: GPL-2.0
/* Has a section that can be written and executed. */
#include "common.h"

asm(".pushsection .pf_both, \"awx\", @progbits\n\t.byte 0xc3\n\t.popsection\n");
MODULE_LICENSE("GPL");
