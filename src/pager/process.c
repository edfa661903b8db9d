/* SPDX-License-Identifier: MIT */
/* See process.h. */
#include "process.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "base/sys.h"

enum {
	TCB_BYTES = 4096,
	TLS_SLACK = 4096
};

/* The words at the thread pointer that compiled code and libc rely on. */
struct tcb {
	void *self; /* %fs:0 */
	void *dtv;
	void *self2; /* %fs:0x10 */
	int multiple_threads;
	int gscope;
	uintptr_t sysinfo;
	uintptr_t stack_guard;	 /* %fs:0x28 */
	uintptr_t pointer_guard; /* %fs:0x30 */
};

/*
 * The child starts at fn(arg) on its own stack and never returns here.
 */
__attribute__((noinline)) static long clone_to(unsigned long flags, void *stack,
					       void *tls, tmem_process_fn *fn,
					       void *arg)
{
	void **sp = stack;
	long ret;
	register void *r8 __asm__("r8") = tls;
	register long r10 __asm__("r10") = 0;

	*--sp = arg;
	*--sp = tmem_sys_pointer((uintptr_t)fn);
	__asm__ volatile("syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "pop %%rax\n\t"
			 "pop %%rdi\n\t"
			 "call *%%rax\n\t"
			 "xor %%edi, %%edi\n\t"
			 "mov $60, %%eax\n\t" /* exit: this thread only */
			 "syscall\n\t"
			 "hlt\n"
			 "1:"
			 : "=a"(ret)
			 : "a"(SYS_clone), "D"(flags), "S"(sp), "d"(0),
			   "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return ret;
}

void tmem_process_measure(struct tmem_pager *pager)
{
	uintptr_t fs = (uintptr_t)__builtin_thread_pointer();
	uintptr_t low = (uintptr_t)&errno;
	const struct tcb *tcb = tmem_sys_pointer(fs);

	if ((uintptr_t)&tmem_lock_ranks_held < low)
		low = (uintptr_t)&tmem_lock_ranks_held;
	pager->tls_bytes = (fs - low + TLS_SLACK + 4095) & ~4095ull;
	pager->guards[0] = tcb->stack_guard;
	pager->guards[1] = tcb->pointer_guard;
}

void *tmem_process_block(struct tmem_pager *pager)
{
	return tmem_pager_map(pager,
			      PAGER_STACK_BYTES + pager->tls_bytes + TCB_BYTES);
}

/* The thread pointer of a block; the block as new. */
static void *prepare_block(const struct tmem_pager *pager, void *block)
{
	uint8_t *stack_end = (uint8_t *)block + PAGER_STACK_BYTES;
	struct tcb *tcb = (void *)(stack_end + pager->tls_bytes);

	tmem_sys_madvise(stack_end, pager->tls_bytes + TCB_BYTES,
			 MADV_DONTNEED);
	memset(tcb, 0, sizeof(*tcb));
	tcb->self = tcb;
	tcb->self2 = tcb;
	tcb->stack_guard = pager->guards[0];
	tcb->pointer_guard = pager->guards[1];
	return tcb;
}

static void *stack_top(void *block)
{
	return (uint8_t *)block + PAGER_STACK_BYTES - 64;
}

struct middle {
	void *block;
	void *tls;
	tmem_process_fn *fn;
	struct tmem_pager *pager;
	long result;
};

/* The one in between: makes the pager and is gone. */
static void run_middle(void *arg)
{
	struct middle *m = arg;

	m->result = clone_to(CLONE_VM | CLONE_SETTLS, stack_top(m->block),
			     m->tls, m->fn, m->pager);
	tmem_sys(SYS_exit, 0);
}

int tmem_process_spawn(struct tmem_pager *pager, void *block,
		       tmem_process_fn *fn)
{
	struct middle m = { .block = block,
			    .tls = prepare_block(pager, block),
			    .fn = fn,
			    .pager = pager };
	uint64_t all = ~0ull, old = 0, stack[256];
	long pid, r;

	/* Born with every signal blocked. */
	tmem_sys(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, sizeof(all));
	pid = clone_to(CLONE_VM | CLONE_VFORK | CLONE_SETTLS, stack + 250,
		       m.tls, run_middle, &m);
	if (pid > 0) {
		do {
			r = tmem_sys(SYS_wait4, pid, 0, __WALL, 0);
		} while (r == -EINTR);
	}
	tmem_sys(SYS_rt_sigprocmask, SIG_SETMASK, &old, 0, sizeof(all));
	if (pid < 0)
		return (int)pid;
	return m.result < 0 ? (int)m.result : 0;
}

int tmem_process_thread(struct tmem_pager *pager, void *block,
			tmem_process_fn *fn, void *arg)
{
	return (int)clone_to(
		CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND |
			CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS,
		stack_top(block), prepare_block(pager, block), fn, arg);
}
