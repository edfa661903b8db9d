/* SPDX-License-Identifier: MIT */
/*
 * Who is at the socket, and what do they get.
 *
 * The socket's name is random, but not a secret: it is in the environment of
 * every process of the tree.  So each peer is checked, with what the kernel
 * says of it: the user must be ours (or we are root), and the program that
 * it pages must descend from us (--exec: from the program that we serve).
 * The pager itself is an orphan; what ties it to its program is that both
 * run in the same memory.
 *
 * With --exec we are not the reaper of orphans, so a grandchild whose parent
 * has ended descends from nobody we know.  There, a slot that its parent's
 * pager claimed for it in the budget page vouches for it: only those who
 * were welcome before have that page.
 *
 * A message that does not check costs the peer its connection.
 */
#include "cli/keeper.h"

#include "base/assert.h"
#include "base/uffd.h"
#include "cli/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	MAX_FDS = 8
};

static bool is_of_tree(const struct tmem_keeper *k, pid_t pid)
{
	return tmem_proc_descends(pid, getpid()) ||
	       (k->main_pid > 0 && tmem_proc_descends(pid, k->main_pid));
}

/* Without a descriptor to accept it by, a peer would wait for ever. */
static void turn_away(struct tmem_keeper *k)
{
	if (k->spare_fd < 0)
		return;
	close(k->spare_fd);
	k->spare_fd = accept(k->listen_fd, NULL, NULL);
	if (k->spare_fd >= 0)
		close(k->spare_fd);
	k->spare_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
}

void tmem_serve_accept(struct tmem_keeper *k)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);
	unsigned i;
	int fd;

	fd = accept4(k->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE)
			turn_away(k);
		return;
	}
	for (i = 0; i < TMEM_MAX_CONNS && k->conns[i].fd >= 0; i++)
		;
	if (i == TMEM_MAX_CONNS ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 ||
	    /* Strangers may not fill the table. */
	    (i >= TMEM_MAX_CONNS / 2 && !is_of_tree(k, cred.pid)) ||
	    tmem_keeper_watch(k, fd, TMEM_EVENT_CONN, i) < 0) {
		close(fd);
		return;
	}
	k->conns[i].fd = fd;
	k->conns[i].pid = cred.pid;
	k->conns[i].uid = cred.uid;
	k->conns[i].slot = TMEM_TREE_NO_SLOT;
}

static void drop(struct tmem_keeper *k, unsigned conn)
{
	struct tmem_keeper_conn *c = &k->conns[conn];
	int slot = c->slot;

	close(c->fd);
	if (slot != TMEM_TREE_NO_SLOT)
		k->gone_pagers[k->nr_gone_pagers++ % TMEM_GONE_PAGERS] = c->pid;
	c->fd = -1;
	c->slot = TMEM_TREE_NO_SLOT;
	if (slot != TMEM_TREE_NO_SLOT)
		tmem_slots_pager_gone(k, slot);
}

static bool is_vouched_for(const struct tmem_keeper *k, int slot)
{
	const struct tmem_tree_slot *t;

	if (k->main_pid_fd < 0 || slot == TMEM_TREE_NO_SLOT)
		return false;
	t = &k->tree->slots[slot];
	return atomic_load(&t->state) == TMEM_SLOT_CLAIMED &&
	       atomic_load(&t->parent_slot) != TMEM_TREE_NO_SLOT;
}

static bool is_user_ok(const struct tmem_keeper *k,
		       const struct tmem_keeper_conn *c)
{
	return k->uid == 0 || c->uid == k->uid;
}

static void send_fds(int fd, const struct tmem_tree_message *m, const int *fds,
		     unsigned nr_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(MAX_FDS * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { (void *)m, sizeof(*m) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *c;

	TMEM_ASSERT(nr_fds <= MAX_FDS);
	if (nr_fds) {
		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nr_fds * sizeof(int));
	}
	/* A peer that has gone shows on the connection. */
	sendmsg(fd, &msg, MSG_NOSIGNAL);
}

static void refuse(struct tmem_keeper *k, unsigned conn, int error)
{
	struct tmem_tree_message m;

	tmem_tree_message_init(&m, TMEM_TREE_WELCOME);
	m.result = error;
	send_fds(k->conns[conn].fd, &m, NULL, 0);
}

static void welcome(struct tmem_keeper *k, unsigned conn)
{
	const struct tmem_keeper_conn *c = &k->conns[conn];
	struct tmem_tree_message m;
	const struct {
		int fd;
		uint32_t bit;
	} list[] = {
		{ k->budget_fd, TMEM_TREE_FD_BUDGET },
		{ k->swap_map_fd, TMEM_TREE_FD_SWAP_MAP },
		{ k->slots[c->slot].wake_fd, TMEM_TREE_FD_WAKE },
		{ k->swap.fd, TMEM_TREE_FD_SWAP_FILE },
		{ k->device_fd, TMEM_TREE_FD_UFFD_DEV },
	};
	int fds[MAX_FDS];
	unsigned i, n = 0;

	tmem_tree_message_init(&m, TMEM_TREE_WELCOME);
	m.slot = c->slot;
	for (i = 0; i < sizeof(list) / sizeof(*list); i++) {
		if (list[i].fd < 0)
			continue;
		m.fds |= list[i].bit;
		fds[n++] = list[i].fd;
	}
	send_fds(c->fd, &m, fds, n);
}

/* The program that this pager serves, if it may; else -errno. */
static pid_t check_peer(const struct tmem_keeper *k,
			const struct tmem_keeper_conn *c,
			const struct tmem_tree_message *m)
{
	pid_t pid = tmem_proc_translate(m->pid, c->pid);
	int same;

	if (pid <= 0 || !is_user_ok(k, c))
		return -EPERM;
	if (!is_of_tree(k, pid) && !is_vouched_for(k, m->slot))
		return -EPERM;
	same = tmem_proc_same_memory(pid, c->pid);
	if (same > 0 || (same < 0 && is_of_tree(k, c->pid)))
		return pid;
	return -EPERM;
}

static int find_slot(struct tmem_keeper *k, const struct tmem_tree_message *m)
{
	int slot = m->slot;

	if (slot == TMEM_TREE_NO_SLOT) {
		slot = tmem_slots_claim(k);
		return slot == TMEM_TREE_NO_SLOT ? -ENOSPC : slot;
	}
	if (atomic_load(&k->tree->slots[slot].state) != TMEM_SLOT_CLAIMED ||
	    k->slots[slot].conn >= 0 || k->slots[slot].pid_fd >= 0)
		return -EINVAL;
	return slot;
}

static int hello(struct tmem_keeper *k, unsigned conn,
		 const struct tmem_tree_message *m)
{
	struct tmem_keeper_conn *c = &k->conns[conn];
	struct tmem_tree_slot *t;
	int slot, r;
	pid_t pid;

	if (c->slot != TMEM_TREE_NO_SLOT)
		return -EINVAL;
	pid = check_peer(k, c, m);
	if (pid < 0)
		return pid;
	slot = find_slot(k, m);
	if (slot == -ENOSPC)
		tmem_outside_note(k, pid, m->comm, TMEM_NOT_PAGED_SLOTS);
	if (slot < 0)
		return slot;
	t = &k->tree->slots[slot];
	r = tmem_slots_attach(k, slot, (int)conn, pid);
	if (r < 0) {
		c->slot = TMEM_TREE_NO_SLOT;
		k->slots[slot].conn = -1;
		/* The sweep frees it. */
		atomic_store(&t->state, TMEM_SLOT_DEAD);
		return r;
	}
	memcpy(t->comm, m->comm, sizeof(t->comm));
	tmem_outside_forget(k, pid);
	welcome(k, conn);
	return 0;
}

/* features 0: it is ready already (a fork's child), we only hold it (K3). */
static int take_uffd(struct tmem_keeper *k, unsigned conn,
		     const struct tmem_tree_message *m, int uffd)
{
	struct uffdio_api api = { .api = UFFD_API, .features = m->features };
	struct tmem_keeper_conn *c = &k->conns[conn];
	struct tmem_tree_message answer;

	if (uffd < 0 || m->slot != c->slot)
		return -EINVAL;
	tmem_tree_message_init(&answer, TMEM_TREE_UFFD_OK);
	answer.slot = c->slot;
	if (m->features && ioctl(uffd, UFFDIO_API, &api) < 0)
		answer.result = -errno;
	answer.features = api.features;
	if (answer.result == 0) {
		if (k->slots[c->slot].uffd >= 0)
			close(k->slots[c->slot].uffd);
		k->slots[c->slot].uffd = uffd;
	}
	send_fds(c->fd, &answer, NULL, 0);
	return answer.result;
}

static void not_paged(struct tmem_keeper *k, const struct tmem_keeper_conn *c,
		      const struct tmem_tree_message *m)
{
	pid_t pid = c->pid;

	/*
	 * A sender that has ended cannot be asked for its parents.  It may
	 * end while it is asked, so whether it lives is looked at last.
	 */
	if (!is_user_ok(k, c) || (!is_of_tree(k, pid) && k->main_pid_fd < 0 &&
				  tmem_proc_is_alive(pid)))
		return;
	if (m->pid > 0)
		pid = tmem_proc_translate(m->pid, c->pid);
	tmem_outside_note(k, pid > 0 ? pid : c->pid, m->comm, m->reason);
}

/* 0, or -errno: the connection is to be dropped. */
static int handle(struct tmem_keeper *k, unsigned conn,
		  const struct tmem_tree_message *m, int *fd)
{
	int r;

	switch (m->type) {
	case TMEM_TREE_HELLO:
		r = hello(k, conn, m);
		if (r < 0)
			refuse(k, conn, r);
		return r;
	case TMEM_TREE_UFFD:
		r = take_uffd(k, conn, m, *fd);
		if (r == 0)
			*fd = -1;
		/* A refused feature is an answer, not an offence. */
		return r == -EINVAL && *fd < 0 ? r : 0;
	case TMEM_TREE_NOT_PAGED:
		not_paged(k, &k->conns[conn], m);
		return 0;
	case TMEM_TREE_SWAP_FULL:
		if (k->conns[conn].slot == TMEM_TREE_NO_SLOT)
			return -EPERM;
		tmem_limits_swap_full(k);
		return 0;
	case TMEM_TREE_WANT:
		if (k->conns[conn].slot == TMEM_TREE_NO_SLOT)
			return -EPERM;
		/* Not more often than it helps. */
		if (k->next_tick_ns > k->last_tick_ns + 10 * TMEM_MS)
			k->next_tick_ns = k->last_tick_ns + 10 * TMEM_MS;
		return 0;
	}
	return -EBADMSG;
}

/* The first descriptor of a packet; others are closed. */
static int take_fd(struct msghdr *msg)
{
	struct cmsghdr *c;
	int fd, first = -1;
	size_t i, n;

	for (c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (i = 0; i < n; i++) {
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (first < 0)
				first = fd;
			else
				close(fd);
		}
	}
	return first;
}

void tmem_serve_conn(struct tmem_keeper *k, unsigned conn)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(MAX_FDS * sizeof(int))];
	} control;
	char buf[2 * sizeof(struct tmem_tree_message)];
	struct iovec iov = { buf, sizeof(buf) };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.bytes,
			      .msg_controllen = sizeof(control.bytes) };
	struct tmem_tree_message m;
	ssize_t n;
	int fd;

	if (k->conns[conn].fd < 0)
		return;
	_Static_assert(sizeof(buf) > sizeof(struct tmem_control_request),
		       "room for either");
	n = recvmsg(k->conns[conn].fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		drop(k, conn);
		return;
	}
	fd = take_fd(&msg);
	if (tmem_control_answer(k, &k->conns[conn], buf, (size_t)n) ||
	    tmem_tree_message_from_pager(buf, (size_t)n, &m) < 0 ||
	    handle(k, conn, &m, &fd) < 0)
		drop(k, conn);
	if (fd >= 0)
		close(fd);
}
