/* SPDX-License-Identifier: MIT */
/*
 * The keeper of one tree: who it is, what it knows, and how its files share
 * the work.  One process, one thread, one event loop.
 *
 *   keeper.c   starts the program, the event loop, the end
 *   serve.c    connections: who may, HELLO, descriptors, userfaultfds
 *   control.c  tmem top and tmem set
 *   slots.c    slot life: claim, watch, reap; the tree's totals
 *   share.c    how much of the budget each process should have
 *   limits.c   --on-full, --max-stall, memory cgroups
 *   follow.c   a budget that changes: tmem set, -m auto
 *   lost.c     pages that could not be read back
 *   outside.c  processes of the tree that are not paged
 *   report.c   the report
 *   stats.c    --stats
 *   profile.c  --profile, by a process of its own
 *
 * K1  A slot with `conn` has state CLAIMED, LIVE or DEAD; its connection
 *     points back at it.
 * K2  A slot is freed only when its pager has gone (connection closed, or
 *     never came) and its program has ended or been replaced by exec.
 * K3  While a pager lives we hold a copy of its userfaultfd: if it is killed,
 *     the program waits for us to end it, rather than read zeros.
 * K4  The keeper writes to standard error only when nothing of the tree is
 *     left, else from a child of its own: the pipe may be one that a paged
 *     thread holds while it waits for memory.
 */
#ifndef TMEM_CLI_KEEPER_H
#define TMEM_CLI_KEEPER_H

#include "cli/options.h"
#include "cli/profile.h"
#include "cli/swap.h"
#include "wire/message.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/types.h>

#define TMEM_MS		 1000000ull
#define TMEM_S		 1000000000ull
#define TMEM_KEEPER_COMM "tmem-keeper"

enum {
	TMEM_MAX_CONNS = 2 * TMEM_TREE_SLOTS,
	TMEM_MAX_OUTSIDE = 64,
	TMEM_KEEPER_LOST = 64, /* pages that the report names */
	TMEM_GONE_PAGERS = 256
};

struct tmem_keeper_conn {
	int fd;	   /* -1: free */
	pid_t pid; /* of the peer, as the kernel says */
	uid_t uid;
	int slot; /* TMEM_TREE_NO_SLOT before HELLO */
};

struct tmem_keeper_slot {
	int conn; /* -1: none */
	int uffd; /* K3 */
	int wake_fd;
	int pid_fd; /* of the program */
	pid_t pid;
	uint64_t start_stack; /* of the program at HELLO */
	bool ended;	      /* the program */
	uint64_t since_ns;    /* it ended; or the claim was first seen */
	uint64_t faults;      /* at the last look, for the rate */
	uint64_t stall_ns;    /* likewise */
	double rate;	      /* faults a second, smoothed */
	unsigned nr_lost;     /* of its lost pages, so many are known to us */
};

/* Counters and peaks of the whole tree, the dead included. */
struct tmem_keeper_totals {
	struct tmem_tree_counters counters;
	uint64_t refused_pages;
	uint64_t peak_bytes;
	uint64_t peak_stored_pages;
	uint64_t peak_stored_bytes; /* at that moment, as the next three */
	uint64_t peak_held_bytes;
	uint64_t peak_same_pages;
	uint64_t peak_raw_pages;
	uint64_t peak_swapped_pages;
	uint64_t peak_shared_bytes;
	uint64_t peak_unpageable_bytes;
	unsigned nr_paged; /* processes that ever had a pager */
};

/* A page that could not be read back. */
struct tmem_keeper_lost {
	pid_t pid;
	char comm[TMEM_TREE_COMM];
	uint64_t addr;
	int64_t place; /* wire/tree.h */
	int error;
};

/* Processes of the tree without a pager. */
struct tmem_keeper_outside {
	char comm[TMEM_TREE_COMM];
	uint32_t reason; /* enum tmem_not_paged */
	unsigned count;
	pid_t last_pid;
};

struct tmem_keeper_seen {
	pid_t pid;
	uint64_t start_time;
	unsigned looks; /* scans that found it without slot or word */
	bool known;	/* counted, or spoken for by NOT_PAGED */
	bool present;	/* in the running scan */
};

struct tmem_keeper {
	const struct tmem_run_options *options;
	struct tmem_swap swap;
	const char *pager_path;
	const char *root; /* of the file system: "", or a test's */
	char tree_name[64];
	struct tmem_amount memory; /* -m, as asked for last */
	uint64_t asked_bytes;	   /* what that is now */
	uint64_t next_follow_ns;

	struct tmem_tree *tree;
	int budget_fd;
	int swap_map_fd;
	int device_fd; /* /dev/userfaultfd, -1 */
	int listen_fd;
	int epoll_fd;
	int signal_fd;
	int front_fd;  /* -1 once it has gone */
	int report_fd; /* -1: standard error */
	int stats_fd;  /* -1: none */
	int spare_fd;  /* given up for a moment when descriptors run out */
	uid_t uid;

	struct tmem_profile profile;

	bool sigchld_ignored; /* by our caller, so by the program too */
	pid_t front_pid;
	pid_t main_pid;
	int main_pid_fd; /* --exec only, else -1 */
	bool main_ended;
	bool main_status_known;
	int main_status;
	bool told;	   /* the front knows the end */
	bool others_lived; /* after the program and its report */
	bool no_children;
	bool done;
	uint64_t start_ns;
	uint64_t end_ns;      /* of the program */
	uint64_t cpu_ns;      /* of what we reaped */
	uint64_t main_cpu_ns; /* --exec: at the last look */

	uint64_t next_tick_ns;
	uint64_t next_scan_ns;
	uint64_t next_weigh_ns;
	uint64_t last_tick_ns;
	uint64_t last_activity; /* a sum that changes when anything does */

	uint64_t swap_peak_pages; /* since the file was last trimmed */
	bool swap_has_lost;	  /* a killed process may have left slots */
	bool no_trim;		  /* the file system can't */
	bool swap_full;
	bool full_warned;
	uint64_t full_used_pages; /* of the swap file when it was full */
	uint64_t last_full_ns;
	bool paused;
	bool terminating;
	uint64_t stall_steps[10];
	unsigned stall_step;
	unsigned nr_stall_steps;
	uint64_t stall_step_ns; /* when the step began */
	uint64_t stall_sum_ns;	/* in the step so far */

	struct tmem_keeper_totals totals;
	struct tmem_keeper_outside outside[TMEM_MAX_OUTSIDE];
	unsigned nr_outside_kinds;
	struct tmem_keeper_lost lost[TMEM_KEEPER_LOST];
	unsigned nr_lost;

	pid_t stats_pid; /* who writes --stats, or 0 */
	uint64_t next_stats_ns;
	struct tmem_control_status stats; /* as last written */

	struct tmem_keeper_seen *seen;
	unsigned nr_seen, max_seen;

	/* Pagers whose connection has closed; they are reaped soon. */
	pid_t gone_pagers[TMEM_GONE_PAGERS];
	unsigned nr_gone_pagers;

	struct tmem_keeper_slot slots[TMEM_TREE_SLOTS];
	struct tmem_keeper_conn conns[TMEM_MAX_CONNS];
};

/* Event tags: what in the upper half, which in the lower. */
enum tmem_keeper_event {
	TMEM_EVENT_LISTEN = 1,
	TMEM_EVENT_CONN,
	TMEM_EVENT_PROGRAM, /* a slot's pidfd */
	TMEM_EVENT_SIGNAL,
	TMEM_EVENT_FRONT,
	TMEM_EVENT_MAIN
};

/* keeper.c */
uint64_t tmem_keeper_now_ns(void);
int tmem_keeper_watch(struct tmem_keeper *k, int fd,
		      enum tmem_keeper_event event, unsigned index);
/*
 * A child that writes (K4) to its standard output, which is `fd`, and exits;
 * of our descriptors it has no other.
 */
pid_t tmem_keeper_fork_writer(int fd);
/* One line on standard error, by a child (K4). */
void tmem_keeper_say(struct tmem_keeper *k, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
void tmem_keeper_signal_main(struct tmem_keeper *k, int sig);
/*
 * Runs the tree to its end.  `front_fd`: a TMEM_FRONT_* socket.  With --exec
 * the program is `main_pid`, started by others; else main_pid is 0.  Signals
 * are blocked; original_mask is the program's.  Does not return.
 */
void tmem_keeper_main(struct tmem_keeper *k, int front_fd, pid_t main_pid,
		      const sigset_t *original_mask) __attribute__((noreturn));
/* Becomes the program, in its environment; returns an errno if it can't. */
int tmem_keeper_exec_program(const struct tmem_keeper *k,
			     const sigset_t *original_mask);
/* Makes budget page, slot map, socket.  0, or an exit status after a line. */
int tmem_keeper_open(struct tmem_keeper *k);

/* serve.c */
void tmem_serve_accept(struct tmem_keeper *k);
void tmem_serve_conn(struct tmem_keeper *k, unsigned conn);

/* control.c */
/* True if the packet was a request, now answered: then hang up. */
bool tmem_control_answer(struct tmem_keeper *k,
			 const struct tmem_keeper_conn *conn, const void *bytes,
			 size_t len);

/* The tree's figures now; all else in ret_status is 0. */
void tmem_control_fill(const struct tmem_keeper *k,
		       struct tmem_control_status *ret_status);

/* stats.c */
/*
 * --stats: the file, or a copy of the descriptor, which the program then does
 * not get; -1 if not asked for.  0, or an exit status after a line.
 */
int tmem_stats_open(const struct tmem_run_options *o, int *ret_fd);
/* A line, if one is due. */
void tmem_stats_tick(struct tmem_keeper *k, uint64_t now_ns);
/* The program has ended: a line in any case. */
void tmem_stats_last(struct tmem_keeper *k, bool others_live);

/* slots.c */
void tmem_slots_init(struct tmem_keeper *k);
/* A free slot, now CLAIMED, or TMEM_TREE_NO_SLOT. */
int tmem_slots_claim(struct tmem_keeper *k);
/* The pager of a claimed slot has come: watch its program.  0 or -errno. */
int tmem_slots_attach(struct tmem_keeper *k, int slot, int conn, pid_t pid);
/* Its connection has closed. */
void tmem_slots_pager_gone(struct tmem_keeper *k, int slot);
/* Its program has ended. */
void tmem_slots_program_ended(struct tmem_keeper *k, int slot);
/* Frees what can be freed; looks after stale claims and hung pagers. */
void tmem_slots_sweep(struct tmem_keeper *k);
/* Slots in use; *ret_others: of programs other than the main one. */
unsigned tmem_slots_in_use(const struct tmem_keeper *k, unsigned *ret_others);
/* Adds up the living, keeps peaks.  Returns the sum of their usage. */
uint64_t tmem_slots_sample(struct tmem_keeper *k);
/* The totals with the living included. */
void tmem_slots_totals(const struct tmem_keeper *k,
		       struct tmem_keeper_totals *ret_totals);
/* Walks K1, K2 and, in an empty tree, tree.h's I1. */
void tmem_slots_check(const struct tmem_keeper *k);
void tmem_slots_wake(struct tmem_keeper *k, int slot);

/* share.c: true if somebody waits for memory. */
bool tmem_share_update(struct tmem_keeper *k, uint64_t elapsed_ns);

/* limits.c */
void tmem_limits_swap_full(struct tmem_keeper *k);
/* true if it wants to be asked again soon. */
bool tmem_limits_tick(struct tmem_keeper *k, uint64_t now_ns);
void tmem_limits_resume(struct tmem_keeper *k);

/* follow.c */
/*
 * Another -m for the tree.  Writes what it was and is now, and changes it; or
 * -ERANGE: less than tmem works in.
 */
int tmem_follow_set(struct tmem_keeper *k, struct tmem_amount memory,
		    uint64_t *ret_old_bytes);
/* At every tick: what -m auto is now. */
void tmem_follow_tick(struct tmem_keeper *k, uint64_t now_ns);

/* lost.c */
/* What a slot says that we do not know yet; that of all slots. */
void tmem_lost_collect(struct tmem_keeper *k, int slot);
void tmem_lost_look(struct tmem_keeper *k);
/* Why a page is lost, for people. */
void tmem_lost_text(const struct tmem_keeper_lost *lost, char *buf,
		    size_t bytes);

/* outside.c */
void tmem_outside_note(struct tmem_keeper *k, pid_t pid, const char *comm,
		       uint32_t reason);
/* A pager speaks for this process: it is inside. */
void tmem_outside_forget(struct tmem_keeper *k, pid_t pid);
/* True if there is one to be looked at again soon. */
bool tmem_outside_scan(struct tmem_keeper *k);

/* report.c */
/*
 * In the form asked for, to the report file or else to standard error.
 * nr_living: programs that are still being paged.
 */
void tmem_report_write(struct tmem_keeper *k, unsigned nr_living);

#endif
