// SPDX-License-Identifier: GPL-2.0-only
/* Greets when it is loaded, says goodbye when it is removed, and counts the greetings. */
#include <linux/atomic.h>
#include <linux/init.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/timekeeping.h>

static char *whom = "world";
module_param(whom, charp, 0444);
MODULE_PARM_DESC(whom, "who is greeted");

static atomic_t greetings = ATOMIC_INIT(0);

/* Greets someone and returns how many greetings there were; other kmods may call it. */
int hello_greet(const char *name)
{
	pr_info("hello: hello, %s, at %lld s\n", name, (long long)ktime_get_real_seconds());
	return atomic_inc_return(&greetings);
}
EXPORT_SYMBOL_GPL(hello_greet);

static int __init hello_init(void)
{
	hello_greet(whom);
	return 0;
}

static void __exit hello_exit(void)
{
	pr_info("hello: goodbye, %s, after %d greetings\n", whom, atomic_read(&greetings));
}

module_init(hello_init);
module_exit(hello_exit);

MODULE_ALIAS("demo:hello");
MODULE_DESCRIPTION("A greeting");
MODULE_LICENSE("GPL v2");
