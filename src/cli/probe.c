/* SPDX-License-Identifier: MIT */
/*
 * Version numbers tell little: distributions backport, containers filter.
 * So each probe makes the call that the pager will make, on memory or a
 * descriptor of its own, and undoes it.
 *
 * A userfaultfd takes one UFFDIO_API only, so every question about features
 * opens a new one.
 */
#include "cli/probe.h"

#include "base/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#define PR_SYS_DISPATCH_OFF	     0
#endif

#define PAGE ((size_t)4096)

static void good(struct tmem_probe *p, const char *detail)
{
	p->ok = true;
	snprintf(p->detail, sizeof(p->detail), "%s", detail);
}

static void bad(struct tmem_probe *p, const char *detail, const char *remedy)
{
	p->ok = false;
	snprintf(p->detail, sizeof(p->detail), "%s", detail);
	snprintf(p->remedy, sizeof(p->remedy), "%s", remedy);
}

static const char *kernel_release(struct utsname *name)
{
	return uname(name) == 0 ? name->release : "unknown";
}

static void bad_kernel(struct tmem_probe *p, const char *lacks,
		       const char *needs)
{
	struct utsname name;

	snprintf(p->detail, sizeof(p->detail), "this kernel (%.60s) has no %s",
		 kernel_release(&name), lacks);
	snprintf(p->remedy, sizeof(p->remedy), "run Linux %s or newer", needs);
	p->ok = false;
}

int tmem_probe_open_device(void)
{
	int fd = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* A userfaultfd that also serves faults of the kernel, or -errno. */
static int open_uffd(bool *ret_device)
{
	int device = tmem_probe_open_device();
	int fd = -1;

	*ret_device = false;
	if (device >= 0) {
		fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
		close(device);
		*ret_device = fd >= 0;
	}
	if (fd < 0)
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

/* A userfaultfd that agreed to `features`; the kernel's in *ret_all. */
static int open_with_features(uint64_t features, uint64_t *ret_all)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	bool device;
	int fd = open_uffd(&device);
	int r;

	if (fd < 0)
		return fd;
	if (ioctl(fd, UFFDIO_API, &api) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	if (ret_all)
		*ret_all = api.features;
	return fd;
}

static void probe_userfaultfd(struct tmem_probe *p)
{
	bool device;
	int fd = open_uffd(&device);

	if (fd >= 0) {
		close(fd);
		good(p, device ? "usable through /dev/userfaultfd"
			       : "usable as a system call");
	} else if (fd == -ENOSYS) {
		bad(p, "this kernel has no userfaultfd",
		    "run a kernel built with CONFIG_USERFAULTFD=y");
	} else {
		bad(p,
		    "this user may not use userfaultfd: /dev/userfaultfd is "
		    "closed to it",
		    "join the device's group (tmem, by our udev rule) and log "
		    "in anew; in a container pass --device /dev/userfaultfd; "
		    "else run as root, or sysctl "
		    "vm.unprivileged_userfaultfd=1");
	}
}

static void probe_events(struct tmem_probe *p, uint64_t features)
{
	const uint64_t events = UFFD_FEATURE_EVENT_REMAP |
				UFFD_FEATURE_EVENT_REMOVE |
				UFFD_FEATURE_EVENT_UNMAP;

	if ((features & events) == events)
		good(p, "mremap, madvise and munmap are reported");
	else
		bad_kernel(p, "userfaultfd events", "4.11");
}

/* Can system calls be trapped?  Asks for what is so already: that none is. */
static bool has_dispatch(void)
{
	return prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_OFF, 0, 0,
		     0) == 0;
}

static void probe_fork(struct tmem_probe *p)
{
	int fd = open_with_features(UFFD_FEATURE_EVENT_FORK, NULL);

	if (fd >= 0) {
		close(fd);
		good(p, "forks are reported (CAP_SYS_PTRACE)");
	} else if (has_dispatch()) {
		good(p, "forks are trapped (without CAP_SYS_PTRACE)");
	} else {
		bad(p,
		    "forks are neither reported (no CAP_SYS_PTRACE) nor can "
		    "they be trapped",
		    "none needed: a fork brings all memory back first, and "
		    "its children are not paged; as root they are");
	}
}

/* Moves one page within memory of our own.  0 or -errno. */
static int try_move(void)
{
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_move move = { .len = PAGE };
	char *area;
	int fd, r = 0;

	area = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED)
		return -errno;
	/* Huge pages cannot be moved in part. */
	madvise(area, 2 * PAGE, MADV_NOHUGEPAGE);
	memset(area, 0x5a, PAGE);
	fd = open_with_features(UFFD_FEATURE_MOVE, NULL);
	if (fd < 0) {
		munmap(area, 2 * PAGE);
		return fd;
	}
	reg.range.start = (uintptr_t)area + PAGE;
	reg.range.len = PAGE;
	move.src = (uintptr_t)area;
	move.dst = reg.range.start;
	if (ioctl(fd, UFFDIO_REGISTER, &reg) < 0 ||
	    ioctl(fd, UFFDIO_MOVE, &move) < 0)
		r = -errno;
	else if (area[PAGE] != 0x5a || area[2 * PAGE - 1] != 0x5a)
		r = -EIO;
	close(fd);
	munmap(area, 2 * PAGE);
	return r;
}

static void probe_move(struct tmem_probe *p, uint64_t features)
{
	int r;

	if (!(features & UFFD_FEATURE_MOVE)) {
		bad_kernel(p, "UFFDIO_MOVE", "6.8");
		return;
	}
	r = try_move();
	if (r == 0) {
		good(p, "a page was moved");
		return;
	}
	bad(p, "UFFDIO_MOVE is there, but moving a page failed",
	    "report the kernel's version: this should not happen");
}

static void probe_poison(struct tmem_probe *p, uint64_t features)
{
	if (features & UFFD_FEATURE_POISON)
		good(p, "a page that is lost raises SIGBUS");
	else
		bad_kernel(p, "UFFDIO_POISON", "6.6");
}

static void probe_pidfd(struct tmem_probe *p)
{
	int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);

	if (fd >= 0) {
		close(fd);
		good(p, "processes can be watched");
	} else if (errno == EPERM) {
		bad(p, "a system call filter forbids pidfd_open",
		    "allow it in the container's seccomp profile");
	} else {
		bad_kernel(p, "pidfd_open", "5.3");
	}
}

static void probe_memfd(struct tmem_probe *p)
{
	int fd = memfd_create("tmem-probe", MFD_CLOEXEC);

	if (fd >= 0) {
		close(fd);
		good(p, "memory can be shared by descriptor");
	} else {
		bad_kernel(p, "memfd_create", "3.17");
	}
}

static void probe_pagemap(struct tmem_probe *p)
{
	struct pm_scan_arg arg = { .size = sizeof(arg) };
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	arg.start = (uintptr_t)&arg & ~(uint64_t)(PAGE - 1);
	arg.end = arg.start + PAGE;
	if (fd >= 0 && ioctl(fd, PAGEMAP_SCAN, &arg) == 0)
		good(p, "written pages can be found");
	else
		bad_kernel(p, "PAGEMAP_SCAN", "6.7");
	if (fd >= 0)
		close(fd);
}

static void probe_kcmp(struct tmem_probe *p)
{
	if (syscall(SYS_kcmp, getpid(), getpid(), KCMP_VM, 0, 0) == 0)
		good(p, "a pager can be tied to its program");
	else
		bad(p, "kcmp is not allowed or not built in",
		    "none needed: tmem checks parents only");
}

static void probe_io_uring(struct tmem_probe *p)
{
	struct io_uring_params params;
	int fd;

	memset(&params, 0, sizeof(params));
	fd = (int)syscall(SYS_io_uring_setup, 1, &params);
	if (fd >= 0) {
		close(fd);
		good(p, "swap I/O is queued by io_uring");
	} else {
		bad(p, "io_uring is not allowed or not built in",
		    "none needed: swap I/O by pread and pwrite, slower; "
		    "sysctl kernel.io_uring_disabled=0 may allow it");
	}
}

void tmem_probe_all(struct tmem_probe *ret_probes)
{
	static const struct {
		const char *name;
		bool needed;
	} list[TMEM_PROBE_COUNT] = {
		[TMEM_PROBE_USERFAULTFD] = { "userfaultfd", true },
		[TMEM_PROBE_EVENTS] = { "events", true },
		[TMEM_PROBE_FORK] = { "fork", false },
		[TMEM_PROBE_MOVE] = { "move", true },
		[TMEM_PROBE_POISON] = { "poison", true },
		[TMEM_PROBE_PIDFD] = { "pidfd", true },
		[TMEM_PROBE_MEMFD] = { "memfd", true },
		[TMEM_PROBE_PAGEMAP] = { "pagemap-scan", false },
		[TMEM_PROBE_KCMP] = { "kcmp", false },
		[TMEM_PROBE_IO_URING] = { "io_uring", false },
	};
	struct tmem_probe *p = ret_probes;
	uint64_t features = 0;
	int fd, i;

	memset(p, 0, TMEM_PROBE_COUNT * sizeof(*p));
	for (i = 0; i < TMEM_PROBE_COUNT; i++) {
		p[i].name = list[i].name;
		p[i].needed = list[i].needed;
	}
	probe_userfaultfd(&p[TMEM_PROBE_USERFAULTFD]);
	fd = open_with_features(0, &features);
	if (fd >= 0) {
		close(fd);
		probe_events(&p[TMEM_PROBE_EVENTS], features);
		probe_fork(&p[TMEM_PROBE_FORK]);
		probe_move(&p[TMEM_PROBE_MOVE], features);
		probe_poison(&p[TMEM_PROBE_POISON], features);
	} else {
		for (i = TMEM_PROBE_EVENTS; i <= TMEM_PROBE_POISON; i++)
			bad(&p[i], "cannot be tried without userfaultfd",
			    "see userfaultfd");
	}
	probe_pidfd(&p[TMEM_PROBE_PIDFD]);
	probe_memfd(&p[TMEM_PROBE_MEMFD]);
	probe_pagemap(&p[TMEM_PROBE_PAGEMAP]);
	probe_kcmp(&p[TMEM_PROBE_KCMP]);
	probe_io_uring(&p[TMEM_PROBE_IO_URING]);
}

const struct tmem_probe *tmem_probe_missing(const struct tmem_probe *probes)
{
	int i;

	for (i = 0; i < TMEM_PROBE_COUNT; i++)
		if (probes[i].needed && !probes[i].ok)
			return &probes[i];
	return NULL;
}
