/* SPDX-License-Identifier: MIT */
/*
 * What the processes of one `tmem run` tree share: the budget page and the
 * messages on the tree's socket.
 *
 * The *keeper* (the `tmem run` parent) makes the budget page, a memfd that
 * every pager of the tree maps.  The bytes of -m SIZE are either granted to a
 * slot or in `avail_bytes`:
 *
 *   I1  limit_bytes == avail_bytes + keeper_bytes + sum of grant_bytes
 *       (between two steps of somebody's transfer: at most that).
 *   I2  A pager takes from avail by compare-and-swap, never below 0, and adds
 *       to its own grant; it gives back the other way round.  Only the keeper
 *       touches the grant of a DEAD slot (adds it to avail, then frees it).
 *   I3  A slot's fields are written by its pager only, but for `state` as
 *       said below and `target_bytes`, `wake` which are the keeper's.
 *
 * Slot life: FREE -> CLAIMED (by a pager's compare-and-swap: its own at the
 * start of a program, or its child's before a fork) -> LIVE (by its pager,
 * once it serves) -> DEAD (by its pager at the end, or by the keeper when the
 * program's pidfd says so or a claim failed) -> FREE (by the keeper, after it
 * has added up the counters and dropped the swap references).
 *
 * A slot's number is also its user number in the swap file's slot map.
 *
 * Messages: SEQPACKET, one struct each, from pager to keeper and back; the
 * keeper checks the peer's uid and that it descends from it.
 *
 *   pager                                keeper
 *   HELLO {slot, pid, kind, comm}   ->
 *                                   <-   WELCOME {result, ...}
 *                                        + budget, swap map, wake eventfd,
 *                                          [swap file], [/dev/userfaultfd]
 *   UFFD + a new userfaultfd        ->   (asks for UFFDIO_API itself, with
 *                                         the keeper's rights; features 0:
 *                                         it is ready, as a fork's child's)
 *                                   <-   UFFD_OK {result, features}
 *   ... the connection stays open until the pager ends.
 *
 *   NOT_PAGED {pid, reason, comm}   ->   from any process; no answer
 *   SWAP_FULL {slot}                ->   keeper applies --on-full
 *   WANT {slot}                     ->   keeper divides memory now; without
 *                                        it, at its next look (1 s if idle)
 */
#ifndef TMEM_WIRE_TREE_H
#define TMEM_WIRE_TREE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define TMEM_TREE_MAGIC	  0x656572746d656d74ull /* "tmemtree" */
#define TMEM_TREE_VERSION 1u
/* Environment: the socket's abstract name, without the leading NUL. */
#define TMEM_TREE_ENV "TMEM_TREE"

enum {
	TMEM_TREE_SLOTS = 512,
	TMEM_TREE_COMM = 16,
	TMEM_TREE_NO_SLOT = -1,
	TMEM_TREE_LOST_PAGES = 8, /* of a process, told one by one */
	TMEM_STALL_BUCKETS = 32,
	TMEM_STALL_FIRST_LOG2 = 7 /* the first bucket ends below 2^7 ns */
};

enum tmem_tree_state {
	TMEM_SLOT_FREE = 0,
	TMEM_SLOT_CLAIMED,
	TMEM_SLOT_LIVE,
	TMEM_SLOT_DEAD
};

enum tmem_on_full {
	TMEM_FULL_GROW = 0,
	TMEM_FULL_PAUSE,
	TMEM_FULL_TERM
};

struct tmem_tree_counters {
#define COUNTER(name, unit, text) _Atomic uint64_t name;
#include "counters.def"
#undef COUNTER
	/* Faults by how long they waited: tmem_stall_bucket(). */
	_Atomic uint64_t stall_buckets[TMEM_STALL_BUCKETS];
};

/*
 * Bucket 0 is for less than 2^7 ns, bucket i for 2^(i+6) ns to less than
 * 2^(i+7), the last for all that is longer (from 2.3 minutes on).
 */
static inline unsigned tmem_stall_bucket(uint64_t ns)
{
	unsigned bits = 64u - (unsigned)__builtin_clzll(ns | 1);

	if (bits <= TMEM_STALL_FIRST_LOG2)
		return 0;
	bits -= TMEM_STALL_FIRST_LOG2;
	return bits < TMEM_STALL_BUCKETS ? bits : TMEM_STALL_BUCKETS - 1;
}

/* A page that could not be read back. */
struct tmem_tree_lost {
	_Atomic uint64_t addr; /* written last; 0: it is not whole yet */
	int64_t place;	       /* of its copy in the swap file, in bytes;
				  -1: it was in the store */
	int32_t error;	       /* -EBADMSG: the copy is damaged (in the store:
				  whatever this is); else that of the read */
	uint32_t reserved;
};

struct tmem_tree_slot {
	_Atomic uint32_t state;
	_Atomic int32_t pid;	     /* the program, as the keeper sees it */
	_Atomic int32_t pager_pid;   /* likewise */
	_Atomic int32_t parent_slot; /* forked from; TMEM_TREE_NO_SLOT */
	char comm[TMEM_TREE_COMM];
	_Atomic uint64_t grant_bytes;
	_Atomic uint64_t target_bytes; /* give back down to this; UINT64_MAX */
	_Atomic uint64_t usage_bytes;  /* Pss_Anon + Pss_Shmem, as estimated */
	_Atomic uint64_t peak_bytes;
	_Atomic uint64_t
		want_bytes; /* would take this much more, if it could */
	/* Of the store, now and at its highest. */
	_Atomic uint64_t store_held_bytes;
	_Atomic uint64_t stored_pages;
	_Atomic uint64_t stored_bytes; /* compressed, without metadata */
	_Atomic uint64_t same_pages;
	_Atomic uint64_t raw_pages;
	_Atomic uint64_t refused_pages; /* so far */
	_Atomic uint64_t swapped_pages; /* in the swap file now */
	_Atomic uint64_t peak_stored_pages;
	_Atomic uint64_t peak_stored_bytes; /* at that moment */
	_Atomic uint64_t peak_held_bytes;   /* at that moment */
	_Atomic uint64_t peak_swapped_pages;
	_Atomic uint64_t shared_bytes;	   /* shmem resident: not pageable */
	_Atomic uint64_t unpageable_bytes; /* private, but left out */
	_Atomic uint32_t nr_lost; /* may be more than there is room for */
	struct tmem_tree_lost lost[TMEM_TREE_LOST_PAGES];
	struct tmem_tree_counters counters;
};

/* What tmem run's options can switch off, all on by default. */
enum tmem_switch {
	TMEM_READ_AHEAD, /* ahead.h */
	TMEM_HEAT,	 /* heat.h */
	TMEM_KEEP_POOR,	 /* hand.h */
	TMEM_METER,	 /* evict.h */
	TMEM_COOL	 /* upkeep.h */
};

struct tmem_tree {
	uint64_t magic;
	uint32_t version;
	uint32_t nr_slots;
	_Atomic uint64_t limit_bytes;  /* -m SIZE */
	_Atomic uint64_t keeper_bytes; /* the keeper's own memory */
	_Atomic int64_t avail_bytes;
	_Atomic uint64_t peak_bytes; /* of the sum of usage_bytes */
	uint32_t on_full;	     /* enum tmem_on_full */
	uint32_t without;	     /* bits of 1 << enum tmem_switch */
	uint32_t stall_log;	     /* entries of stalls.h's log; 0: none */
	_Atomic uint32_t growing;    /* swap is full and --on-full grow */
	struct tmem_tree_slot slots[TMEM_TREE_SLOTS];
};

static inline bool tmem_tree_has(const struct tmem_tree *tree,
				 enum tmem_switch what)
{
	return !(tree->without >> what & 1);
}

enum tmem_tree_type {
	TMEM_TREE_HELLO = 1,
	TMEM_TREE_WELCOME,
	TMEM_TREE_UFFD,
	TMEM_TREE_UFFD_OK,
	TMEM_TREE_NOT_PAGED,
	TMEM_TREE_SWAP_FULL,
	TMEM_TREE_WANT
};

/* Which descriptors a WELCOME brings, in this order. */
enum {
	TMEM_TREE_FD_BUDGET = 1 << 0,
	TMEM_TREE_FD_SWAP_MAP = 1 << 1,
	TMEM_TREE_FD_WAKE = 1 << 2,
	TMEM_TREE_FD_SWAP_FILE = 1 << 3,
	TMEM_TREE_FD_UFFD_DEV = 1 << 4
};

enum tmem_not_paged {
	TMEM_NOT_PAGED_STATIC = 1, /* no dynamic loader: static, Go */
	TMEM_NOT_PAGED_SETUID,
	TMEM_NOT_PAGED_ENV, /* its environment lost LD_PRELOAD or TMEM_TREE */
	TMEM_NOT_PAGED_LOADER,	 /* another C library or architecture */
	TMEM_NOT_PAGED_RIGHTS,	 /* no userfaultfd for it */
	TMEM_NOT_PAGED_SECCOMP,	 /* it installed a filter of its own */
	TMEM_NOT_PAGED_RAW_FORK, /* forked past the C library */
	TMEM_NOT_PAGED_SLOTS,	 /* more processes than slots */
	TMEM_NOT_PAGED_FAILED	 /* starting its pager failed */
};

struct tmem_tree_message {
	uint32_t type; /* enum tmem_tree_type */
	uint32_t version;
	int32_t slot;
	int32_t pid;	   /* sender's view; the keeper trusts SO_PEERCRED */
	int32_t result;	   /* 0 or -errno, in answers */
	uint32_t fds;	   /* TMEM_TREE_FD_* that come with a WELCOME */
	uint32_t reason;   /* enum tmem_not_paged */
	uint32_t forked;   /* HELLO: 1 after a fork, 0 after exec */
	uint64_t features; /* UFFD, UFFD_OK */
	char comm[TMEM_TREE_COMM];
};

_Static_assert(sizeof(struct tmem_tree_message) == 56, "wire format");

#endif
