// SPDX-License-Identifier: GPL-2.0
/*
 * A module that does nothing, written for the tests of kmm-preflight. It uses symbols whose types change between
 * kernels (a misc device, a delayed work), so that builds for two kernels differ in their symbol versions.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/workqueue.h>

static unsigned int delay_ms = 1000;
module_param(delay_ms, uint, 0444);
MODULE_PARM_DESC(delay_ms, "milliseconds until the first message");

static void probe_say(struct work_struct *work)
{
	pr_info("preflight probe is here\n");
}
static DECLARE_DELAYED_WORK(probe_work, probe_say);

static const struct file_operations probe_operations = {
	.owner = THIS_MODULE,
	.llseek = noop_llseek,
};

static struct miscdevice probe_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = KBUILD_MODNAME,
	.fops = &probe_operations,
};

static int __init probe_init(void)
{
	schedule_delayed_work(&probe_work, msecs_to_jiffies(delay_ms));
	return misc_register(&probe_device);
}

static void __exit probe_exit(void)
{
	cancel_delayed_work_sync(&probe_work);
	misc_deregister(&probe_device);
}

module_init(probe_init);
module_exit(probe_exit);

MODULE_DESCRIPTION("Probe of the kmm-preflight tests");
MODULE_AUTHOR("kmm-preflight");
MODULE_VERSION("1.0");
MODULE_LICENSE("GPL");
