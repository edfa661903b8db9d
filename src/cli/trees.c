/* SPDX-License-Identifier: MIT */
/*
 * No registry: the kernel lists the abstract sockets of our network
 * namespace, and an entry is gone with its keeper, however that ended.
 *
 * Whoever made a socket is what SO_PEERCRED says, as of listen(): the
 * process of `tmem run`, which may have become the program (--exec) or ended.
 *
 * Strangers' sockets come after ours, and only so many are asked, so that who
 * binds thousands of them hides nothing but its own: connecting tells whose
 * they are, and is all that is done with another user's unless we are root.
 */
#include "cli/trees.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
	MAX_TREES = 4096, /* looked at */
	MAX_OTHERS = 256, /* of these, other users' that we wait for */
	PATIENCE_MS = 1000,
	NAME_BYTES = sizeof(TMEM_TREE_PREFIX) + TMEM_TREE_DIGITS
};

struct tree {
	char name[NAME_BYTES];
	struct ucred cred;
};

struct trees {
	struct tree list[MAX_TREES];
	struct pollfd fds[MAX_TREES];
	int nr;
	int nr_others;
};

/* The name in a line of /proc/net/unix, or NULL. */
static const char *find_name(const char *line)
{
	const char *at = strstr(line, " @" TMEM_TREE_PREFIX);
	size_t digits;

	if (!at)
		return NULL;
	at += 2;
	digits = strspn(at + strlen(TMEM_TREE_PREFIX), "0123456789abcdef");
	return digits == TMEM_TREE_DIGITS && at[NAME_BYTES - 1] == '\0' ? at
									: NULL;
}

static int connect_to(const char *name)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	socklen_t len =
		offsetof(struct sockaddr_un, sun_path) + 1 + NAME_BYTES - 1;
	int fd;

	memcpy(a.sun_path + 1, name, NAME_BYTES - 1);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&a, len) < 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* Asks one tree; nothing if it has just gone. */
static void ask(struct trees *t, const char *name,
		const struct tmem_control_request *request)
{
	struct tree *tree = &t->list[t->nr];
	socklen_t len = sizeof(tree->cred);
	int fd = connect_to(name);
	bool other;

	if (fd < 0)
		return;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &tree->cred, &len) < 0) {
		close(fd);
		return;
	}
	other = tree->cred.uid != 0 && tree->cred.uid != geteuid();
	if ((other && t->nr_others == MAX_OTHERS) ||
	    send(fd, request, sizeof(*request), MSG_NOSIGNAL) !=
		    sizeof(*request)) {
		close(fd);
		return;
	}
	t->nr_others += other;
	memcpy(tree->name, name, NAME_BYTES);
	t->fds[t->nr++] = (struct pollfd){ .fd = fd, .events = POLLIN };
}

static int ask_all(struct trees *t, const struct tmem_control_request *request)
{
	FILE *in = fopen("/proc/net/unix", "re");
	char *line = NULL;
	size_t room = 0;
	const char *name;
	int i;

	if (!in)
		return -errno;
	while (t->nr < MAX_TREES && getline(&line, &room, in) > 0) {
		line[strcspn(line, "\n")] = '\0';
		name = find_name(line);
		/* Listed once for the listener, and for each connection. */
		for (i = 0; name && i < t->nr; i++)
			if (!strcmp(t->list[i].name, name))
				name = NULL;
		if (name)
			ask(t, name, request);
	}
	free(line);
	fclose(in);
	return 0;
}

static void
take_answer(struct trees *t, int i, uint32_t type,
	    void (*fn)(void *arg, const struct tmem_trees_answer *a), void *arg)
{
	/* One byte more, to see what is too long. */
	char bytes[sizeof(struct tmem_control_status) + 1];
	struct tmem_trees_answer a = { .uid = t->list[i].cred.uid,
				       .pid = t->list[i].cred.pid,
				       .name = t->list[i].name };
	ssize_t n = recv(t->fds[i].fd, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	close(t->fds[i].fd);
	t->fds[i].fd = -1;
	if (n > 0 &&
	    tmem_control_decode_status(bytes, (size_t)n, type, &a.status) == 0)
		fn(arg, &a);
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int tmem_trees_ask(const struct tmem_control_request *request,
		   void (*fn)(void *arg, const struct tmem_trees_answer *a),
		   void *arg)
{
	int64_t end = now_ms() + PATIENCE_MS, left;
	struct trees *t = calloc(1, sizeof(*t));
	int i, waiting, r;

	if (!t)
		return -ENOMEM;
	r = ask_all(t, request);
	for (waiting = t->nr; waiting > 0;) {
		left = end - now_ms();
		if (left <= 0 || poll(t->fds, (nfds_t)t->nr, (int)left) == 0)
			break;
		for (i = waiting = 0; i < t->nr; i++) {
			if (t->fds[i].fd >= 0 && t->fds[i].revents)
				take_answer(t, i, request->type, fn, arg);
			waiting += t->fds[i].fd >= 0;
		}
	}
	for (i = 0; i < t->nr; i++)
		if (t->fds[i].fd >= 0)
			close(t->fds[i].fd);
	if (r == 0)
		r = t->nr;
	free(t);
	return r;
}
