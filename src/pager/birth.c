/* SPDX-License-Identifier: MIT */
/* See birth.h: the program's thread, before the clone and after it. */
#include "birth.h"

#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "base/sys.h"
#include "gate.h"
#include "pin.h"
#include "start.h"

enum {
	TRIES = 3, /* before nothing is left out */
	GAVE_UP_STATUS = 125,
	LOOK_NS = 20000000,
	WAIT_NS_MAX = 30ull * 1000000000,
	/* Around the thread pointer; what of it is not mapped is skipped. */
	TLS_BELOW = 64 << 10,
	TLS_ABOVE = 8 << 10
};

/* What a child is born with; all else it gets when its pager serves. */
#define AT_ONCE                                                          \
	(CSIGNAL | CLONE_FS | CLONE_FILES | CLONE_PARENT | CLONE_IO |    \
	 CLONE_PTRACE | CLONE_UNTRACED | CLONE_SYSVSEM | CLONE_NEWNS |   \
	 CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | \
	 CLONE_NEWPID | CLONE_NEWNET)
#define LATER                                                     \
	(CLONE_PIDFD | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | \
	 CLONE_CHILD_CLEARTID | CLONE_SETTLS | CLONE_DETACHED | CLONE_VFORK)

/* The clone in numbers, on a stack of ours. */
struct labour {
	struct tmem_pager *pager;
	const struct tmem_birth_call *call;
	uint64_t flags;
	int pidfd;
	long result;
};

static int map_page(struct tmem_pager *pager)
{
	long r = tmem_sys(SYS_mmap, pager->birth, TMEM_PAGE_SIZE,
			  PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	return r < 0 && r > -4096 ? (int)r : 0;
}

int tmem_birth_init(struct tmem_pager *pager)
{
	pager->birth = tmem_pager_map(pager, TMEM_PAGE_SIZE);
	pager->birth_stack = tmem_pager_map(pager, PAGER_STACK_BYTES);
	pager->stash = tmem_pager_map(pager, PAGER_STASH * sizeof(uint64_t));
	if (!pager->birth || !pager->birth_stack || !pager->stash)
		return -ENOMEM;
	return map_page(pager);
}

/* Runs fn(arg) on the stack that ends at `top`. */
__attribute__((noinline)) static void
run_on(void *top, void (*fn)(struct labour *), struct labour *arg)
{
	__asm__ volatile("mov %%rsp, %%rbx\n\t"
			 "mov %[top], %%rsp\n\t"
			 "call *%[fn]\n\t"
			 "mov %%rbx, %%rsp"
			 : [top] "+r"(top), [fn] "+r"(fn), "+D"(arg)
			 :
			 : "rax", "rbx", "rcx", "rdx", "rsi", "r8", "r9", "r10",
			   "r11", "memory", "cc");
}

/* Step 2. */
static void touch(struct tmem_pager *pager)
{
	uint64_t fs = (uint64_t)(uintptr_t)__builtin_thread_pointer();
	uint64_t at = (fs - TLS_BELOW) & ~4095ull;

	for (; at < fs + TLS_ABOVE; at += TMEM_PAGE_SIZE)
		tmem_pin_touch(pager, at);
}

static void wait_shared(const void *word, uint32_t value)
{
	const struct timespec ts = { 0, LOOK_NS };

	tmem_sys(SYS_futex, word, FUTEX_WAIT, value, &ts, 0, 0);
}

static bool is_dead(pid_t pid, int options)
{
	siginfo_t info = { 0 };

	/* Where children are reaped by themselves there is none any more. */
	return tmem_sys(SYS_waitid, P_PID, pid, &info,
			WEXITED | __WALL | options, 0) < 0 ||
	       info.si_pid == pid;
}

/* False: it gave up, and is gone.  One that was killed is the program's. */
static bool await(struct tmem_pager *pager, pid_t pid)
{
	struct tmem_birth *page = pager->birth;
	uint64_t until = tmem_sys_now_ns() + WAIT_NS_MAX;
	bool too_late = false;

	while (atomic_load(&page->state) == BIRTH_OPEN) {
		wait_shared(&page->state, BIRTH_OPEN);
		if (is_dead(pid, WNOHANG | WNOWAIT))
			break;
		too_late = tmem_sys_now_ns() > until;
		if (too_late) {
			tmem_sys(SYS_kill, pid, SIGKILL);
			break;
		}
	}
	if (!too_late && atomic_load(&page->state) != BIRTH_GAVE_UP)
		return true;
	is_dead(pid, 0);
	return false;
}

/* In the child: it has its memory, and what the kernel was not to touch. */
static void finish_child(struct labour *l)
{
	const struct tmem_birth_call *call = l->call;
	int32_t *tid = tmem_sys_pointer(call->child_tid);

	tmem_start_in_child(l->pager);
	if (map_page(l->pager) < 0) /* nor can it have one of its own later */
		tmem_sys(SYS_exit_group, GAVE_UP_STATUS);
	if (call->flags & CLONE_CHILD_SETTID)
		*tid = (int32_t)tmem_sys(SYS_gettid);
	if (call->flags & CLONE_CHILD_CLEARTID)
		tmem_sys(SYS_set_tid_address, tid);
	if (call->flags & CLONE_SETTLS)
		tmem_sys(SYS_arch_prctl, 0x1002 /* ARCH_SET_FS */, call->tls);
	l->result = 0;
}

/* One try, on our stack; the child leaves it ready to go on. */
static void clone_once(struct labour *l)
{
	struct tmem_pager *pager = l->pager;
	long pid;

	tmem_gate_call(pager, GATE_BIRTH_FREEZE);
	pid = tmem_sys(SYS_clone, l->flags, 0, &l->pidfd, 0, 0);
	if (pid == 0) {
		finish_child(l);
		return;
	}
	atomic_store(&pager->gate.fork_pid, (int32_t)pid);
	tmem_gate_call(pager, GATE_BIRTH_DONE);
	l->result = pid;
}

/* What the kernel would have written in the parent. */
static void finish_parent(const struct labour *l)
{
	const struct tmem_birth_call *call = l->call;

	if (call->flags & CLONE_PARENT_SETTID)
		*(int32_t *)tmem_sys_pointer(call->parent_tid) =
			(int32_t)l->result;
	if (call->flags & CLONE_PIDFD)
		*(int32_t *)tmem_sys_pointer(call->pidfd) = l->pidfd;
}

static struct labour *labour_of(struct tmem_pager *pager)
{
	/* Ours, as is what it points to: the child reads it at once. */
	return (void *)(pager->birth_stack + PAGER_STACK_BYTES -
			sizeof(struct labour) - sizeof(struct tmem_birth_call));
}

long tmem_birth(struct tmem_pager *pager, const struct tmem_birth_call *call)
{
	struct labour *l = labour_of(pager);
	struct tmem_birth_call *own = (void *)(l + 1);
	void *top = tmem_sys_pointer((uintptr_t)l & ~63ull);
	unsigned tries = 0;
	long r;

	if (call->flags & ~(uint64_t)(AT_ONCE | LATER))
		return -ENOSYS; /* newer, or of clone3 only */
	*own = *call;
	*l = (struct labour){ .pager = pager, .call = own };
	l->flags = call->flags & (AT_ONCE | CLONE_PIDFD);
	do {
		/* In other namespaces it would not be found. */
		pager->gate.whole =
			tries++ == TRIES ||
			(call->flags & (CLONE_NEWUSER | CLONE_NEWPID));
		tmem_gate_call(pager, GATE_BIRTH_BEGIN);
		touch(pager);
		memset(pager->birth, 0, sizeof(*pager->birth));
		run_on(top, clone_once, l);
		r = l->result;
		if (r == 0)
			return 0;
		if (r > 0 && await(pager, (pid_t)r))
			break;
		if (r > 0 && (call->flags & CLONE_PIDFD))
			tmem_sys_close(l->pidfd);
	} while (r > 0);
	if (r > 0)
		finish_parent(l);
	return r;
}

void tmem_birth_report(struct tmem_pager *pager)
{
	struct tmem_birth *page = pager->birth;
	bool ready = pager->gate.whole ||
		     atomic_load(&pager->state) == PAGER_SERVING;

	atomic_store(&page->state, ready ? BIRTH_READY : BIRTH_GAVE_UP);
	tmem_sys(SYS_futex, &page->state, FUTEX_WAKE, INT32_MAX);
	if (!ready)
		tmem_sys(SYS_exit_group, GAVE_UP_STATUS);
}
