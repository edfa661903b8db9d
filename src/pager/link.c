/* SPDX-License-Identifier: MIT */
/* See link.h. */
#include "link.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/sys.h"
#include "base/uffd.h"

enum {
	MAX_FDS = 5
};

/* What the pager cannot do without. */
#define NEEDED_FEATURES                                                       \
	(UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE |               \
	 UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_MOVE | UFFD_FEATURE_POISON | \
	 UFFD_FEATURE_THREAD_ID)

static int connect_tree(const char *name)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	size_t len = strlen(name);
	long fd, r;

	if (len == 0 || len > sizeof(addr.sun_path) - 1)
		return -EINVAL;
	memcpy(addr.sun_path + 1, name, len);
	fd = tmem_sys(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return (int)fd;
	r = tmem_sys(SYS_connect, fd, &addr,
		     offsetof(struct sockaddr_un, sun_path) + 1 + len);
	if (r < 0) {
		tmem_sys_close((int)fd);
		return (int)r;
	}
	return (int)fd;
}

static int send_message(int fd, const struct tmem_tree_message *message,
			int attach)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { tmem_sys_pointer((uintptr_t)message),
			     sizeof(*message) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *c;
	long r;

	if (attach >= 0) {
		memset(&control, 0, sizeof(control));
		msg.msg_control = control.bytes;
		msg.msg_controllen = sizeof(control.bytes);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &attach, sizeof(int));
	}
	r = tmem_sys(SYS_sendmsg, fd, &msg, MSG_NOSIGNAL);
	return r < 0 ? (int)r : 0;
}

/* Returns the number of descriptors that came, or -errno. */
static int receive_message(int fd, struct tmem_tree_message *ret_message,
			   int *ret_fds)
{
	union {
		char bytes[CMSG_SPACE(MAX_FDS * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { ret_message, sizeof(*ret_message) };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.bytes,
			      .msg_controllen = sizeof(control.bytes) };
	struct cmsghdr *c;
	long r;

	memset(&control, 0, sizeof(control));
	do {
		r = tmem_sys(SYS_recvmsg, fd, &msg, MSG_CMSG_CLOEXEC);
	} while (r == -EINTR);
	if (r < 0)
		return (int)r;
	if (r != (long)sizeof(*ret_message))
		return -EPROTO;
	c = msg.msg_controllen >= sizeof(*c) ? CMSG_FIRSTHDR(&msg) : NULL;
	if (!c || c->cmsg_type != SCM_RIGHTS)
		return 0;
	memcpy(ret_fds, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
	return (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
}

static struct tmem_tree_message message_of(const struct tmem_pager *pager,
					   uint32_t type)
{
	struct tmem_tree_message m = {
		.type = type,
		.version = TMEM_TREE_VERSION,
		.slot = pager->slot_nr,
		.pid = pager->program_pid,
		.forked = pager->forked,
	};

	memcpy(m.comm, pager->comm, sizeof(m.comm));
	return m;
}

/* Over memory of our own, so that no hole of the program's is taken. */
static int map_tree(struct tmem_pager *pager, int budget)
{
	struct stat st = { 0 };
	void *place;
	long r;

	if (pager->tree) /* a fork's child inherits it */
		return 0;
	r = tmem_sys(SYS_fstat, budget, &st);
	if (r < 0)
		return (int)r;
	if (st.st_size < (off_t)sizeof(struct tmem_tree))
		return -EPROTO;
	/* All of it: the log of stalls, too. */
	place = tmem_pager_map(pager, (size_t)st.st_size);
	if (!place)
		return -ENOMEM;
	r = tmem_sys(SYS_mmap, place, st.st_size, PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_FIXED, budget, 0);
	if (r < 0 && r > -4096)
		return (int)r;
	pager->tree = place;
	return 0;
}

static int welcome(struct tmem_pager *pager, int *ret_dev)
{
	struct tmem_tree_message m = message_of(pager, TMEM_TREE_HELLO);
	int fds[MAX_FDS], nr, r, i = 0, budget = -1;

	nr = send_message(pager->tree_fd, &m, -1);
	if (nr == 0)
		nr = receive_message(pager->tree_fd, &m, fds);
	if (nr < 0)
		return nr;
	if (m.type != TMEM_TREE_WELCOME || m.version != TMEM_TREE_VERSION)
		return -EPROTO;
	if (m.result < 0)
		return m.result;
	if (nr != __builtin_popcount(m.fds))
		return -EPROTO;
	budget = m.fds & TMEM_TREE_FD_BUDGET ? fds[i++] : -1;
	pager->swap_map_fd = m.fds & TMEM_TREE_FD_SWAP_MAP ? fds[i++] : -1;
	pager->wake_fd = m.fds & TMEM_TREE_FD_WAKE ? fds[i++] : -1;
	pager->swap_file_fd = m.fds & TMEM_TREE_FD_SWAP_FILE ? fds[i++] : -1;
	*ret_dev = m.fds & TMEM_TREE_FD_UFFD_DEV ? fds[i++] : -1;
	r = map_tree(pager, budget);
	tmem_sys_close(budget);
	if (r < 0)
		return r;
	if (pager->tree->magic != TMEM_TREE_MAGIC || m.slot < 0 ||
	    m.slot >= TMEM_TREE_SLOTS)
		return -EPROTO;
	pager->slot_nr = m.slot;
	pager->slot = &pager->tree->slots[m.slot];
	return 0;
}

/* Asks the keeper to agree the userfaultfd's API. */
static int agree(struct tmem_pager *pager, uint64_t features)
{
	struct tmem_tree_message m = message_of(pager, TMEM_TREE_UFFD);
	int fds[MAX_FDS], r;

	m.features = features;
	r = send_message(pager->tree_fd, &m, pager->uffd);
	if (r == 0)
		r = receive_message(pager->tree_fd, &m, fds);
	if (r < 0)
		return r;
	return m.type == TMEM_TREE_UFFD_OK ? m.result : -EPROTO;
}

static int open_uffd(struct tmem_pager *pager, int dev)
{
	long fd = -ENODEV;
	int r;

	if (dev >= 0)
		fd = tmem_sys(SYS_ioctl, dev, USERFAULTFD_IOC_NEW,
			      O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		fd = tmem_sys(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return (int)fd;
	pager->uffd = (int)fd;
	if (!pager->trapped) {
		r = agree(pager, NEEDED_FEATURES | UFFD_FEATURE_EVENT_FORK);
		if (r != -EPERM)
			return r;
	}
	pager->trapped = true;
	return agree(pager, NEEDED_FEATURES);
}

int tmem_link_open(struct tmem_pager *pager)
{
	int dev = -1, r;

	pager->fail_reason = TMEM_NOT_PAGED_FAILED;
	pager->tree_fd = connect_tree(pager->tree_name);
	if (pager->tree_fd < 0)
		return pager->tree_fd;
	r = welcome(pager, &dev);
	if (r < 0) {
		if (r == -EUSERS || r == -ENOSPC)
			pager->fail_reason = TMEM_NOT_PAGED_SLOTS;
		return r;
	}
	r = open_uffd(pager, dev);
	if (dev >= 0)
		tmem_sys_close(dev);
	if (r < 0)
		pager->fail_reason = TMEM_NOT_PAGED_RIGHTS;
	return r;
}

void tmem_link_swap_full(struct tmem_pager *pager)
{
	struct tmem_tree_message m = message_of(pager, TMEM_TREE_SWAP_FULL);

	send_message(pager->tree_fd, &m, -1);
}

void tmem_link_want(struct tmem_pager *pager)
{
	struct tmem_tree_message m = message_of(pager, TMEM_TREE_WANT);

	send_message(pager->tree_fd, &m, -1);
}

void tmem_link_not_paged(const char *tree_name, int pid, uint32_t reason,
			 const char *comm)
{
	struct tmem_tree_message m = {
		.type = TMEM_TREE_NOT_PAGED,
		.version = TMEM_TREE_VERSION,
		.slot = TMEM_TREE_NO_SLOT,
		.pid = pid,
		.reason = reason,
	};
	int fd = connect_tree(tree_name);
	unsigned i;

	if (fd < 0)
		return;
	for (i = 0; i < sizeof(m.comm) - 1 && comm[i]; i++)
		m.comm[i] = comm[i];
	send_message(fd, &m, -1);
	tmem_sys_close(fd);
}

int32_t tmem_link_claim(struct tmem_pager *pager)
{
	int32_t i;

	for (i = 0; i < TMEM_TREE_SLOTS; i++) {
		struct tmem_tree_slot *s = &pager->tree->slots[i];
		uint32_t free = TMEM_SLOT_FREE;

		if (atomic_load(&s->state) == free &&
		    atomic_compare_exchange_strong(&s->state, &free,
						   TMEM_SLOT_CLAIMED)) {
			atomic_store(&s->parent_slot, pager->slot_nr);
			return i;
		}
	}
	return TMEM_TREE_NO_SLOT;
}

void tmem_link_unclaim(struct tmem_pager *pager, int32_t slot)
{
	if (slot == TMEM_TREE_NO_SLOT)
		return;
	if (pager->swap_map_fd >= 0)
		tmem_swapmap_reap(pager->swap_map_fd, (unsigned)slot);
	atomic_store(&pager->tree->slots[slot].state, TMEM_SLOT_FREE);
}
