/* SPDX-License-Identifier: MIT */
/*
 * A message is one packet that holds one struct in host order: both ends run
 * on one machine, often from one build.  The version says if they do not.
 *
 * Names of processes are data from outside: what a terminal could take for a
 * control sequence becomes '?'.
 */
#include "wire/message.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

void tmem_tree_message_init(struct tmem_tree_message *message,
			    enum tmem_tree_type type)
{
	memset(message, 0, sizeof(*message));
	message->type = type;
	message->version = TMEM_TREE_VERSION;
	message->slot = TMEM_TREE_NO_SLOT;
}

static int decode(const void *bytes, size_t len,
		  struct tmem_tree_message *ret_message)
{
	struct tmem_tree_message m;
	int i;

	if (len != sizeof(m))
		return -EBADMSG;
	memcpy(&m, bytes, sizeof(m));
	if (m.version != TMEM_TREE_VERSION || m.slot < TMEM_TREE_NO_SLOT ||
	    m.slot >= TMEM_TREE_SLOTS)
		return -EBADMSG;
	m.comm[TMEM_TREE_COMM - 1] = '\0';
	for (i = 0; m.comm[i]; i++)
		if (m.comm[i] < ' ' || m.comm[i] > '~')
			m.comm[i] = '?';
	*ret_message = m;
	return 0;
}

static bool valid_from_pager(const struct tmem_tree_message *m)
{
	switch (m->type) {
	case TMEM_TREE_HELLO:
		return m->pid > 0 && m->forked <= 1 &&
		       (!m->forked || m->slot != TMEM_TREE_NO_SLOT);
	case TMEM_TREE_UFFD:
		return m->slot != TMEM_TREE_NO_SLOT;
	case TMEM_TREE_NOT_PAGED:
		return m->pid >= 0 && m->reason >= TMEM_NOT_PAGED_STATIC &&
		       m->reason <= TMEM_NOT_PAGED_FAILED;
	case TMEM_TREE_SWAP_FULL:
	case TMEM_TREE_WANT:
		return m->slot != TMEM_TREE_NO_SLOT;
	}
	return false;
}

int tmem_tree_message_from_pager(const void *bytes, size_t len,
				 struct tmem_tree_message *ret_message)
{
	struct tmem_tree_message m;

	if (decode(bytes, len, &m) < 0 || !valid_from_pager(&m))
		return -EBADMSG;
	*ret_message = m;
	return 0;
}

static bool valid_from_keeper(const struct tmem_tree_message *m)
{
	switch (m->type) {
	case TMEM_TREE_WELCOME:
		if (m->result)
			return m->result < 0 && m->fds == 0;
		return m->slot != TMEM_TREE_NO_SLOT &&
		       (m->fds & TMEM_TREE_FD_BUDGET) &&
		       m->fds < TMEM_TREE_FD_UFFD_DEV << 1;
	case TMEM_TREE_UFFD_OK:
		return m->result <= 0;
	}
	return false;
}

int tmem_tree_message_from_keeper(const void *bytes, size_t len,
				  struct tmem_tree_message *ret_message)
{
	struct tmem_tree_message m;

	if (decode(bytes, len, &m) < 0 || !valid_from_keeper(&m))
		return -EBADMSG;
	*ret_message = m;
	return 0;
}

const char *tmem_not_paged_text(uint32_t reason)
{
	switch (reason) {
	case TMEM_NOT_PAGED_STATIC:
		return "statically linked";
	case TMEM_NOT_PAGED_SETUID:
		return "set-user-ID, set-group-ID or file capabilities";
	case TMEM_NOT_PAGED_ENV:
		return "emptied environment or unknown";
	case TMEM_NOT_PAGED_LOADER:
		return "another C library or machine";
	case TMEM_NOT_PAGED_RIGHTS:
		return "no right to use userfaultfd";
	case TMEM_NOT_PAGED_SECCOMP:
		return "installed a system call filter";
	case TMEM_NOT_PAGED_RAW_FORK:
		return "forked without the C library";
	case TMEM_NOT_PAGED_SLOTS:
		return "too many processes at once";
	case TMEM_NOT_PAGED_FAILED:
		return "its pager did not start";
	}
	return "unknown";
}
