// SPDX-License-Identifier: GPL-2.0-only
/* Keeps a ring of numbers: the file name has a hyphen, the module that the kernel knows an underscore. */
#include <linux/init.h>
#include <linux/kfifo.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>

static unsigned int slots = 64;
module_param(slots, uint, 0444);
MODULE_PARM_DESC(slots, "how many numbers the ring holds (a power of two)");

static DECLARE_KFIFO_PTR(ring, u32);
static DEFINE_MUTEX(ring_lock);

/* Fills the ring and returns how many numbers fitted. */
static unsigned int fill(void)
{
	unsigned int count = 0;

	mutex_lock(&ring_lock);
	while (kfifo_put(&ring, count))
		count++;
	mutex_unlock(&ring_lock);
	return count;
}

static int __init ring_buffer_init(void)
{
	int error = kfifo_alloc(&ring, slots, GFP_KERNEL);

	if (error)
		return error;
	pr_info("ring_buffer: %u numbers\n", fill());
	return 0;
}

static void __exit ring_buffer_exit(void)
{
	kfifo_free(&ring);
}

module_init(ring_buffer_init);
module_exit(ring_buffer_exit);

MODULE_DESCRIPTION("A ring of numbers");
MODULE_LICENSE("GPL v2");
