// SPDX-License-Identifier: GPL-2.0
/* Uses a function of an in-tree kmod. */
#include "common.h"

extern char video_devdata[];
void *pf_kept_in_tree __used = video_devdata;
MODULE_LICENSE("GPL");
