/* SPDX-License-Identifier: MIT */
/* See trap.h. */
#include "trap.h"

#include <errno.h>
#include <linux/sched.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <ucontext.h>

#include "base/sys.h"
#include "birth.h"
#include "gate.h"
#include "start.h"

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#define PR_SYS_DISPATCH_OFF	     0
#define PR_SYS_DISPATCH_ON	     1
#endif

enum {
	SIGSYS_BY_DISPATCH = 2, /* si_code SYS_USER_DISPATCH */
	RESTORER = 0x04000000	/* SA_RESTORER */
};

#define BIT(signal) (1ull << ((signal)-1))
/* What a fault raises: it can't wait. */
#define BY_FAULT \
	(BIT(SIGSEGV) | BIT(SIGBUS) | BIT(SIGFPE) | BIT(SIGILL) | BIT(SIGTRAP))

/* The kernel's; libc's has another form. */
struct action {
	void (*handler)(int signal, siginfo_t *info, void *context);
	uint64_t flags;
	void (*restorer)(void);
	uint64_t mask;
};

/* The window: W2. */
static struct {
	_Atomic int32_t owner; /* its thread's number, or 0 */
	bool without;	       /* no window: nothing is out until it closes */
	uint64_t mask;	       /* W1: as the program has it */
	struct action old;
} window;

/* Ends of our code, by the linker: calls from there are never trapped. */
extern char __ehdr_start[] __attribute__((visibility("hidden")));
extern char etext[] __attribute__((visibility("hidden")));

void tmem_trap_restorer(void) __attribute__((visibility("hidden")));
__asm__(".pushsection .text\n"
	".hidden tmem_trap_restorer\n"
	".type tmem_trap_restorer, @function\n"
	"tmem_trap_restorer:\n\t"
	"mov $15, %eax\n\t" /* rt_sigreturn */
	"syscall\n\t"
	"hlt\n"
	".popsection");

static int32_t my_tid(void)
{
	return (int32_t)tmem_sys(SYS_gettid);
}

static void set_mask(uint64_t mask, uint64_t *ret_old)
{
	tmem_sys(SYS_rt_sigprocmask, SIG_SETMASK, &mask, ret_old, sizeof(mask));
}

/* rt_sigprocmask within the window. */
static long change_mask(long how, const uint64_t *set, uint64_t *ret_old,
			size_t bytes)
{
	uint64_t old = window.mask;

	if (bytes != sizeof(old))
		return -EINVAL;
	if (set) {
		uint64_t bits = *set & ~(BIT(SIGKILL) | BIT(SIGSTOP));

		if (how == SIG_BLOCK)
			window.mask |= bits;
		else if (how == SIG_UNBLOCK)
			window.mask &= ~bits;
		else if (how == SIG_SETMASK)
			window.mask = bits;
		else
			return -EINVAL;
	}
	if (ret_old)
		*ret_old = old;
	return 0;
}

/* What both processes do after the clone; only the parent has the dispatch. */
static void shut(bool in_child)
{
	if (!in_child)
		tmem_sys(SYS_prctl, PR_SET_SYSCALL_USER_DISPATCH,
			 PR_SYS_DISPATCH_OFF, 0, 0, 0);
	tmem_sys(SYS_rt_sigaction, SIGSYS, &window.old, NULL, sizeof(uint64_t));
	atomic_store(&window.owner, 0);
}

static long *registers_of(ucontext_t *c)
{
	return (long *)c->uc_mcontext.gregs;
}

/* Is this a new process with memory of its own?  Then what it asks for. */
static bool is_birth(const long *regs, struct tmem_birth_call *ret_call)
{
	struct tmem_birth_call call = { .flags = SIGCHLD };
	const struct clone_args *args =
		tmem_sys_pointer((uint64_t)regs[REG_RDI]);

	if (regs[REG_RAX] == SYS_clone) {
		call = (struct tmem_birth_call){
			.flags = (uint64_t)regs[REG_RDI],
			.stack = (uint64_t)regs[REG_RSI],
			.parent_tid = (uint64_t)regs[REG_RDX],
			.child_tid = (uint64_t)regs[REG_R10],
			.tls = (uint64_t)regs[REG_R8],
			.pidfd = (uint64_t)regs[REG_RDX],
		};
	} else if (regs[REG_RAX] == SYS_clone3) {
		call = (struct tmem_birth_call){
			.flags = args->flags | args->exit_signal,
			.stack = args->stack ? args->stack + args->stack_size
					     : 0,
			.parent_tid = args->parent_tid,
			.child_tid = args->child_tid,
			.tls = args->tls,
			.pidfd = args->pidfd,
		};
	} else if (regs[REG_RAX] != SYS_fork) {
		return false;
	}
	*ret_call = call;
	return !(call.flags & CLONE_VM);
}

static void give_birth(ucontext_t *c, const struct tmem_birth_call *call)
{
	struct tmem_pager *pager = tmem_pager;
	long *regs = registers_of(c);
	long r = tmem_birth(pager, call);

	shut(r == 0);
	if (r == 0 && call->stack)
		regs[REG_RSP] = (long)call->stack;
	if (r != 0)
		tmem_gate_end(pager);
	memcpy(&c->uc_sigmask, &window.mask, sizeof(window.mask));
	regs[REG_RAX] = r;
}

/* A system call in the window. */
static void on_call(ucontext_t *c)
{
	long *regs = registers_of(c);
	struct tmem_birth_call call;

	if (is_birth(regs, &call)) {
		give_birth(c, &call);
		return;
	}
	switch (regs[REG_RAX]) {
	case SYS_rt_sigprocmask:
		regs[REG_RAX] =
			change_mask(regs[REG_RDI],
				    tmem_sys_pointer((uint64_t)regs[REG_RSI]),
				    tmem_sys_pointer((uint64_t)regs[REG_RDX]),
				    (size_t)regs[REG_R10]);
		break;
	case SYS_rt_sigreturn: /* from where its frame is */
		regs[REG_RIP] = (long)(uintptr_t)tmem_trap_restorer;
		break;
	case SYS_clone:
	case SYS_clone3:
	case SYS_vfork:
		/* In this memory, on a stack of its own: only by itself. */
		tmem_trap_close();
		memcpy(&c->uc_sigmask, &window.mask, sizeof(window.mask));
		regs[REG_RIP] -= 2;
		break;
	default:
		regs[REG_RAX] =
			tmem_sys6(regs[REG_RAX], regs[REG_RDI], regs[REG_RSI],
				  regs[REG_RDX], regs[REG_R10], regs[REG_R8],
				  regs[REG_R9]);
		break;
	}
}

static void on_signal(int signal, siginfo_t *info, void *context)
{
	if (info->si_code == SIGSYS_BY_DISPATCH &&
	    atomic_load(&window.owner) == my_tid())
		on_call(context);
	else if ((uintptr_t)window.old.handler > 1) /* a filter's, elsewhere */
		window.old.handler(signal, info, context);
}

static bool dispatch(void)
{
	const struct action ours = { .handler = on_signal,
				     .flags = SA_SIGINFO | RESTORER,
				     .restorer = tmem_trap_restorer,
				     .mask = ~BY_FAULT };

	if (tmem_sys(SYS_rt_sigaction, SIGSYS, &ours, &window.old,
		     sizeof(uint64_t)) < 0)
		return false;
	if (tmem_sys(SYS_prctl, PR_SET_SYSCALL_USER_DISPATCH,
		     PR_SYS_DISPATCH_ON, __ehdr_start, etext - __ehdr_start,
		     0) == 0)
		return true;
	tmem_sys(SYS_rt_sigaction, SIGSYS, &window.old, NULL, sizeof(uint64_t));
	return false;
}

void tmem_trap_open(void)
{
	struct tmem_pager *pager = tmem_start_serving();
	uint64_t old = 0;

	if (!tmem_trap_wanted(pager) || atomic_load(&window.owner) == my_tid())
		return;
	set_mask(~BY_FAULT, &old);
	set_mask((~BY_FAULT | old) & ~BIT(SIGSYS), NULL);
	if (!tmem_gate_begin(pager)) {
		set_mask(old, NULL);
		return;
	}
	window.mask = old;
	atomic_store(&window.owner, my_tid());
	tmem_gate_call(pager, GATE_BIRTH_ASK);
	window.without = pager->gate.untrapped || !dispatch();
	if (window.without) {
		set_mask(old, NULL);
		tmem_gate_call(pager, GATE_FORK_WHOLE);
	}
}

void tmem_trap_close(void)
{
	struct tmem_pager *pager = tmem_pager;

	if (!tmem_trap_wanted(pager) || atomic_load(&window.owner) != my_tid())
		return;
	if (window.without) {
		atomic_store(&window.owner, 0);
		tmem_gate_call(pager, GATE_FORK_END);
	} else {
		shut(false);
		set_mask(window.mask, NULL);
	}
	tmem_gate_end(pager);
}

void tmem_trap_child(void)
{
	struct tmem_pager *pager = tmem_pager;

	if (!tmem_trap_wanted(pager) || !atomic_load(&window.owner) ||
	    !window.without || pager->program_pid == tmem_sys(SYS_getpid))
		return;
	atomic_store(&window.owner, 0);
	tmem_start_in_child(pager);
}

__attribute__((constructor)) static void watch_forks(void)
{
	pthread_atfork(tmem_trap_open, tmem_trap_close, tmem_trap_child);
}
