// SPDX-License-Identifier: Apache-2.0
/*
 * The init of a small VM: loads kmods as /list says and tells what the kernel answered.
 *
 * A line of the list is a number, the kmod, and what is loaded before it. An answer is `@trial NUMBER ERRNO`, the
 * kernel's messages, and `@end`. After each trial all that can be unloaded is.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define MESSAGES 24

static int load(const char *name)
{
	char path[256];
	struct stat status;
	void *content;
	int file, answer;

	snprintf(path, sizeof(path), "/k/%s", name);
	file = open(path, O_RDONLY);
	if (file < 0 || fstat(file, &status) || !(content = malloc(status.st_size + 1)))
		return -1;
	if (read(file, content, status.st_size) != status.st_size)
		return -1;
	close(file);
	answer = syscall(SYS_init_module, content, (unsigned long)status.st_size, "") ? errno : 0;
	free(content);
	return answer;
}

/* In a process of its own, which a driver's own fault may end; then 255. One that hangs ends the VM. */
static int apart(int (*work)(const char *), const char *name)
{
	int status, waited;
	pid_t child = fork();

	if (!child)
		_exit(work(name));
	for (waited = 0; waited < 20000; waited++) {
		if (waitpid(child, &status, WNOHANG))
			return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
		usleep(1000);
	}
	puts("@hangs");
	fflush(stdout);
	tcdrain(1);
	reboot(RB_POWER_OFF);
	return 255;
}

static int unload(const char *name)
{
	return syscall(SYS_delete_module, name, O_NONBLOCK) ? errno : 0;
}

static void unload_all(void)
{
	char line[4096];
	int again = 1;

	while (again) {
		FILE *modules = fopen("/proc/modules", "r");

		again = 0;
		while (modules && fgets(line, sizeof(line), modules)) {
			line[strcspn(line, " ")] = 0;
			again |= !apart(unload, line);
		}
		if (modules)
			fclose(modules);
	}
}

/* The kernel's messages since the last call; of many the first ones. */
static void messages(int log, int tell)
{
	char record[8192];
	int told = 0;
	ssize_t size;

	for (;;) {
		char *text;

		size = read(log, record, sizeof(record) - 1);
		if (size < 0 && errno == EPIPE)
			continue; /* overwritten before it was read */
		if (size < 0)
			return;
		record[size] = 0;
		text = strchr(record, ';');
		if (!tell || !text || told++ >= MESSAGES)
			continue;
		text[strcspn(text, "\n")] = 0;
		puts(text + 1);
	}
}

int main(void)
{
	char line[8192];
	FILE *list;
	int log;

	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	if (!freopen("/dev/answers", "w", stdout))
		return 1;
	log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	list = fopen("/list", "r");
	while (log >= 0 && list && fgets(line, sizeof(line), list)) {
		char *number = strtok(line, " \n"), *wanted = strtok(NULL, " \n"), *before;
		int answer;

		while ((before = strtok(NULL, " \n")))
			apart(load, before);
		messages(log, 0);
		answer = apart(load, wanted);
		printf("@trial %s %d\n", number, answer);
		messages(log, 1);
		puts("@end");
		fflush(stdout);
		unload_all();
	}
	puts("@all");
	fflush(stdout);
	tcdrain(1);
	reboot(RB_POWER_OFF);
	return 0;
}
