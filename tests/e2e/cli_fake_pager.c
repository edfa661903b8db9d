/* SPDX-License-Identifier: MIT */
/*
 * A program that is its own pager, as far as the keeper can tell: it speaks
 * the tree's protocol and does what its arguments say, in order.  Thus the
 * keeper is tested without paging anything.
 *
 *   hello           connect, HELLO for a new slot, map the budget page
 *   refused=ERRNO   the same, but the answer must be that refusal
 *   refused-pid=PID HELLO in the name of another process: must be refused
 *   live, dead      set the slot's state
 *   grant=BYTES     take from avail; all=1 takes all that is there
 *   usage=BYTES, want=BYTES, stored=PAGES, shared=BYTES
 *   count=NAME:N    add to a counter
 *   waited=NS:N     so many faults that waited so long
 *   uffd            make a userfaultfd, have the keeper prepare it
 *   obey            wait for a target, give back down to it
 *   wait-avail=N    until so much is there
 *   wait-limit=N    until the budget is that
 *   wait-growing    until the keeper allows growth
 *   wait-slots=N    until N slots are not free
 *   fork ... end    claim a slot for a child, which does what is between
 *   spawn ... end   a child that has no slot and says nothing
 *   pager ... end   another process in the same memory does it
 *   reap            wait for one child
 *   exec            start anew, without slot, with what follows
 *   swap-full, not-paged=REASON:NAME, claim-all, bad=BYTES
 *   catch=SIG, ignore=SIG, raise=SIG, wait-signal=SIG
 *   tree            print the tree's name
 *   print=TEXT, touch=FILE, wait-file=FILE, close=FD, setsid
 *   hello-for-parent, hello-there: as a pager, or in a pid namespace
 *   stall           wait for paging all the time
 *   check-no-target for as long as the keeper looks a few times
 *   wait-ticks=MS   live that long
 *   exit=STATUS     (default: 0)
 */
#include "base/uffd.h"
#include "wire/message.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	STACK_BYTES = 256 << 10
};

static char **argv;
static int sock = -1, wake_fd = -1, device_fd = -1;
static int slot_nr = TMEM_TREE_NO_SLOT;
static int child_slot = TMEM_TREE_NO_SLOT;
static struct tmem_tree *tree;
static struct tmem_tree_slot *slot;
static volatile sig_atomic_t caught[65];

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "fake pager: %s: %s\n", what, strerror(errno));
	_exit(99);
}

static void require(bool ok, const char *what)
{
	if (!ok)
		die(what);
}

static void nap(void)
{
	poll(NULL, 0, 1);
}

static void send_with_fd(const struct tmem_tree_message *m, int fd)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec iov = { (void *)m, sizeof(*m) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		msg.msg_control = control.bytes;
		msg.msg_controllen = sizeof(control.bytes);
		CMSG_FIRSTHDR(&msg)->cmsg_level = SOL_SOCKET;
		CMSG_FIRSTHDR(&msg)->cmsg_type = SCM_RIGHTS;
		CMSG_FIRSTHDR(&msg)->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), &fd, sizeof(fd));
	}
	require(sendmsg(sock, &msg, MSG_NOSIGNAL) == sizeof(*m), "send");
}

static void connect_tree(void)
{
	const char *name = getenv(TMEM_TREE_ENV);
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	size_t len;

	if (!name)
		die("no TMEM_TREE");
	len = strlen(name);
	memcpy(a.sun_path + 1, name, len);
	sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	require(connect(sock, (struct sockaddr *)&a,
			(socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
				    len)) == 0,
		"connect");
}

/* The answer; descriptors in *ret_fds.  Their number. */
static int receive(struct tmem_tree_message *m, int *ret_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(8 * sizeof(int))];
	} control;
	char buf[256];
	struct iovec iov = { buf, sizeof(buf) };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.bytes,
			      .msg_controllen = sizeof(control.bytes) };
	ssize_t n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	require(n >= 0, "receive");
	require(tmem_tree_message_from_keeper(buf, (size_t)n, m) == 0,
		"bad answer");
	if (!c)
		return 0;
	memcpy(ret_fds, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
	return (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
}

static void say_hello(int pid, struct tmem_tree_message *m, int *fds, int *nr)
{
	connect_tree();
	tmem_tree_message_init(m, TMEM_TREE_HELLO);
	m->pid = pid;
	m->slot = child_slot;
	m->forked = child_slot != TMEM_TREE_NO_SLOT;
	strcpy(m->comm, "fake");
	send_with_fd(m, -1);
	*nr = receive(m, fds);
}

static void hello(int pid)
{
	struct tmem_tree_message m;
	int fds[8], nr, i = 0;

	say_hello(pid, &m, fds, &nr);
	errno = -m.result;
	require(m.type == TMEM_TREE_WELCOME && m.result == 0, "welcome");
	require(nr >= 2 && nr == __builtin_popcount(m.fds), "descriptors");
	require(child_slot == TMEM_TREE_NO_SLOT || child_slot == m.slot,
		"another slot");
	tree = mmap(NULL, sizeof(*tree), PROT_READ | PROT_WRITE, MAP_SHARED,
		    fds[i++], 0);
	require(tree != MAP_FAILED, "budget page");
	require(m.fds & TMEM_TREE_FD_SWAP_MAP, "swap map");
	i++;
	wake_fd = m.fds & TMEM_TREE_FD_WAKE ? fds[i++] : -1;
	if (m.fds & TMEM_TREE_FD_SWAP_FILE)
		require(fcntl(fds[i++], F_GETFL) >= 0, "swap file");
	device_fd = m.fds & TMEM_TREE_FD_UFFD_DEV ? fds[i++] : -1;
	slot_nr = m.slot;
	slot = &tree->slots[slot_nr];
	require(tree->magic == TMEM_TREE_MAGIC, "magic");
	require(atomic_load(&slot->state) == TMEM_SLOT_CLAIMED, "state");
	require(atomic_load(&slot->pid) == pid || getpid() == 1, "pid");
	require(atomic_load(&slot->target_bytes) == UINT64_MAX, "target");
	require(atomic_load(&slot->grant_bytes) == 0, "grant");
}

static void refused(int pid, int error)
{
	struct tmem_tree_message m;
	int fds[8], nr;

	say_hello(pid, &m, fds, &nr);
	errno = -m.result;
	require(m.result == -error && nr == 0, "not refused");
	/* And shown the door. */
	require(recv(sock, fds, sizeof(fds), 0) == 0, "still connected");
	close(sock);
}

static void grant(uint64_t bytes, bool all)
{
	int64_t have = atomic_load(&tree->avail_bytes);

	do {
		if (all)
			bytes = (uint64_t)have;
		require(have >= (int64_t)bytes, "not enough");
	} while (!atomic_compare_exchange_weak(&tree->avail_bytes, &have,
					       have - (int64_t)bytes));
	atomic_fetch_add(&slot->grant_bytes, bytes);
	atomic_fetch_add(&slot->usage_bytes, bytes);
	if (atomic_load(&slot->peak_bytes) < atomic_load(&slot->usage_bytes))
		atomic_store(&slot->peak_bytes,
			     atomic_load(&slot->usage_bytes));
}

static void obey(void)
{
	struct pollfd p = { .fd = wake_fd, .events = POLLIN };
	uint64_t target, have, word;

	require(poll(&p, 1, 20000) == 1, "not woken");
	require(read(wake_fd, &word, sizeof(word)) == sizeof(word), "wake");
	target = atomic_load(&slot->target_bytes);
	have = atomic_load(&slot->grant_bytes);
	require(target < have, "no target");
	atomic_fetch_sub(&slot->grant_bytes, have - target);
	atomic_fetch_sub(&slot->usage_bytes, have - target);
	atomic_fetch_add(&tree->avail_bytes, (int64_t)(have - target));
}

static void count(const char *what)
{
	const struct {
		const char *name;
		_Atomic uint64_t *value;
	} list[] = {
#define COUNTER(name, unit, text) { #name, &slot->counters.name },
#include "wire/counters.def"
#undef COUNTER
	};
	const char *colon = strchr(what, ':');
	uint64_t n = strtoull(colon + 1, NULL, 10);

	for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++)
		if (!strncmp(what, list[i].name, (size_t)(colon - what)) &&
		    strlen(list[i].name) == (size_t)(colon - what))
			atomic_fetch_add(list[i].value, n);
}

static void waited(const char *what)
{
	uint64_t ns = strtoull(what, NULL, 10);

	atomic_fetch_add(&slot->counters.stall_buckets[tmem_stall_bucket(ns)],
			 strtoull(strchr(what, ':') + 1, NULL, 10));
}

static void uffd(void)
{
	struct tmem_tree_message m;
	struct uffdio_api again = { .api = UFFD_API };
	int fds[8], fd;

	require(device_fd >= 0, "no device");
	fd = ioctl(device_fd, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	require(fd >= 0, "userfaultfd");
	tmem_tree_message_init(&m, TMEM_TREE_UFFD);
	m.slot = slot_nr;
	m.features = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_MOVE;
	send_with_fd(&m, fd);
	receive(&m, fds);
	require(m.type == TMEM_TREE_UFFD_OK && m.result == 0, "no UFFD_OK");
	require(m.features & UFFD_FEATURE_MOVE, "features");
	/* It is prepared: that can be done once only. */
	require(ioctl(fd, UFFDIO_API, &again) < 0, "not prepared");
}

static unsigned slots_in_use(void)
{
	unsigned i, n = 0;

	for (i = 0; i < TMEM_TREE_SLOTS; i++)
		n += atomic_load(&tree->slots[i].state) != TMEM_SLOT_FREE;
	return n;
}

static int claim(void)
{
	uint32_t expected;
	int i;

	for (i = 0; i < TMEM_TREE_SLOTS; i++) {
		expected = TMEM_SLOT_FREE;
		if (!atomic_compare_exchange_strong(&tree->slots[i].state,
						    &expected,
						    TMEM_SLOT_CLAIMED))
			continue;
		atomic_store(&tree->slots[i].parent_slot, slot_nr);
		return i;
	}
	return TMEM_TREE_NO_SLOT;
}

static void wait_ticks(uint64_t ms)
{
	const struct timespec ts = { (time_t)(ms / 1000),
				     (long)(ms % 1000) * 1000000 };

	nanosleep(&ts, NULL);
}

/* Every millisecond one that was lost: whoever asks may end us. */
static void stall(void)
{
	for (;;) {
		atomic_fetch_add(&slot->counters.stall_ns, 10000000);
		nap();
	}
}

static void check_no_target(void)
{
	int i;

	for (i = 0; i < 300; i++) {
		require(atomic_load(&slot->target_bytes) == UINT64_MAX,
			"a target");
		nap();
	}
}

static void send_simple(enum tmem_tree_type type)
{
	struct tmem_tree_message m;

	tmem_tree_message_init(&m, type);
	m.slot = slot_nr;
	send_with_fd(&m, -1);
}

static void want(uint64_t bytes)
{
	atomic_store(&slot->want_bytes, bytes);
	send_simple(TMEM_TREE_WANT);
}

static void not_paged(char *what)
{
	struct tmem_tree_message m;
	char *colon = strchr(what, ':');

	tmem_tree_message_init(&m, TMEM_TREE_NOT_PAGED);
	m.reason = (uint32_t)atoi(what);
	strncpy(m.comm, colon + 1, sizeof(m.comm) - 1);
	connect_tree();
	send_with_fd(&m, -1);
	close(sock);
}

/* Garbage of that length: the keeper hangs up and lives on. */
static void send_garbage(size_t bytes)
{
	char buf[512];

	memset(buf, 0xa5, sizeof(buf));
	connect_tree();
	require(send(sock, buf, bytes, 0) == (ssize_t)bytes, "send");
	require(recv(sock, buf, sizeof(buf), 0) == 0, "not hung up");
	close(sock);
}

static void on_signal(int sig)
{
	caught[sig] = 1;
}

static void touch(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);

	require(fd >= 0, path);
	close(fd);
}

static void run(void);

static void skip_to_end(void)
{
	int depth = 1;

	for (; *argv && depth; argv++) {
		if (!strcmp(*argv, "fork") || !strcmp(*argv, "spawn") ||
		    !strcmp(*argv, "pager"))
			depth++;
		else if (!strcmp(*argv, "end"))
			depth--;
	}
}

static int pager_main(void *arg)
{
	(void)arg;
	run();
	_exit(0);
}

/* Like the real one: same memory, own descriptors, nobody's child but ours. */
static void start_pager(void)
{
	static char stack[STACK_BYTES] __attribute__((aligned(16)));
	char **begin = argv;

	require(clone(pager_main, stack + sizeof(stack), CLONE_VM | SIGCHLD,
		      NULL) > 0,
		"clone");
	/* argv is shared: it moves on when the pager has done its part. */
	while (*(char **volatile *)&argv == begin ||
	       strcmp(*(char *volatile *)(argv - 1), "end") != 0)
		nap();
}

static void start_child(bool with_slot)
{
	int nr = with_slot ? claim() : TMEM_TREE_NO_SLOT;
	pid_t pid = fork();

	require(pid >= 0, "fork");
	if (pid) {
		skip_to_end();
		return;
	}
	close(sock);
	sock = -1;
	child_slot = nr;
	run();
	_exit(0);
}

static bool do_numbers(const char *verb, char *value)
{
	uint64_t n = strtoull(value, NULL, 10);

	if (!strcmp(verb, "refused"))
		refused(getpid(), (int)n);
	else if (!strcmp(verb, "refused-pid"))
		refused((int)n, EPERM);
	else if (!strcmp(verb, "grant"))
		grant(n, false);
	else if (!strcmp(verb, "all"))
		grant(0, true);
	else if (!strcmp(verb, "usage"))
		atomic_store(&slot->usage_bytes, n);
	else if (!strcmp(verb, "want"))
		want(n);
	else if (!strcmp(verb, "stored"))
		atomic_store(&slot->stored_pages, n);
	else if (!strcmp(verb, "shared"))
		atomic_store(&slot->shared_bytes, n);
	else if (!strcmp(verb, "bad"))
		send_garbage(n);
	else if (!strcmp(verb, "close"))
		close((int)n);
	else if (!strcmp(verb, "exit"))
		_exit((int)n);
	else
		return false;
	return true;
}

static bool do_waits(const char *verb, char *value)
{
	uint64_t n = strtoull(value, NULL, 10);

	if (!strcmp(verb, "wait-avail"))
		while (atomic_load(&tree->avail_bytes) < (int64_t)n)
			nap();
	else if (!strcmp(verb, "wait-limit"))
		while (atomic_load(&tree->limit_bytes) != n)
			nap();
	else if (!strcmp(verb, "wait-growing"))
		while (!atomic_load(&tree->growing))
			nap();
	else if (!strcmp(verb, "wait-slots"))
		while (slots_in_use() != n)
			nap();
	else if (!strcmp(verb, "wait-file"))
		while (access(value, F_OK) != 0)
			nap();
	else if (!strcmp(verb, "wait-ticks"))
		wait_ticks(n);
	else if (!strcmp(verb, "wait-signal"))
		while (!caught[n])
			nap();
	else if (!strcmp(verb, "reap"))
		require(waitpid(-1, NULL, __WALL) > 0, "wait");
	else
		return false;
	return true;
}

static bool do_signals(const char *verb, char *value)
{
	int sig = atoi(value);

	if (!strcmp(verb, "catch"))
		signal(sig, on_signal);
	else if (!strcmp(verb, "ignore"))
		signal(sig, SIG_IGN);
	else if (!strcmp(verb, "raise"))
		raise(sig);
	else
		return false;
	return true;
}

static void exec_rest(void)
{
	char *args[256] = { "fake" };
	int i;

	for (i = 0; i < 250 && argv[i]; i++)
		args[i + 1] = argv[i];
	execv("/proc/self/exe", args);
	die("exec");
}

/* What the keeper gets to see. */
static bool do_tree(const char *verb, char *value)
{
	if (!strcmp(verb, "hello") || !strcmp(verb, "hello-there"))
		hello(getpid());
	else if (!strcmp(verb, "hello-for-parent"))
		hello(getppid());
	else if (!strcmp(verb, "stall"))
		stall();
	else if (!strcmp(verb, "check-no-target"))
		check_no_target();
	else if (!strcmp(verb, "live"))
		atomic_store(&slot->state, TMEM_SLOT_LIVE);
	else if (!strcmp(verb, "dead"))
		atomic_store(&slot->state, TMEM_SLOT_DEAD);
	else if (!strcmp(verb, "count"))
		count(value);
	else if (!strcmp(verb, "waited"))
		waited(value);
	else if (!strcmp(verb, "uffd"))
		uffd();
	else if (!strcmp(verb, "obey"))
		obey();
	else if (!strcmp(verb, "swap-full"))
		send_simple(TMEM_TREE_SWAP_FULL);
	else if (!strcmp(verb, "not-paged"))
		not_paged(value);
	else if (!strcmp(verb, "claim-all"))
		while (claim() != TMEM_TREE_NO_SLOT)
			;
	else
		return false;
	return true;
}

static bool do_words(const char *verb, const char *value)
{
	if (!strcmp(verb, "exec"))
		exec_rest();
	else if (!strcmp(verb, "tree"))
		printf("%s\n", getenv(TMEM_TREE_ENV));
	else if (!strcmp(verb, "print"))
		printf("%s\n", value);
	else if (!strcmp(verb, "pid"))
		printf("%d\n", (int)getpid());
	else if (!strcmp(verb, "touch"))
		touch(value);
	else if (!strcmp(verb, "setsid"))
		setsid();
	else
		return false;
	fflush(stdout);
	return true;
}

/* Until "end" or the last argument. */
static void run(void)
{
	char *verb, *value, word[256];

	while (*argv) {
		snprintf(word, sizeof(word), "%s", *argv++);
		verb = word;
		value = word + strcspn(word, "=");
		if (*value)
			*value++ = '\0';
		if (!strcmp(verb, "end"))
			return;
		if (!strcmp(verb, "fork"))
			start_child(true);
		else if (!strcmp(verb, "spawn"))
			start_child(false);
		else if (!strcmp(verb, "pager"))
			start_pager();
		else if (!do_tree(verb, value) && !do_words(verb, value) &&
			 !do_numbers(verb, value) && !do_waits(verb, value) &&
			 !do_signals(verb, value))
			die(verb);
	}
}

int main(int nr_args, char **args)
{
	(void)nr_args;
	argv = args + 1;
	run();
	return 0;
}
