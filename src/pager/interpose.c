/* SPDX-License-Identifier: MIT */
/*
 * The libc functions that we stand in for, and nothing else:
 *   fork, _Fork           the child's copy of our memory must be whole;
 *   clone, syscall        so must be that of a fork by these, where forks are
 *                         trapped (trap.h); all else goes by unseen;
 *   exec*, posix_spawn*   programs that can't be paged are reported;
 *   madvise               wipe-on-fork ranges stay out; guard pages drop
 *                         what was evicted there (no event tells of it);
 *                         what is to be populated is so piece by piece;
 *   mmap                  so is a new mapping: as one call it would fill any
 *                         amount of memory before we could see a page of it;
 *   mlockall              must not lock our memory;
 *   pthread_mutex_init    robust mutexes are touched at a thread's exit.
 * Whoever calls the kernel directly gets what gate.h says of raw forks, and
 * what tmem-run(1) says of the others.
 *
 * The real functions are found once, at load, with the dlsym of libc 2.2.5,
 * so that the library loads on old systems too.
 */
#include <alloca.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/exe.h"
#include "base/sys.h"
#include "gate.h"
#include "link.h"
#include "start.h"
#include "trap.h"

#define EXPORT __attribute__((visibility("default")))

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif

__asm__(".symver dlsym, dlsym@GLIBC_2.2.5");

enum {
	PATH_ROOM = 4096,
	POPULATE_BYTES = 1 << 20
};

static struct {
	pid_t (*fork)(void);
	pid_t (*fork_raw)(void); /* _Fork */
	int (*execvpe)(const char *, char *const[], char *const[]);
	int (*posix_spawn)(pid_t *, const char *,
			   const posix_spawn_file_actions_t *,
			   const posix_spawnattr_t *, char *const[],
			   char *const[]);
	int (*posix_spawnp)(pid_t *, const char *,
			    const posix_spawn_file_actions_t *,
			    const posix_spawnattr_t *, char *const[],
			    char *const[]);
	int (*mutex_init)(pthread_mutex_t *, const pthread_mutexattr_t *);
	int (*getrobust)(const pthread_mutexattr_t *, int *);
	void *(*mmap)(void *, size_t, int, int, int, off_t);
} real;

/* Where tmem_interpose_syscall and _clone jump to. */
long (*tmem_real_syscall)(long, long, long, long, long, long, long)
	__attribute__((visibility("hidden")));
int (*tmem_real_clone)(int (*)(void *), void *, int, void *, void *, void *,
		       void *) __attribute__((visibility("hidden")));

/* dlsym gives a data pointer; the way POSIX says to make it a function. */
static void find(void *ret_function, const char *name)
{
	void *symbol = dlsym(RTLD_NEXT, name);

	memcpy(ret_function, &symbol, sizeof(symbol));
}

__attribute__((constructor(101))) static void find_real(void)
{
	find(&real.fork, "fork");
	find(&real.fork_raw, "_Fork");
	find(&real.execvpe, "execvpe");
	find(&real.posix_spawn, "posix_spawn");
	find(&real.posix_spawnp, "posix_spawnp");
	find(&real.mutex_init, "pthread_mutex_init");
	find(&real.getrobust, "pthread_mutexattr_getrobust");
	find(&real.mmap, "mmap");
	find(&tmem_real_clone, "clone");
	find(&tmem_real_syscall, "syscall");
}

/* Raw result to libc's: -1 and errno. */
static int libc_result(long r)
{
	if (r >= 0)
		return (int)r;
	errno = (int)-r;
	return -1;
}

static pid_t fork_by(pid_t (*function)(void))
{
	struct tmem_pager *pager = tmem_start_serving();
	pid_t pid;
	int error;

	if (!function)
		return libc_result(-ENOSYS);
	if (tmem_trap_wanted(pager))
		return function(); /* an atfork handler opens the window */
	if (!pager || !tmem_gate_begin(pager))
		return function();
	tmem_gate_call(pager, GATE_FORK_BEGIN);
	pid = function();
	if (pid == 0) {
		tmem_start_in_child(pager);
		return 0;
	}
	error = errno;
	atomic_store(&pager->gate.fork_pid, pid < 0 ? -error : pid);
	tmem_gate_call(pager, GATE_FORK_END);
	tmem_gate_end(pager);
	errno = error;
	return pid;
}

/* By what the window does not see the end of. */
static void after_fork(long pid)
{
	int error = errno;

	if (pid == 0)
		tmem_trap_child();
	else
		tmem_trap_close();
	errno = error;
}

EXPORT pid_t fork(void)
{
	return fork_by(real.fork);
}

EXPORT pid_t __fork(void);
EXPORT pid_t __fork(void)
{
	return fork_by(real.fork);
}

EXPORT pid_t _Fork(void)
{
	pid_t pid;

	if (!tmem_trap_wanted(tmem_start_serving()) || !real.fork_raw)
		return fork_by(real.fork_raw);
	tmem_trap_open();
	pid = real.fork_raw();
	after_fork(pid);
	return pid;
}

/*
 * syscall() and clone() may come back on another stack, or twice on this one:
 * what is not for us is passed on with registers and stack as they are.
 */
__asm__(".pushsection .text\n"
	".globl syscall\n"
	".type syscall, @function\n"
	"syscall:\n\t"
	"cmp $57, %rdi\n\t" /* fork */
	"je 1f\n\t"
	"cmp $56, %rdi\n\t" /* clone */
	"je 1f\n\t"
	"cmp $435, %rdi\n\t" /* clone3 */
	"je 1f\n"
	"0:\tmov tmem_real_syscall(%rip), %rax\n\t"
	"test %rax, %rax\n\t"
	"jz tmem_early_syscall\n\t"
	"jmp *%rax\n"
	"1:\tpush %rdi\n\tpush %rsi\n\tpush %rdx\n\t"
	"push %rcx\n\tpush %r8\n\tpush %r9\n\tsub $8, %rsp\n\t"
	"call tmem_is_fork\n\t"
	"add $8, %rsp\n\t"
	"pop %r9\n\tpop %r8\n\tpop %rcx\n\t"
	"pop %rdx\n\tpop %rsi\n\tpop %rdi\n\t"
	"test %eax, %eax\n\t"
	"jz 0b\n\t"
	"jmp tmem_fork_by_syscall\n\t"
	".size syscall, .-syscall\n"
	".globl clone\n"
	".type clone, @function\n"
	"clone:\n\t"
	"test $0x100, %edx\n\t" /* CLONE_VM */
	"jz tmem_fork_by_clone\n\t"
	"jmp *tmem_real_clone(%rip)\n\t"
	".size clone, .-clone\n"
	".popsection");

/* Called from there. */
int tmem_is_fork(long nr, long arg) __attribute__((visibility("hidden"), used));
long tmem_early_syscall(long nr, long a, long b, long c, long d, long e, long f)
	__attribute__((visibility("hidden"), used));
long tmem_fork_by_syscall(long nr, long a, long b, long c, long d, long e,
			  long f) __attribute__((visibility("hidden"), used));
int tmem_fork_by_clone(int (*fn)(void *), void *stack, int flags, void *arg,
		       void *parent_tid, void *tls, void *child_tid)
	__attribute__((visibility("hidden"), used));

int tmem_is_fork(long nr, long arg)
{
	const struct clone_args *args = tmem_sys_pointer((uint64_t)arg);

	if (!tmem_real_syscall || !tmem_trap_wanted(tmem_start_serving()))
		return 0;
	if (nr == SYS_clone3)
		return args && !(args->flags & CLONE_VM);
	return nr == SYS_fork || !((uint64_t)arg & CLONE_VM);
}

/* An allocator may come here before any constructor has run. */
long tmem_early_syscall(long nr, long a, long b, long c, long d, long e, long f)
{
	long r = tmem_sys6(nr, a, b, c, d, e, f);

	if (r >= 0 || r < -4095)
		return r;
	errno = (int)-r;
	return -1;
}

long tmem_fork_by_syscall(long nr, long a, long b, long c, long d, long e,
			  long f)
{
	long r;

	tmem_trap_open();
	r = tmem_real_syscall(nr, a, b, c, d, e, f);
	after_fork(r);
	return r;
}

/* The child does not come back here. */
int tmem_fork_by_clone(int (*fn)(void *), void *stack, int flags, void *arg,
		       void *parent_tid, void *tls, void *child_tid)
{
	int r;

	if (tmem_trap_wanted(tmem_start_serving()))
		tmem_trap_open();
	r = tmem_real_clone(fn, stack, flags, arg, parent_tid, tls, child_tid);
	after_fork(r);
	return r;
}

static bool has(char *const env[], const char *name, const char *value)
{
	size_t len = strlen(name);

	for (; env && *env; env++)
		if (strncmp(*env, name, len) == 0 && (*env)[len] == '=')
			return strstr(*env + len + 1, value) != NULL;
	return false;
}

static uint32_t reason_of(enum tmem_exe_kind kind)
{
	switch (kind) {
	case TMEM_EXE_STATIC:
		return TMEM_NOT_PAGED_STATIC;
	case TMEM_EXE_SETUID:
		return TMEM_NOT_PAGED_SETUID;
	case TMEM_EXE_MUSL:
	case TMEM_EXE_LOADER:
	case TMEM_EXE_MACHINE:
		return TMEM_NOT_PAGED_LOADER;
	default:
		return 0;
	}
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* Before an exec: if we can't follow, says so. */
static void tell(int dir_fd, const char *path, char *const env[])
{
	uint32_t reason;

	if (!tmem_pager)
		return;
	reason = reason_of(tmem_exe_classify_at(dir_fd, path));
	if (!reason && !(has(env, "LD_PRELOAD", "libtmem-pager.so") &&
			 has(env, TMEM_TREE_ENV, tmem_pager->tree_name)))
		reason = TMEM_NOT_PAGED_ENV;
	/* The old memory goes as soon as the pager sees the new one. */
	if (reason)
		tmem_link_not_paged(tmem_pager->tree_name,
				    (int)tmem_sys(SYS_getpid), reason,
				    base_name(path));
}

/* The same for a name that is looked up in PATH. */
static void tell_path(const char *name, char *const env[])
{
	const char *path = getenv("PATH");
	char full[PATH_ROOM];

	if (!tmem_pager)
		return;
	if (strchr(name, '/')) {
		tell(AT_FDCWD, name, env);
		return;
	}
	while (path && *path) {
		const char *end = strchrnul(path, ':');
		size_t len = (size_t)(end - path);

		if (len + strlen(name) + 2 < sizeof(full)) {
			memcpy(full, path, len);
			full[len] = '/';
			memcpy(full + len + 1, name, strlen(name) + 1);
			if (tmem_sys(SYS_access, full, X_OK) == 0) {
				tell(AT_FDCWD, full, env);
				return;
			}
		}
		path = *end ? end + 1 : end;
	}
}

EXPORT int execve(const char *path, char *const argv[], char *const envp[])
{
	tell(AT_FDCWD, path, envp);
	return libc_result(tmem_sys(SYS_execve, path, argv, envp));
}

EXPORT int execv(const char *path, char *const argv[])
{
	return execve(path, argv, environ);
}

EXPORT int execvpe(const char *file, char *const argv[], char *const envp[])
{
	tell_path(file, envp);
	return real.execvpe(file, argv, envp);
}

EXPORT int execvp(const char *file, char *const argv[])
{
	return execvpe(file, argv, environ);
}

EXPORT int fexecve(int fd, char *const argv[], char *const envp[])
{
	tell(fd, "", envp);
	return libc_result(
		tmem_sys(SYS_execveat, fd, "", argv, envp, AT_EMPTY_PATH));
}

EXPORT int execveat(int fd, const char *path, char *const argv[],
		    char *const envp[], int flags)
{
	tell(fd, path, envp);
	return libc_result(tmem_sys(SYS_execveat, fd, path, argv, envp, flags));
}

static size_t count_arguments(const char *first, va_list *rest)
{
	size_t n = 0;

	while (first) {
		first = va_arg(*rest, const char *);
		n++;
	}
	return n;
}

/* With the NULL, so that `rest` is behind it. */
static void collect_arguments(char **argv, const char *first, va_list *rest)
{
	*argv = tmem_sys_pointer((uintptr_t)first);
	while (*argv)
		*++argv = va_arg(*rest, char *);
}

/* The arguments of an execl as an array, on the caller's stack. */
#define GATHER(argv, first, rest)                                       \
	do {                                                            \
		va_start(rest, first);                                  \
		(argv) = alloca((count_arguments(first, &(rest)) + 1) * \
				sizeof(*(argv)));                       \
		va_end(rest);                                           \
		va_start(rest, first);                                  \
		collect_arguments(argv, first, &(rest));                \
	} while (0)

EXPORT int execl(const char *path, const char *arg, ...)
{
	char **argv;
	va_list rest;

	GATHER(argv, arg, rest);
	va_end(rest);
	return execve(path, argv, environ);
}

EXPORT int execlp(const char *file, const char *arg, ...)
{
	char **argv;
	va_list rest;

	GATHER(argv, arg, rest);
	va_end(rest);
	return execvpe(file, argv, environ);
}

EXPORT int execle(const char *path, const char *arg, ...)
{
	char **argv, *const *envp;
	va_list rest;

	GATHER(argv, arg, rest);
	envp = va_arg(rest, char *const *);
	va_end(rest);
	return execve(path, argv, envp);
}

EXPORT int posix_spawn(pid_t *pid, const char *path,
		       const posix_spawn_file_actions_t *file_actions,
		       const posix_spawnattr_t *attrp, char *const argv[],
		       char *const envp[])
{
	tell(AT_FDCWD, path, envp);
	return real.posix_spawn(pid, path, file_actions, attrp, argv, envp);
}

EXPORT int posix_spawnp(pid_t *pid, const char *file,
			const posix_spawn_file_actions_t *file_actions,
			const posix_spawnattr_t *attrp, char *const argv[],
			char *const envp[])
{
	tell_path(file, envp);
	return real.posix_spawnp(pid, file, file_actions, attrp, argv, envp);
}

static void ask_for_range(enum tmem_gate_command command, uintptr_t start,
			  size_t bytes)
{
	struct tmem_pager *pager = tmem_start_serving();

	if (!pager || !bytes || !tmem_gate_begin(pager))
		return;
	pager->gate.range_start = start & ~4095ull;
	pager->gate.range_end = (start + bytes + 4095) & ~4095ull;
	tmem_gate_call(pager, command);
	tmem_gate_end(pager);
}

/*
 * Where forks are trapped, what is watched is marked MADV_DONTFORK by us: the
 * program's own wish is kept beside.
 */
static int keep_home(void *addr, size_t len, int advice)
{
	long r = tmem_sys(SYS_madvise, addr, len, advice);

	if (r == 0)
		ask_for_range(advice == MADV_DONTFORK ? GATE_HOME
						      : GATE_NO_HOME,
			      (uintptr_t)addr, len);
	return libc_result(r);
}

/*
 * MADV_POPULATE_READ or _WRITE as many calls, as the kernel itself works: page
 * by page, up to the first error.  Between two of them the pager gets its turn.
 */
static long populate(void *addr, size_t len, int advice)
{
	char *at = addr;
	long r = 0;

	if (!tmem_pager || (uintptr_t)addr > UINTPTR_MAX - len)
		return tmem_sys(SYS_madvise, addr, len, advice);
	do {
		size_t piece = len < POPULATE_BYTES ? len : POPULATE_BYTES;

		r = tmem_sys(SYS_madvise, at, piece, advice);
		at += piece;
		len -= piece;
	} while (r == 0 && len);
	return r;
}

static void *map_for_real(void *addr, size_t len, int prot, int flags, int fd,
			  off_t offset)
{
	long r;

	if (real.mmap)
		return real.mmap(addr, len, prot, flags, fd, offset);
	r = tmem_sys(SYS_mmap, addr, len, prot, flags, fd, offset);
	if (r > -4096 && r < 0)
		return tmem_sys_pointer((uintptr_t)libc_result(r));
	return tmem_sys_pointer((uintptr_t)r);
}

EXPORT void *mmap(void *addr, size_t len, int prot, int flags, int fd,
		  off_t offset)
{
	const int anonymous = MAP_ANONYMOUS | MAP_PRIVATE;
	void *p;

	/* A reserve is not populated, nor if it is not to wait. */
	if (!(flags & MAP_POPULATE) || (flags & MAP_NONBLOCK) || !tmem_pager ||
	    (flags & anonymous) != anonymous || prot == PROT_NONE)
		return map_for_real(addr, len, prot, flags, fd, offset);
	p = map_for_real(addr, len, prot, flags & ~MAP_POPULATE, fd, offset);
	/* The mapping is there, whether all of its memory is or not. */
	if (p != MAP_FAILED)
		populate(p, len,
			 prot & PROT_WRITE ? MADV_POPULATE_WRITE
					   : MADV_POPULATE_READ);
	return p;
}

/* The header makes the name above mmap64's: with 64 bits they are one. */
EXPORT void *map_plain(void *addr, size_t len, int prot, int flags, int fd,
		       off_t offset) __asm__("mmap");
EXPORT void *map_plain(void *addr, size_t len, int prot, int flags, int fd,
		       off_t offset)
{
	return mmap(addr, len, prot, flags, fd, offset);
}

EXPORT int madvise(void *addr, size_t len, int advice)
{
	if (advice == MADV_POPULATE_READ || advice == MADV_POPULATE_WRITE)
		return libc_result(populate(addr, len, advice));
	if (advice == MADV_WIPEONFORK)
		ask_for_range(GATE_LEAVE_OUT, (uintptr_t)addr, len);
	else if (tmem_trap_wanted(tmem_pager) &&
		 (advice == MADV_DONTFORK || advice == MADV_DOFORK))
		return keep_home(addr, len, advice);
	else if (advice == MADV_GUARD_INSTALL)
		tmem_sys(SYS_madvise, addr, len, MADV_DONTNEED);
	return libc_result(tmem_sys(SYS_madvise, addr, len, advice));
}

EXPORT int mlockall(int flags)
{
	struct tmem_pager *pager = tmem_start_serving();
	long r = tmem_sys(SYS_mlockall, flags);

	if (r == 0 && pager && tmem_gate_begin(pager)) {
		tmem_gate_call(pager, GATE_UNLOCK);
		tmem_gate_end(pager);
	}
	return libc_result(r);
}

EXPORT int pthread_mutex_init(pthread_mutex_t *mutex,
			      const pthread_mutexattr_t *attr)
{
	int robust = PTHREAD_MUTEX_STALLED;

	if (attr && real.getrobust && real.getrobust(attr, &robust) == 0 &&
	    robust == PTHREAD_MUTEX_ROBUST)
		ask_for_range(GATE_PIN, (uintptr_t)mutex, sizeof(*mutex));
	/* An allocator may come here before any constructor has run. */
	if (!real.mutex_init)
		find_real();
	return real.mutex_init(mutex, attr);
}
