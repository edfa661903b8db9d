/* SPDX-License-Identifier: MIT */
/*
 * The keeper's side of `tmem top` and `tmem set` (wire/control.h).
 *
 * Figures go to root and to the user whose tree it is; that is also who may
 * change it.  Others learn of a process whether it is in this tree, no more,
 * so that `tmem set` can say "not yours".
 */
#include "cli/keeper.h"
#include "cli/proc.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static bool is_ours(const struct tmem_keeper *k, pid_t pid)
{
	int i;

	if (pid == getpid() || (k->front_fd >= 0 && pid == k->front_pid))
		return true;
	for (i = 0; i < TMEM_TREE_SLOTS; i++)
		if (k->slots[i].pid == pid && !k->slots[i].ended)
			return true;
	return tmem_proc_descends(pid, getpid()) ||
	       (k->main_pid > 0 && !k->main_ended &&
		tmem_proc_descends(pid, k->main_pid));
}

static bool may(const struct tmem_keeper *k, uid_t uid)
{
	return uid == 0 || uid == k->uid;
}

void tmem_control_fill(const struct tmem_keeper *k,
		       struct tmem_control_status *s)
{
	struct tmem_keeper_totals totals;
	const struct tmem_tree_slot *t;
	const char *name = strrchr(k->options->program[0], '/');
	int i;

	memset(s, 0, sizeof(*s));
	s->main_pid = k->main_pid;
	s->kind = k->memory.kind;
	s->age_ns = tmem_keeper_now_ns() - k->start_ns;
	s->limit_bytes = atomic_load(&k->tree->limit_bytes);
	s->usage_bytes = atomic_load(&k->tree->keeper_bytes);
	for (i = 0; i < TMEM_TREE_SLOTS; i++) {
		t = &k->tree->slots[i];
		if (atomic_load(&t->state) == TMEM_SLOT_FREE)
			continue;
		s->nr_programs++;
		s->usage_bytes += atomic_load(&t->usage_bytes);
		s->held_bytes += atomic_load(&t->store_held_bytes);
		s->stored_bytes += atomic_load(&t->stored_bytes);
		s->stored_pages += atomic_load(&t->stored_pages);
		s->swapped_pages += atomic_load(&t->swapped_pages);
	}
	tmem_slots_totals(k, &totals);
	s->counters = totals.counters;
	snprintf(s->name, sizeof(s->name), "%s",
		 name ? name + 1 : k->options->program[0]);
}

static int set(struct tmem_keeper *k, const struct tmem_keeper_conn *conn,
	       const struct tmem_control_request *request,
	       uint64_t *ret_old_bytes)
{
	struct tmem_amount memory = {
		.kind = (enum tmem_amount_kind)request->kind,
		.value = request->value,
	};
	pid_t pid = tmem_proc_translate(request->pid, conn->pid);

	if (pid <= 0 || !is_ours(k, pid))
		return -ESRCH;
	if (!may(k, conn->uid))
		return -EPERM;
	return tmem_follow_set(k, memory, ret_old_bytes);
}

bool tmem_control_answer(struct tmem_keeper *k,
			 const struct tmem_keeper_conn *conn, const void *bytes,
			 size_t len)
{
	struct tmem_control_status s;
	struct tmem_control_request request;
	uint64_t old_bytes = 0;
	int r = tmem_control_decode(bytes, len, &request);

	if (r == -ENOMSG)
		return false;
	/* Nobody's stack goes out: all that is sent was set. */
	memset(&s, 0, sizeof(s));
	if (r == 0 && request.type == TMEM_CONTROL_SET)
		r = set(k, conn, &request, &old_bytes);
	else if (r == 0)
		r = may(k, conn->uid) ? 0 : -EPERM;
	if (r == -EBADMSG)
		return true;
	if (r == 0)
		tmem_control_fill(k, &s);
	s.type = request.type;
	s.version = TMEM_CONTROL_VERSION;
	s.result = r;
	s.old_bytes = old_bytes;
	/* Who does not read its answer does not get it. */
	send(conn->fd, &s, sizeof(s), MSG_NOSIGNAL | MSG_DONTWAIT);
	return true;
}
