/* SPDX-License-Identifier: MIT */
/*
 * Programs that change who and where they are, and go on.
 *
 *   userns   unshare(CLONE_NEWUSER): fails in any process that has a thread
 *   mountns  unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS)
 *   pidns    unshare(CLONE_NEWPID): the next child is PID 1 of a new one
 *   setuid   gives up root for ever, in all threads
 *   dumpable PR_SET_DUMPABLE 0
 *   chroot   into an empty directory without /proc
 *   self     userns in the program itself, not in a child
 */
#include "torture.h"

#include <errno.h>
#include <grp.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

enum {
	NOBODY = 65534
};

static struct tt_region region;

static void setup(void)
{
	tt_region_begin(&region, tt_pages(30));
}

static void work(void)
{
	uint64_t rng = tt_rand_start(3);

	tt_region_work(&region, &rng, region.nr_pages, 2);
	tt_pressure();
	tt_region_verify_shuffled(&region);
}

/* Damage in a child, which goes on alone and then with a child of its own. */
static void in_child(void (*change)(void))
{
	pid_t pid;

	setup();
	pid = tt_fork();
	if (pid) {
		work();
		tt_wait(pid);
		tt_region_unmap(&region);
		return;
	}
	work();
	change();
	work();
	pid = tt_fork();
	if (!pid) {
		work();
		_exit(0);
	}
	work();
	tt_wait(pid);
	_exit(0);
}

static void new_userns(void)
{
	if (unshare(CLONE_NEWUSER) == 0)
		return;
	if (errno == EPERM || errno == ENOSPC)
		tt_skip("user namespaces are not allowed here");
	tt_fail("unshare(CLONE_NEWUSER): %s", strerror(errno));
}

static void userns(void)
{
	in_child(new_userns);
}

static void userns_self(void)
{
	setup();
	new_userns();
	work();
	tt_region_unmap(&region);
}

static void new_mountns(void)
{
	if (unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS) == 0)
		return;
	if (errno == EPERM)
		tt_skip("namespaces are not allowed here");
	tt_fail("unshare: %s", strerror(errno));
}

static void mountns(void)
{
	in_child(new_mountns);
}

static void new_pidns(void)
{
	if (unshare(CLONE_NEWPID) == 0)
		return;
	if (errno == EPERM)
		tt_skip("PID namespaces are not allowed here");
	tt_fail("unshare: %s", strerror(errno));
}

static void pidns(void)
{
	in_child(new_pidns);
}

static void give_up_root(void)
{
	if (geteuid() != 0)
		tt_skip("not root");
	TT_SYS(setgroups(0, NULL));
	TT_SYS(setresgid(NOBODY, NOBODY, NOBODY));
	TT_SYS(setresuid(NOBODY, NOBODY, NOBODY));
	TT_ASSERT(setuid(0) == -1);
}

static void setuid_case(void)
{
	in_child(give_up_root);
}

static void not_dumpable(void)
{
	TT_SYS(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
}

static void dumpable(void)
{
	in_child(not_dumpable);
}

static void into_empty(void)
{
	char dir[] = "/var/tmp/torture-XXXXXX";

	if (geteuid() != 0)
		tt_skip("not root");
	TT_ASSERT(mkdtemp(dir) != NULL);
	TT_SYS(chdir(dir));
	TT_SYS(rmdir(dir)); /* a root that is gone is as empty as can be */
	TT_SYS(chroot("."));
	TT_ASSERT(access("/proc", F_OK) == -1);
}

static void chroot_case(void)
{
	in_child(into_empty);
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = { { "userns", userns },
						{ "mountns", mountns },
						{ "pidns", pidns },
						{ "setuid", setuid_case },
						{ "dumpable", dumpable },
						{ "chroot", chroot_case },
						{ "self", userns_self, true },
						{ NULL } };

	tt_main(argc, argv, 192, cases);
}
