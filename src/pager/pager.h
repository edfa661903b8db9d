/* SPDX-License-Identifier: MIT */
/*
 * The pager: runs the program it is preloaded into in less memory than the
 * program needs.  This header is its design.
 *
 * THREADS.  The *program* is an ordinary process that we were preloaded into.
 * The *pager* is another process in the same memory (CLONE_VM, not a thread:
 * own descriptors, signals, thread group), with these threads:
 *   handlers  one per CPU (PAGER_MAX_HANDLERS at most), pinned, blocking on
 *             the userfaultfd: they answer faults, apply events, and evict
 *             after answering (serve.h);
 *   ticker    watches memory use and the program's end, registers memory,
 *             reports to the keeper, evicts in an emergency;
 *   upkeep    makes the store smaller when there is time (upkeep.h);
 *   gate      does what the program's threads ask for (fork, exec, ...) and
 *             serves a fork's child until the child serves itself.
 * A program thread never takes a lock of the pager's and never touches its
 * tables: it writes a command word and waits on a futex (gate.h).
 *
 * MEMORY.  Everything the pager touches is in mappings of its own (the
 * `own` list), the store's or the swap file's; none of them is ever paged.
 * No malloc, no stdio, no libc function that keeps state.
 *
 * THE LOCK.  pager->lock covers the page table, the frames, every read of
 * the userfaultfd and every ioctl that installs, moves or registers pages.
 * So an event is read and applied in one step with respect to them:
 *   P1  A page is moved out only if the table says RESIDENT or KEPT and no
 *       event that says otherwise has been read but not applied.  One that
 *       has not been read makes the kernel answer EAGAIN.
 *   P2  A page is installed only if the table still says so after the lock
 *       was taken again (loads run without it).
 *   P3  The content of a missing page is in frontswap, in a frame, or zeros;
 *       it is given up only after the kernel said that the page is present,
 *       or by an event.
 *   P4  In fork mode nobody changes the table, the store or frontswap, so that
 *       the child's copy of them is whole.  Faults are answered without
 *       noting it: a page that is present although the table says STORED is
 *       harmless, as the kernel never asks for it (but see T6).  Events are
 *       put off.
 * Compression, decompression and swap I/O run without the lock.
 */
#ifndef TMEM_PAGER_PAGER_H
#define TMEM_PAGER_PAGER_H

#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <tmem/frontswap.h>
#include <tmem/store.h>
#include <tmem/swapfile.h>

#include "base/lock.h"
#include "frames.h"
#include "stream.h"
#include "table.h"
#include "wire/tree.h"

enum {
	PAGER_MAX_HANDLERS = 16,
	PAGER_MAX_OWN = 256,
	PAGER_BACKLOG = 32,
	PAGER_LOADS = 16,
	PAGER_MAX_LEFT_OUT = 64,
	PAGER_MAX_FETCH = 64,
	PAGER_MAX_MOVED = 8,
	PAGER_MAX_HOMES = 16,
	PAGER_STASH = 1024,
	PAGER_MAPS_BUFFER = 64 << 10,
	PAGER_STACK_BYTES = 64 << 10,
	PAGER_FRONTSWAP_TYPE = 0
};

/* A mapping of the pager's own, or a registered range of the program's. */
struct tmem_range {
	uint64_t start;
	uint64_t end;
};

/* A page on its way back: load.h. */
struct tmem_load {
	uint64_t vpn;	 /* where it was claimed */
	uint32_t handle; /* where it is; TABLE_NO_HANDLE: not wanted any more */
	uint32_t offset; /* of its copy */
	int result;
	bool in_store; /* the content came from tmem, not from swap */
};

/* What a handler is to read ahead: ahead.h. */
struct tmem_job {
	uint64_t vpn;
	int64_t stride;
	uint32_t left;
	uint32_t looked; /* so far for pages in the swap file */
};

struct tmem_handler {
	struct tmem_pager *pager;
	unsigned nr;
	int cpu; /* -1: not pinned */
	int tid;
	int kick_fd;		/* eventfd: look around and evict */
	_Atomic uint32_t urged; /* SCHED_FIFO until the budget holds */
	void *block;		/* stack and thread block */
	struct tmem_load load[PAGER_LOADS];
	unsigned nr_loads;
	struct tmem_job job;
	unsigned owed_pages;	       /* brought in, not evicted for yet */
	struct tmem_frame_group *open; /* evict.h, V1; or NULL */
	unsigned nr_sent;	       /* of its frames */
	uint64_t zero_next;	       /* vpn after the last zero fill */
	uint32_t zero_window;
	/* Faults read while looking for an event: answered next. */
	uint64_t backlog[PAGER_BACKLOG];
	unsigned nr_backlog;
	uint8_t *page;	/* scratch, a page for each load */
	uint8_t *page2; /* another */
};

enum tmem_pager_state {
	PAGER_OFF = 0,
	PAGER_STARTING,
	PAGER_SERVING,
	PAGER_FAILED,
	PAGER_ENDED
};

/* What a program's thread asks the gate for: gate.h. */
struct tmem_gate {
	_Atomic uint32_t busy;	  /* the asking thread's tid, or 0; futex */
	_Atomic uint32_t signal;  /* futex: something is new */
	_Atomic uint32_t command; /* enum tmem_gate_command */
	_Atomic uint32_t answer;  /* futex: 1 when done */
	_Atomic int32_t fork_pid; /* the fork's result, as the parent sees it */
	bool announced;		  /* fork mode was asked for by the wrapper */
	bool settling;		  /* events are still applied: event.h */
	_Atomic bool expected;	  /* that fork's event was not read yet */
	int32_t child_uffd;	  /* from the fork event; -1 */
	uint64_t heard;		  /* notes when that event was read */
	uint64_t child_notes;	  /* those that the child may have seen */
	uint64_t own_notes;	  /* in pager->seen: from here on its own */
	int32_t child_slot;	  /* claimed for the child */
	uint32_t child_reason;	  /* if not: enum tmem_not_paged */
	bool whole;		  /* birth.h: nothing is to be out */
	bool untrapped;		  /* GATE_BIRTH_ASK: trap.h */
	uint64_t range_start;	  /* GATE_PIN, GATE_LEAVE_OUT, GATE_HOME */
	uint64_t range_end;
};

struct tmem_pager {
	_Atomic uint32_t state; /* enum tmem_pager_state; futex */
	int32_t start_error;	/* why FAILED */
	uint32_t fail_reason;	/* enum tmem_not_paged */
	int32_t program_pid;	/* in our pid namespace */
	int32_t pager_pid;
	bool forked;  /* started in a fork's child */
	bool alone;   /* and its parent's pager has let go of it */
	bool trapped; /* forks are not told of: trap.h */
	char tree_name[96];
	char comm[TMEM_TREE_COMM];

	/* Descriptors, all in the pager process's own table. */
	int tree_fd;
	int uffd;
	int wake_fd; /* eventfd of the keeper's */
	int program_pidfd;
	int statm_fd;
	int pagemap_fd;
	int maps_fd;	   /* -1: no PROCMAP_QUERY */
	bool remaps_right; /* events of mremap() have the right length */
	int swap_file_fd;
	int swap_map_fd;

	struct tmem_tree *tree;
	struct tmem_tree_slot *slot;
	int32_t slot_nr;

	struct tmem_lock lock;
	struct tmem_table table;
	struct tmem_frames frames;
	struct tmem_store *store;
	uint64_t store_max_bytes; /* the largest limit that it can have */
	uint64_t store_limit;	  /* as it is now */
	struct tmem_frontswap *frontswap;
	struct tmem_swapfile *swapfile;
	uint64_t *offsets_used; /* bitmap of frontswap offsets in use */
	uint64_t nr_offsets;
	uint32_t offset_hint;  /* no free one below this word */
	uint64_t stored_pages; /* offsets in use */

	struct tmem_handler handlers[PAGER_MAX_HANDLERS];
	unsigned nr_handlers;
	_Atomic uint32_t solo; /* solo.h: handler number + 1, or 0 */
	const volatile uint32_t *rseq_cpu; /* solo.h; NULL: none */
	struct tmem_streams streams;
	uint64_t ahead_wasted_seen; /* of table.nr_wasted, by the streams */
	uint32_t hand_leaf;	    /* where the hand is: hand.c */
	uint64_t hand_may;	    /* pages of it, as of the visit */
	uint64_t hand_left;	    /* of these, not looked at yet */
	uint64_t hand_seed;
	uint32_t heat_tick;  /* heat.h */
	uint32_t heat_usual; /* for how long pages are out */
	uint64_t heat_left;  /* pages that left since the tick */

	/* Outside the lock, but must be 0 for some steps. */
	_Atomic uint32_t nr_storing; /* evictors between two holds of lock */
	_Atomic uint32_t nr_loading;
	_Atomic uint32_t fork_mode;
	_Atomic uint32_t armed; /* memory is registered */

	/* Memory use: budget.h. */
	_Atomic int64_t usage_delta_pages; /* since the last statm */
	uint64_t program_cpu_ns; /* that the program had used: is it idle? */
	uint64_t full_tick_ns;
	uint64_t usage_base_pages;
	uint64_t usage_store_base;
	uint64_t last_minflt;
	uint64_t last_pss_ns;
	uint64_t pss_took_ns;
	_Atomic uint32_t pss_stale; /* a fork has changed it */
	_Atomic uint32_t dumping;   /* the program's core: nothing moves */
	int64_t pss_minus_rss;	    /* pages, with copies made since */
	int64_t pss_at_read;	    /* the same when Pss was read */
	_Atomic uint32_t related;   /* forked, or has live forked children */
	uint32_t nr_relatives;	    /* that live, as last seen */
	uint64_t shmem_pages;
	int64_t unknown_at_scan;
	uint64_t zeros_found; /* by the last scan; zeros.h */
	int64_t zeros_base;   /* zeros.h: Z1 */
	uint64_t zeros_done;  /* the sweep goes on at this address, */
	uint32_t zeros_leaf;  /* in this leaf */
	unsigned idle_ticks;  /* looks since the program last ran */
	uint64_t scan_ns;     /* what the last scan took */
	uint64_t scan_end_ns;
	uint64_t full_until_ticks; /* no place was found: pause until then */
	int rt_priority; /* of the program's most urgent thread, or 0 */

	struct tmem_range own[PAGER_MAX_OWN];
	unsigned nr_own;
	unsigned nr_moved;
	struct tmem_range moved[PAGER_MAX_MOVED]; /* vpns: late.h */
	struct tmem_range aside;		  /* vpns: late.h, E3 */
	struct tmem_range left_out[PAGER_MAX_LEFT_OUT];
	unsigned nr_left_out;
	/* What the program wants to keep from its children: region.h. */
	struct tmem_range homes[PAGER_MAX_HOMES];
	unsigned nr_homes;
	bool zeros_new; /* zeros_found was not told yet */
	bool small_too; /* small ranges add up: page them as well */
	bool scans_off;
	bool full_seen;
	uint8_t *maps_buffer;
	struct tmem_range *excluded;
	void *regions;
	struct tmem_range *runs;
	uint64_t fetch[PAGER_MAX_FETCH]; /* vpns, pinned but out: pin.h */
	unsigned nr_fetch;
	uint32_t touch_word;
	uint8_t *spare_page;
	uint8_t *gate_page;
	void *gate_block;
	void *ticker_block;
	void *upkeep_block;
	uint8_t *ticker_page;
	uint32_t busy_leaf;		/* where busy.c goes on */
	_Atomic uint32_t some_busy;	/* some pages are marked busy */
	_Atomic uint32_t evict_starved; /* nothing could be evicted */
	_Atomic uint32_t some_stuck;	/* pages could not be put back */
	uint32_t refused_run; /* pages that the store refused, one after another
			       */
	uint64_t starved_ns;  /* since when, or 0 */
	uint64_t over_ns;     /* since when we hold too much, or 0 */
	uint64_t ask_next_ns; /* when handlers are asked, if that is long */
	bool asked;	      /* at this tick; and at the one before: */
	bool asked_before;
	uint64_t unshare_until_ns; /* busy.c */
	uint64_t busy_next_ns;	   /* when busy.c looks again */

	struct tmem_anchor *anchor;
	uint64_t nr_taken;   /* pages into frames: wire/anchor.h */
	uint64_t nr_dropped; /* stored copies: the same */

	struct tmem_gate gate;
	uint8_t *doorbell; /* two pages, registered, never populated: fork.h */
	struct tmem_deferred *deferred; /* event.h */
	struct tmem_deferred *seen;	/* by the child in hand: seen.h */
	struct tmem_birth *birth;	/* birth.h */
	uint8_t *birth_stack;
	uint64_t *stash; /* vpns of faults that have to ask again: born.c */
	unsigned nr_stash;
	unsigned nr_let; /* runs that a child gets: region.h */

	uint64_t guards[2]; /* stack and pointer guard of the program's TCB */
	uint64_t tls_bytes;
	uint64_t clock_ticks0; /* clock.h */
	uint64_t clock_ns0;
	_Atomic uint64_t clock_scale;
};

/* The one of this process; NULL where nothing is paged. */
extern struct tmem_pager *tmem_pager;

#define PAGER_COUNT(pager, name, n)                                 \
	atomic_fetch_add_explicit(&(pager)->slot->counters.name, n, \
				  memory_order_relaxed)

/* Anonymous memory of the pager's own, known as such; NULL: none. */
void *tmem_pager_map(struct tmem_pager *pager, size_t bytes);

#endif
