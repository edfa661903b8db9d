/* SPDX-License-Identifier: MIT */
/*
 * The keeper's life.  See keeper.h for who does what.
 *
 *   tmem run  ----fork---->  keeper  ----fork---->  program
 *   (front: waits,           (subreaper, own        (the caller's session
 *    terminal, signals)       session, serves)       and process group)
 *
 * The keeper leaves the session after it has started the program, so the
 * terminal's signals reach front and program, but never the keeper.  When
 * the program has ended, the front goes home with its status at once; if
 * others of the tree live on (a daemon), the keeper stays for them, in the
 * background, until no child is left to it.
 *
 * It looks at the budget page at every tick: often while something happens,
 * once a second while nothing does.
 */
#include "cli/keeper.h"

#include "base/assert.h"
#include "cli/cli.h"
#include "cli/front.h"
#include "cli/probe.h"
#include "cli/proc.h"
#include "cli/program.h"
#include "wire/stalls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <tmem/swapfile.h>
#include <unistd.h>

#define FAST_TICK_NS	(50 * TMEM_MS)
#define TICK_NS		(100 * TMEM_MS)
#define IDLE_TICK_NS	(1000 * TMEM_MS)
#define SCAN_NS		(1 * TMEM_S)
#define RESCAN_NS	(200 * TMEM_MS)
#define WEIGH_NS	(10 * TMEM_S)
#define OTHERS_GRACE_NS (100 * TMEM_MS)
#define PAGER_GRACE_NS	(10 * TMEM_S)

uint64_t tmem_keeper_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * TMEM_S + (uint64_t)ts.tv_nsec;
}

int tmem_keeper_watch(struct tmem_keeper *k, int fd,
		      enum tmem_keeper_event event, unsigned index)
{
	struct epoll_event e = { .events = EPOLLIN };

	e.data.u64 = (uint64_t)event << 32 | index;
	return epoll_ctl(k->epoll_fd, EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
}

pid_t tmem_keeper_fork_writer(int fd)
{
	pid_t pid = fork();

	/*
	 * It may take long: its copies of our descriptors would keep what we
	 * close open, for those at the other ends and for our epoll.
	 */
	if (pid == 0) {
		dup2(fd, STDOUT_FILENO);
		close_range(STDERR_FILENO + 1, ~0u, 0);
	}
	return pid;
}

void tmem_keeper_say(struct tmem_keeper *k, const char *format, ...)
{
	char text[512];
	va_list args;
	pid_t pid;

	(void)k;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	pid = tmem_keeper_fork_writer(STDERR_FILENO);
	if (pid == 0) {
		tmem_cli_warn("%s", text);
		_exit(0);
	}
}

void tmem_keeper_signal_main(struct tmem_keeper *k, int sig)
{
	if (k->main_ended)
		return;
	if (k->main_pid_fd >= 0)
		syscall(SYS_pidfd_send_signal, k->main_pid_fd, sig, NULL, 0);
	else
		kill(k->main_pid, sig);
}

static int open_budget(struct tmem_keeper *k)
{
	size_t bytes = sizeof(*k->tree);
	int fd = memfd_create("tmem-budget", MFD_CLOEXEC);

	if (k->options->profile)
		bytes = TMEM_STALL_LOG_OFFSET + sizeof(struct tmem_stall_log);
	if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
		return -errno;
	k->tree = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (k->tree == MAP_FAILED)
		return -errno;
	k->budget_fd = fd;
	k->tree->magic = TMEM_TREE_MAGIC;
	k->tree->version = TMEM_TREE_VERSION;
	k->tree->nr_slots = TMEM_TREE_SLOTS;
	k->tree->on_full = k->options->on_full;
	k->memory = k->options->memory;
	k->asked_bytes = k->options->limit_bytes;
	k->tree->without = k->options->without;
	if (k->options->profile)
		k->tree->stall_log = TMEM_STALL_LOG_ENTRIES;
	atomic_store(&k->tree->limit_bytes, k->options->limit_bytes);
	atomic_store(&k->tree->avail_bytes, (int64_t)k->options->limit_bytes);
	tmem_slots_init(k);
	return 0;
}

static int open_socket(struct tmem_keeper *k)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	unsigned char bytes[16];
	size_t i, len;

	if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
		return -EIO;
	strcpy(k->tree_name, TMEM_TREE_PREFIX);
	len = strlen(k->tree_name);
	for (i = 0; i < sizeof(bytes); i++, len += 2)
		sprintf(k->tree_name + len, "%02x", bytes[i]);
	memcpy(address.sun_path + 1, k->tree_name, len);
	k->listen_fd = socket(AF_UNIX,
			      SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (k->listen_fd < 0 ||
	    bind(k->listen_fd, (struct sockaddr *)&address,
		 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
			     len)) < 0 ||
	    listen(k->listen_fd, TMEM_TREE_SLOTS) < 0)
		return -errno;
	return 0;
}

int tmem_keeper_open(struct tmem_keeper *k)
{
	int r;

	k->root = "";
	k->uid = geteuid();
	k->main_pid_fd = k->signal_fd = k->front_fd = -1;
	k->device_fd = tmem_probe_open_device();
	if (k->device_fd < 0)
		k->device_fd = -1;
	r = open_budget(k);
	if (r == 0)
		r = open_socket(k);
	k->swap_map_fd = -1; /* --swap-max 0: there is no file to map */
	if (r == 0 && k->swap.fd >= 0) {
		k->swap_map_fd =
			tmem_swapmap_create(k->swap.max_pages, TMEM_TREE_SLOTS);
		r = k->swap_map_fd < 0 ? k->swap_map_fd : 0;
	}
	if (r == 0) {
		k->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
		r = k->epoll_fd < 0 ? -errno : 0;
	}
	if (r < 0)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "cannot prepare the budget: %s; free "
				     "memory or descriptors (ulimit -n)",
				     strerror(-r));
	return 0;
}

int tmem_keeper_exec_program(const struct tmem_keeper *k,
			     const sigset_t *original_mask)
{
	char *const *argv = k->options->program;
	int r = tmem_program_set_environment(k->pager_path, k->tree_name);

	if (r < 0)
		return -r;
	if (k->sigchld_ignored)
		signal(SIGCHLD, SIG_IGN);
	sigprocmask(SIG_SETMASK, original_mask, NULL);
	execvp(argv[0], argv);
	return errno;
}

/* In the child.  Writes errno to `error_fd` if there is no program. */
static void become_program(struct tmem_keeper *k, int error_fd,
			   const sigset_t *original_mask)
{
	int error = tmem_keeper_exec_program(k, original_mask);

	if (write(error_fd, &error, sizeof(error)) != sizeof(error))
		_exit(TMEM_EXIT_FAIL);
	_exit(TMEM_EXIT_FAIL);
}

/* 0, or the errno that the exec met. */
static int start_program(struct tmem_keeper *k, const sigset_t *original_mask)
{
	int fds[2], error = 0;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return errno;
	k->main_pid = fork();
	if (k->main_pid == 0)
		become_program(k, fds[1], original_mask);
	close(fds[1]);
	if (k->main_pid < 0)
		error = errno;
	else if (read(fds[0], &error, sizeof(error)) != sizeof(error))
		error = 0;
	close(fds[0]);
	return error;
}

static void become_keeper(struct tmem_keeper *k)
{
	struct rlimit files;
	sigset_t set;

	sigfillset(&set);
	sigprocmask(SIG_SETMASK, &set, NULL);
	setsid();
	if (chdir("/") < 0)
		TMEM_ASSERT(errno == EACCES);
	tmem_front_let_go();
	prctl(PR_SET_NAME, TMEM_KEEPER_COMM);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	k->spare_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	k->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	TMEM_ASSERT(k->signal_fd >= 0);
	tmem_keeper_watch(k, k->signal_fd, TMEM_EVENT_SIGNAL, 0);
	tmem_keeper_watch(k, k->listen_fd, TMEM_EVENT_LISTEN, 0);
	tmem_keeper_watch(k, k->front_fd, TMEM_EVENT_FRONT, 0);
}

static void tell_front(struct tmem_keeper *k, uint32_t type, int value)
{
	struct tmem_front_message m = { .type = type, .value = value };

	if (k->front_fd >= 0)
		send(k->front_fd, &m, sizeof(m), MSG_NOSIGNAL);
}

static void lose_front(struct tmem_keeper *k)
{
	if (k->front_fd >= 0)
		close(k->front_fd);
	k->front_fd = -1;
}

static void read_front(struct tmem_keeper *k)
{
	struct tmem_front_message m;
	struct tmem_proc proc;
	ssize_t n = recv(k->front_fd, &m, sizeof(m), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n != sizeof(m)) {
		lose_front(k);
		return;
	}
	if (m.type != TMEM_FRONT_SIGNAL || k->main_ended)
		return;
	if (m.value == SIGCONT) {
		tmem_limits_resume(k);
		/* The shell continues whole process groups: once is enough. */
		if (tmem_proc_read(k->main_pid, &proc) == 0 &&
		    proc.state != 'T')
			return;
	}
	/* A program that signals its own process group has it already. */
	if (m.sender > 0 && tmem_proc_descends(m.sender, k->main_pid))
		return;
	tmem_keeper_signal_main(k, m.value);
}

static void main_has_ended(struct tmem_keeper *k)
{
	k->main_ended = true;
	k->end_ns = tmem_keeper_now_ns();
	k->next_tick_ns = k->end_ns;
}

static uint64_t ns_of(const struct timeval *tv)
{
	return (uint64_t)tv->tv_sec * TMEM_S + (uint64_t)tv->tv_usec * 1000;
}

static bool is_pager(struct tmem_keeper *k, pid_t pid)
{
	int i;

	for (i = 0; i < TMEM_GONE_PAGERS; i++) {
		if (k->gone_pagers[i] != pid)
			continue;
		k->gone_pagers[i] = 0;
		return true;
	}
	for (i = 0; i < TMEM_MAX_CONNS; i++)
		if (k->conns[i].fd >= 0 && k->conns[i].pid == pid)
			return true;
	return false;
}

static void reap_children(struct tmem_keeper *k)
{
	struct rusage usage;
	int status;
	pid_t pid;

	for (;;) {
		pid = wait4(-1, &status,
			    WNOHANG | WUNTRACED | WCONTINUED | __WALL, &usage);
		if (pid <= 0)
			break;
		if (pid == k->main_pid && WIFSTOPPED(status))
			tell_front(k, TMEM_FRONT_STOPPED, WSTOPSIG(status));
		else if (pid == k->main_pid && WIFCONTINUED(status))
			tmem_limits_resume(k);
		if (WIFSTOPPED(status) || WIFCONTINUED(status))
			continue;
		if (pid == k->stats_pid) {
			k->stats_pid = 0;
			continue;
		}
		/* Pagers count their CPU time themselves. */
		if (!is_pager(k, pid))
			k->cpu_ns +=
				ns_of(&usage.ru_utime) + ns_of(&usage.ru_stime);
		if (pid != k->main_pid)
			continue;
		k->main_status = status;
		k->main_status_known = true;
		main_has_ended(k);
	}
	k->no_children = pid < 0 && errno == ECHILD;
}

/* The keeper's own memory is part of the budget, and its helpers'. */
static void weigh(struct tmem_keeper *k)
{
	uint64_t bytes = tmem_proc_memory_bytes(getpid());
	uint64_t old = atomic_load(&k->tree->keeper_bytes);

	if (k->front_fd >= 0)
		bytes += tmem_proc_memory_bytes(k->front_pid);
	bytes += tmem_profile_memory_bytes(&k->profile);
	if (bytes > k->asked_bytes / 2)
		bytes = k->asked_bytes / 2;
	atomic_store(&k->tree->keeper_bytes, bytes);
	atomic_fetch_sub(&k->tree->avail_bytes, (int64_t)bytes - (int64_t)old);
}

static void look_at_main(struct tmem_keeper *k)
{
	struct tmem_proc proc;

	if (k->main_pid_fd >= 0 && tmem_proc_read(k->main_pid, &proc) == 0)
		k->main_cpu_ns = proc.cpu_ticks * TMEM_S /
				 (uint64_t)sysconf(_SC_CLK_TCK);
}

/* With the tree's last process gone, or in a child: K4. */
static void say_the_end(struct tmem_keeper *k, unsigned nr_living)
{
	tmem_report_write(k, nr_living);
	tell_front(k, TMEM_FRONT_EXIT, k->main_status);
}

/* The caller may wait for the pipe to close, and has heard what it asked. */
static void let_go_of_stderr(void)
{
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	if (null >= 0) {
		dup2(null, STDERR_FILENO);
		close(null);
	}
}

static void let_front_go(struct tmem_keeper *k, unsigned nr_living)
{
	pid_t pid;

	k->told = true;
	k->others_lived = nr_living != 0;
	if (!k->others_lived)
		tmem_profile_write(k);
	pid = nr_living ? fork() : -1;
	tmem_stats_last(k, k->others_lived);
	if (pid <= 0)
		say_the_end(k, nr_living);
	if (pid == 0)
		_exit(0);
	lose_front(k);
	let_go_of_stderr();
}

/* After the program's end: see who is left. */
static void check_end(struct tmem_keeper *k, uint64_t now)
{
	unsigned others, used;

	if (!k->main_ended)
		return;
	used = tmem_slots_in_use(k, &others);
	if (!k->told) {
		if (!used)
			let_front_go(k, 0);
		else if ((others && now - k->end_ns >= OTHERS_GRACE_NS) ||
			 now - k->end_ns >= PAGER_GRACE_NS)
			let_front_go(k, others);
		return;
	}
	if (used || !(k->no_children || k->main_pid_fd >= 0))
		return;
	/* Whole now, where somebody has lived on. */
	if (k->others_lived)
		tmem_profile_write(k);
	if (k->report_fd >= 0 && k->others_lived)
		tmem_report_write(k, 0);
	if (k->others_lived)
		tmem_stats_last(k, false);
	k->done = true;
}

static uint64_t activity(const struct tmem_keeper *k)
{
	uint64_t sum = 0;
	int i;

	for (i = 0; i < TMEM_TREE_SLOTS; i++) {
		const struct tmem_tree_slot *t = &k->tree->slots[i];

		sum += atomic_load(&t->state) + atomic_load(&t->usage_bytes) +
		       atomic_load(&t->counters.faults_zero) +
		       atomic_load(&t->counters.faults_store) +
		       atomic_load(&t->counters.faults_swap);
	}
	return sum;
}

static void scan(struct tmem_keeper *k, uint64_t now)
{
	bool again = tmem_outside_scan(k);

	look_at_main(k);
	/* At most one per cent of a CPU. */
	k->next_scan_ns = now + (again ? RESCAN_NS : SCAN_NS) +
			  100 * (tmem_keeper_now_ns() - now);
}

static void tick(struct tmem_keeper *k, uint64_t now)
{
	uint64_t sum = activity(k);
	bool busy = sum != k->last_activity;
	bool waiting;

	k->last_activity = sum;
	tmem_slots_sweep(k);
	tmem_slots_sample(k);
	tmem_lost_look(k);
	tmem_follow_tick(k, now);
	tmem_stats_tick(k, now);
	waiting = tmem_share_update(k, now - k->last_tick_ns);
	busy |= tmem_limits_tick(k, now);
	if (now >= k->next_weigh_ns) {
		weigh(k);
		k->next_weigh_ns = now + WEIGH_NS;
	}
	if (now >= k->next_scan_ns && !k->told)
		scan(k, now);
	k->last_tick_ns = now;
	k->next_tick_ns =
		now + (waiting				     ? FAST_TICK_NS
		       : busy || (k->main_ended && !k->told) ? TICK_NS
							     : IDLE_TICK_NS);
	if (k->next_tick_ns > k->next_scan_ns && !k->told)
		k->next_tick_ns = k->next_scan_ns;
	if (k->stats_fd >= 0 && k->next_tick_ns > k->next_stats_ns)
		k->next_tick_ns = k->next_stats_ns;
	if (k->memory.kind == TMEM_AMOUNT_AUTO &&
	    k->next_tick_ns > k->next_follow_ns)
		k->next_tick_ns = k->next_follow_ns;
}

static void dispatch(struct tmem_keeper *k, const struct epoll_event *e)
{
	struct signalfd_siginfo info;
	unsigned index = (unsigned)e->data.u64;

	switch ((enum tmem_keeper_event)(e->data.u64 >> 32)) {
	case TMEM_EVENT_LISTEN:
		tmem_serve_accept(k);
		break;
	case TMEM_EVENT_CONN:
		tmem_serve_conn(k, index);
		break;
	case TMEM_EVENT_PROGRAM:
		if (k->slots[index].pid_fd >= 0 && !k->slots[index].ended)
			tmem_slots_program_ended(k, (int)index);
		break;
	case TMEM_EVENT_SIGNAL:
		while (read(k->signal_fd, &info, sizeof(info)) > 0)
			;
		reap_children(k);
		break;
	case TMEM_EVENT_FRONT:
		read_front(k);
		break;
	case TMEM_EVENT_MAIN:
		look_at_main(k);
		epoll_ctl(k->epoll_fd, EPOLL_CTL_DEL, k->main_pid_fd, NULL);
		main_has_ended(k);
		break;
	}
}

static void serve(struct tmem_keeper *k)
{
	/* One at a time: handling one may close what the next one names. */
	struct epoll_event e;
	bool drained = false;
	uint64_t now;
	int timeout, n;

	reap_children(k);
	while (!k->done) {
		now = tmem_keeper_now_ns();
		timeout = 0;
		if (drained && now < k->next_tick_ns)
			timeout = (int)((k->next_tick_ns - now) / TMEM_MS) + 1;
		n = epoll_wait(k->epoll_fd, &e, 1, timeout);
		if (n > 0)
			dispatch(k, &e);
		drained = n <= 0;
		now = tmem_keeper_now_ns();
		if (now >= k->next_tick_ns)
			tick(k, now);
		/* Not while there is something left to be heard. */
		if (drained)
			check_end(k, now);
	}
}

static void fail_to_start(struct tmem_keeper *k, int error)
{
	int status = error == ENOENT ? TMEM_EXIT_NOTFOUND : TMEM_EXIT_NOEXEC;

	tmem_cli_fail(status,
		      "%s: cannot be started: %s; check it by running "
		      "it without tmem",
		      k->options->program[0], strerror(error));
	tell_front(k, TMEM_FRONT_EXIT, W_EXITCODE(status, 0));
	_exit(0);
}

void tmem_keeper_main(struct tmem_keeper *k, int front_fd, pid_t main_pid,
		      const sigset_t *original_mask)
{
	int error = 0;

	k->front_fd = front_fd;
	tmem_profile_start(k);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	weigh(k);
	k->start_ns = k->stall_step_ns = tmem_keeper_now_ns();
	k->next_weigh_ns = k->next_scan_ns = k->start_ns + SCAN_NS;
	k->next_stats_ns = k->start_ns + k->options->stats_ns;
	k->last_tick_ns = k->next_tick_ns = k->start_ns;
	if (main_pid) {
		k->main_pid = main_pid;
		k->main_pid_fd = (int)syscall(SYS_pidfd_open, main_pid, 0);
		TMEM_ASSERT(k->main_pid_fd >= 0);
		tmem_keeper_watch(k, k->main_pid_fd, TMEM_EVENT_MAIN, 0);
	} else {
		error = start_program(k, original_mask);
	}
	if (error)
		fail_to_start(k, error);
	become_keeper(k);
	tell_front(k, TMEM_FRONT_READY, 0);
	serve(k);
	_exit(0);
}
