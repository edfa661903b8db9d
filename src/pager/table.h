/* SPDX-License-Identifier: MIT */
/*
 * The page table of the pager: what it knows of each page of the program.
 *
 * The kernel's page tables are the truth about which pages are present; this
 * table says where the content of a page is that is *not*.  A leaf covers
 * 256 KiB (64 pages) and exists once anything is known in it, so reserves of
 * terabytes cost nothing, and a page on its own costs 496 bytes.  A page is
 * named by its virtual page number (vpn), or by a 32-bit handle: leaf number <<
 * LEAF_SHIFT | index in the leaf.
 *
 *   T1  The entry of a page whose content is only with us (STORED, LOADING,
 *       LEAVING) is never PAGE_NONE: a missing page with PAGE_NONE is zeros.
 *   T2  resident[] has a bit for each RESIDENT and KEPT page, and no other;
 *       nr_resident counts them, in the leaf and in the table.
 *   T3  nr_used counts entries other than PAGE_NONE plus pinned bits; a leaf
 *       with nr_used 0 may be freed.
 *   T4  A leaf's base and its slot in the directory name each other.
 *   T5  ahead[] has a bit for pages that were read ahead and of which it is
 *       not known whether the program came there: RESIDENT or KEPT ones only.
 *       nr_ahead counts them.  Each page ever marked is still marked, or was
 *       found used, or is counted in nr_wasted.
 *   T6  A page that is present although its entry says that it is stored has
 *       its bit in loose[]: fork mode's (pager.h, P4).  Only who reads a core
 *       dump asks.  Setting the entry clears it.
 *
 * Guarded by the pager's lock; read without it only in fork mode, when
 * nobody writes.
 */
#ifndef TMEM_PAGER_TABLE_H
#define TMEM_PAGER_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tmem_page_state {
	PAGE_NONE = 0, /* never touched, or zeros */
	PAGE_RESIDENT, /* present; nothing stored */
	PAGE_KEPT,     /* present; the stored copy at `value` is kept */
	PAGE_STORED,   /* evicted to frontswap offset `value` */
	PAGE_LOADING,  /* a handler is loading it from offset `value` */
	PAGE_LEAVING,  /* in frame `value`, on its way out */
	PAGE_LOST      /* could not be read back */
};

enum {
	LEAF_SHIFT = 6,
	LEAF_PAGES = 1 << LEAF_SHIFT,
	LEAF_WORDS = LEAF_PAGES / 64,
	TABLE_VALUE_BITS = 29,
	/* Of 16 GiB each: 128 TiB, and as much where no page is (late.h). */
	TABLE_L1 = 2 * 8192,
	TABLE_L2 = 65536, /* leaves */
	TABLE_CHUNK = 128,
	TABLE_CHUNKS = 1 << 17,
	HEAT_AGE_BITS = 13,
	HEAT_AGE_MASK = (1 << HEAT_AGE_BITS) - 1
};

#define TABLE_VALUE_MASK ((1u << TABLE_VALUE_BITS) - 1)
#define TABLE_NO_HANDLE	 UINT32_MAX
#define TABLE_NO_LEAF	 UINT32_MAX

/* Into which frames the hand now moves a leaf's pages: hand.c. */
enum tmem_leaf_way {
	LEAF_WAY_RW = 0,
	LEAF_WAY_RWX
};

struct tmem_leaf {
	uint64_t base; /* first vpn; UINT64_MAX: free */
	uint32_t nr_used;
	uint32_t next_free;
	uint32_t way;	      /* enum tmem_leaf_way */
	uint32_t nr_resident; /* bits in resident[] */
	uint64_t resident[LEAF_WORDS];
	uint64_t young[LEAF_WORDS]; /* to be passed by: heat.h */
	uint64_t pinned[LEAF_WORDS];
	uint64_t odd[LEAF_WORDS];    /* not into read-write frames */
	uint64_t never[LEAF_WORDS];  /* nor into executable ones */
	uint64_t busy[LEAF_WORDS];   /* shared by fork, or held by the kernel */
	uint64_t poor[LEAF_WORDS];   /* compresses poorly: hand.h */
	uint64_t missed[LEAF_WORDS]; /* poor, and came back from swap */
	uint64_t ahead[LEAF_WORDS];  /* read ahead, not known to be used */
	uint64_t loose[LEAF_WORDS];  /* T6 */
	uint32_t entry[LEAF_PAGES];
	uint16_t age[LEAF_PAGES]; /* heat << HEAT_AGE_BITS | H1 or H2: heat.h */
	uint16_t came;		  /* tick when a page last came back */
	uint8_t visits;		  /* of the hand */
};

struct tmem_table {
	uint32_t **l1; /* TABLE_L1 pointers to TABLE_L2 of leaf number + 1 */
	struct tmem_leaf **chunks;
	uint32_t nr_leaves; /* ever made, freed ones included */
	uint32_t free_leaf; /* list through next_free; TABLE_NO_LEAF ends */
	uint64_t nr_resident;
	uint64_t nr_ahead;
	uint64_t nr_wasted; /* read ahead, and gone before they were used */
	uint64_t held_bytes;
};

static inline enum tmem_page_state tmem_entry_state(uint32_t entry)
{
	return (enum tmem_page_state)(entry >> TABLE_VALUE_BITS);
}

static inline uint32_t tmem_entry_value(uint32_t entry)
{
	return entry & TABLE_VALUE_MASK;
}

static inline uint64_t tmem_vpn(uint64_t addr)
{
	return addr >> 12;
}

/* 0 or -ENOMEM. */
int tmem_table_init(struct tmem_table *table);

/* The leaf by number, whether in use or not. */
struct tmem_leaf *tmem_table_leaf(const struct tmem_table *table, uint32_t nr);

/* The handle of a page, or TABLE_NO_HANDLE if nothing is known near it. */
uint32_t tmem_table_find(const struct tmem_table *table, uint64_t vpn);
/* The same, making the leaf if need be; TABLE_NO_HANDLE: out of memory. */
uint32_t tmem_table_make(struct tmem_table *table, uint64_t vpn);

/* The entry of a page; PAGE_NONE if nothing is known. */
uint32_t tmem_table_get(const struct tmem_table *table, uint64_t vpn);
uint32_t tmem_table_entry(const struct tmem_table *table, uint32_t handle);
uint64_t tmem_table_vpn(const struct tmem_table *table, uint32_t handle);

/* Sets state and value, keeping T2 and T3.  May free the leaf. */
void tmem_table_set(struct tmem_table *table, uint32_t handle,
		    enum tmem_page_state state, uint32_t value);

void tmem_table_set_busy(struct tmem_table *table, uint32_t handle);
/* Refused for its content; read back from swap; stored after all. */
void tmem_table_set_poor(struct tmem_table *table, uint32_t handle);
void tmem_table_set_missed(struct tmem_table *table, uint32_t handle);
void tmem_table_clear_poor(struct tmem_table *table, uint32_t handle);
bool tmem_table_is_poor(const struct tmem_table *table, uint32_t handle);
/* A resident page was read ahead; it is used: true if it was marked. */
void tmem_table_set_ahead(struct tmem_table *table, uint32_t handle);
bool tmem_table_use(struct tmem_table *table, uint32_t handle);
void tmem_table_set_loose(struct tmem_table *table, uint32_t handle);
bool tmem_table_is_loose(const struct tmem_table *table, uint32_t handle);
void tmem_table_pin(struct tmem_table *table, uint32_t handle);
bool tmem_table_is_pinned(const struct tmem_table *table, uint64_t vpn);

/*
 * Calls fn(arg, handle, entry) for each page in [start, end) (vpns) that is
 * not PAGE_NONE.  fn may set the entry of that page.
 */
typedef void tmem_table_fn(void *arg, uint32_t handle, uint32_t entry);
void tmem_table_walk(struct tmem_table *table, uint64_t start, uint64_t end,
		     tmem_table_fn *fn, void *arg);
/* Forgets the pins in [start, end): the memory is gone. */
void tmem_table_unpin(struct tmem_table *table, uint64_t start, uint64_t end);

/* The table's own memory, but for its first level. */
void tmem_table_for_each_mapping(const struct tmem_table *table,
				 void (*fn)(void *arg, void *start,
					    size_t bytes),
				 void *arg);

/* Walks T2 to T5; aborts if one fails. */
void tmem_table_check(const struct tmem_table *table);

#endif
