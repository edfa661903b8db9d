/* SPDX-License-Identifier: MIT */
/*
 * A seccomp filter installed in all threads (TSYNC) against the system calls
 * that a pager needs and this program does not: the program goes on faulting,
 * starts threads and forks.
 *
 *   kill   a forbidden call kills the process
 *   errno  a forbidden call fails with EPERM
 *   fork   as kill, and then the program forks
 *   child  the filter is installed in a child of fork
 */
#include "torture.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SECCOMP_RET_KILL_PROCESS
#define SECCOMP_RET_KILL_PROCESS 0x80000000u
#endif

static struct tt_region region;
static _Atomic bool stop;

static const unsigned forbidden[] = {
	SYS_userfaultfd,
	SYS_ioctl,
	SYS_io_uring_setup,
	SYS_io_uring_enter,
	SYS_io_uring_register,
	SYS_process_vm_readv,
	SYS_process_vm_writev,
	SYS_memfd_create,
	SYS_pidfd_open,
	SYS_pidfd_getfd,
	SYS_process_madvise,
	SYS_kcmp,
	SYS_ptrace,
	SYS_socket,
	SYS_connect,
	SYS_recvmsg,
	SYS_sendmsg,
	SYS_eventfd2,
	SYS_openat,
	SYS_pread64,
	SYS_pwrite64,
};

static void install(unsigned action)
{
	enum {
		N = TT_ARRAY(forbidden)
	};
	struct sock_filter code[N + 3];
	struct sock_fprog program = { N + 3, code };

	code[0] = (struct sock_filter)BPF_STMT(
		BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (unsigned i = 0; i < N; i++)
		code[1 + i] = (struct sock_filter)BPF_JUMP(
			BPF_JMP | BPF_JEQ | BPF_K, forbidden[i],
			(unsigned char)(N - i), 0);
	code[N + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K,
						   SECCOMP_RET_ALLOW);
	code[N + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action);
	TT_SYS(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	TT_SYS(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
		       SECCOMP_FILTER_FLAG_TSYNC, &program));
}

static void setup(void)
{
	static char buffer[BUFSIZ];

	/* Else printf asks by ioctl whether this is a terminal. */
	setvbuf(stdout, buffer, _IOFBF, sizeof(buffer));
	tt_region_begin(&region, tt_pages(20));
}

static void *worker(void *argument)
{
	uint64_t me = (uintptr_t)argument, rng = tt_rand_start(me);
	struct tt_region mine;

	tt_region_map(&mine, tt_pages(5), me);
	tt_region_fill(&mine);
	do
		tt_region_work(&mine, &rng, 200, 3);
	while (!atomic_load(&stop));
	tt_region_verify(&mine);
	tt_region_unmap(&mine);
	return NULL;
}

static void go_on(void)
{
	uint64_t rng = tt_rand_start(2);

	tt_pressure();
	tt_region_verify_shuffled(&region);
	tt_region_work(&region, &rng, region.nr_pages, 2);
	tt_region_verify(&region);
}

static void filtered(unsigned action, bool forks)
{
	pthread_t before, after;
	pid_t pid;

	atomic_store(&stop, false);
	before = tt_thread(worker, (void *)10);
	install(action);
	go_on();
	after = tt_thread(worker, (void *)11);
	go_on();
	if (forks) {
		pid = tt_fork();
		if (!pid) {
			go_on();
			_exit(0);
		}
		go_on();
		tt_wait(pid);
	}
	atomic_store(&stop, true);
	tt_join(before);
	tt_join(after);
}

static void killing(void)
{
	setup();
	filtered(SECCOMP_RET_KILL_PROCESS, false);
	tt_region_unmap(&region);
}

static void forking(void)
{
	setup();
	filtered(SECCOMP_RET_KILL_PROCESS, true);
	tt_region_unmap(&region);
}

static void failing(void)
{
	setup();
	filtered(SECCOMP_RET_ERRNO | EPERM, false);
	TT_ASSERT(syscall(SYS_userfaultfd, 0) == -1 && errno == EPERM);
	tt_region_unmap(&region);
}

static void child(void)
{
	pid_t pid;

	setup();
	pid = tt_fork();
	if (!pid) {
		filtered(SECCOMP_RET_KILL_PROCESS, false);
		_exit(0);
	}
	go_on();
	tt_wait(pid);
	tt_region_unmap(&region);
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = { { "child", child },
						{ "errno", failing, true },
						{ "kill", killing, true },
						{ "fork", forking, true },
						{ NULL } };

	tt_main(argc, argv, 192, cases);
}
