/* SPDX-License-Identifier: MIT */
/* See solo.h. */
#include "solo.h"

#include <stddef.h>
#include <sys/rseq.h>

#include "base/sys.h"
#include "procfs.h"
#include "serve.h"

/* libc's, since 2.35. */
extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned int __rseq_size __attribute__((weak));

void tmem_solo_init(struct tmem_pager *pager)
{
	const uint8_t *self = __builtin_thread_pointer();
	const struct rseq *area;

	pager->rseq_cpu = NULL;
	atomic_store(&pager->solo, 0);
	if (!&__rseq_offset || !&__rseq_size || !__rseq_size)
		return;
	area = (const void *)(self + __rseq_offset);
	pager->rseq_cpu = &area->cpu_id;
}

static uint32_t handler_of(const struct tmem_pager *pager, int cpu)
{
	unsigned i;

	for (i = 0; i < pager->nr_handlers; i++)
		if (pager->handlers[i].cpu == cpu)
			return i + 1;
	return 0;
}

void tmem_solo_threads(struct tmem_pager *pager, unsigned nr)
{
	uint32_t solo = 0;

	if (nr == 1)
		solo = handler_of(pager,
				  (int)tmem_procfs_stat(pager->program_pid,
							PROCFS_STAT_CPU));
	if (atomic_exchange(&pager->solo, solo) != solo)
		tmem_serve_kick(pager);
}

void tmem_solo_follow_locked(struct tmem_pager *pager, struct tmem_handler *me)
{
	uint32_t mine = me->nr + 1, other;
	uint64_t one = 1;

	if (atomic_load(&pager->solo) != mine || !pager->rseq_cpu ||
	    !tmem_table_is_pinned(&pager->table,
				  tmem_vpn((uintptr_t)pager->rseq_cpu)))
		return;
	other = handler_of(pager, (int)*pager->rseq_cpu);
	if (!other || other == mine ||
	    !atomic_compare_exchange_strong(&pager->solo, &mine, other))
		return;
	tmem_sys(SYS_write, pager->handlers[other - 1].kick_fd, &one,
		 sizeof(one));
}
