// SPDX-License-Identifier: GPL-2.0
/* Written for the tests of kmm-preflight: it needs an in-tree kmod, and has a name beside its own. */
#include <linux/module.h>

extern char video_devdata[];
void *pf_alias_kept __used = video_devdata;
MODULE_ALIAS("pf-by-alias-*");
MODULE_DESCRIPTION("Goes by an alias");
MODULE_LICENSE("GPL");
