/* SPDX-License-Identifier: MIT */
/*
 * Who should have how much of the budget.
 *
 * Nothing is done while there is enough: pagers take from `avail_bytes`
 * themselves.  When somebody wants memory and there is none, everybody gets a
 * share: a floor, so that nobody starves, and the rest by fault rate, for a
 * process that faults much is one that lacks memory.  Who needs less than its
 * share leaves the rest to the others (a few rounds of water filling).  A
 * process above its share is told to give back, all together no more than
 * what is wanted, so that memory does not slosh about.
 *
 * The rate is smoothed over about a second.
 */
#include "cli/keeper.h"

#define FLOOR_BYTES (8ull << 20)
#define MIN_WEIGHT  1.0 /* faults a second: idle processes are equals */
#define SMOOTH_S    1.0

enum {
	ROUNDS = 4
};

struct share {
	uint64_t need_bytes;  /* has and wants */
	uint64_t share_bytes; /* allotted so far */
	bool content;	      /* needs no more than its share */
	bool live;
};

static uint64_t get(const _Atomic uint64_t *value)
{
	return atomic_load_explicit(value, memory_order_relaxed);
}

static void update_rate(struct tmem_keeper_slot *s,
			const struct tmem_tree_slot *t, double seconds)
{
	uint64_t faults =
		get(&t->counters.faults_store) + get(&t->counters.faults_swap);
	double part = seconds < SMOOTH_S ? seconds / SMOOTH_S : 1.0;

	s->rate += part * ((double)(faults - s->faults) / seconds - s->rate);
	s->faults = faults;
}

static uint64_t floor_bytes(const struct tmem_keeper *k, unsigned nr_live)
{
	uint64_t most =
		(get(&k->tree->limit_bytes) - get(&k->tree->keeper_bytes)) / 2 /
		nr_live;

	return most < FLOOR_BYTES ? most : FLOOR_BYTES;
}

/* One round: divides `pool` among those not content.  True if that made
 * another one content, whose rest the others may have. */
static bool fill_round(const struct tmem_keeper *k, struct share *shares,
		       uint64_t floor, uint64_t pool)
{
	double weights = 0, part;
	bool again = false;
	unsigned n = 0;
	int i;

	for (i = 0; i < TMEM_TREE_SLOTS; i++) {
		if (!shares[i].live || shares[i].content)
			continue;
		weights += k->slots[i].rate + MIN_WEIGHT;
		n++;
	}
	for (i = 0; i < TMEM_TREE_SLOTS; i++) {
		if (!shares[i].live || shares[i].content)
			continue;
		part = (k->slots[i].rate + MIN_WEIGHT) / weights;
		shares[i].share_bytes = floor;
		if (pool > n * floor)
			shares[i].share_bytes +=
				(uint64_t)((double)(pool - n * floor) * part);
		if (shares[i].need_bytes <= shares[i].share_bytes) {
			shares[i].share_bytes = shares[i].need_bytes;
			shares[i].content = true;
			again = true;
		}
	}
	return again;
}

static void divide(const struct tmem_keeper *k, struct share *shares,
		   unsigned nr_live)
{
	uint64_t total =
		get(&k->tree->limit_bytes) - get(&k->tree->keeper_bytes);
	uint64_t floor = floor_bytes(k, nr_live), pool;
	int i, round;

	for (round = 0; round < ROUNDS; round++) {
		pool = total;
		for (i = 0; i < TMEM_TREE_SLOTS; i++)
			if (shares[i].live && shares[i].content)
				pool -= shares[i].share_bytes < pool
						? shares[i].share_bytes
						: pool;
		if (!fill_round(k, shares, floor, pool))
			break;
	}
}

static void set_target(struct tmem_keeper *k, int slot, uint64_t target)
{
	_Atomic uint64_t *word = &k->tree->slots[slot].target_bytes;

	if (get(word) == target)
		return;
	atomic_store(word, target);
	if (target != UINT64_MAX)
		tmem_slots_wake(k, slot);
}

/* Those above their share give back `lack` bytes, in proportion. */
static void set_targets(struct tmem_keeper *k, const struct share *shares,
			uint64_t lack)
{
	uint64_t grant, excess, all = 0;
	double part;
	int i;

	for (i = 0; i < TMEM_TREE_SLOTS; i++) {
		grant = get(&k->tree->slots[i].grant_bytes);
		if (shares[i].live && grant > shares[i].share_bytes)
			all += grant - shares[i].share_bytes;
	}
	part = all > lack ? (double)lack / (double)all : 1.0;
	for (i = 0; i < TMEM_TREE_SLOTS; i++) {
		grant = get(&k->tree->slots[i].grant_bytes);
		excess = 0;
		if (shares[i].live && grant > shares[i].share_bytes)
			excess = (uint64_t)((double)(grant -
						     shares[i].share_bytes) *
					    part);
		set_target(k, i, excess ? grant - excess : UINT64_MAX);
	}
}

static void wake_waiting(struct tmem_keeper *k)
{
	int i;

	for (i = 0; i < TMEM_TREE_SLOTS; i++)
		if (get(&k->tree->slots[i].want_bytes))
			tmem_slots_wake(k, i);
}

bool tmem_share_update(struct tmem_keeper *k, uint64_t elapsed_ns)
{
	struct share shares[TMEM_TREE_SLOTS] = { 0 };
	double seconds = (double)(elapsed_ns ? elapsed_ns : 1) / 1e9;
	int64_t avail = atomic_load(&k->tree->avail_bytes);
	uint64_t want = 0, wanted;
	unsigned nr_live = 0;
	int i;

	for (i = 0; i < TMEM_TREE_SLOTS; i++) {
		const struct tmem_tree_slot *t = &k->tree->slots[i];

		if (atomic_load(&t->state) != TMEM_SLOT_LIVE)
			continue;
		update_rate(&k->slots[i], t, seconds);
		wanted = get(&t->want_bytes);
		shares[i].live = true;
		shares[i].need_bytes = get(&t->grant_bytes) + wanted;
		want += wanted;
		nr_live++;
	}
	if (avail < 0)
		want += (uint64_t)-avail;
	if (!want || !nr_live || (avail > 0 && (uint64_t)avail >= want)) {
		for (i = 0; i < TMEM_TREE_SLOTS; i++)
			set_target(k, i, UINT64_MAX);
	} else {
		divide(k, shares, nr_live);
		set_targets(k, shares,
			    avail > 0 ? want - (uint64_t)avail : want);
	}
	if (want && avail > 0)
		wake_waiting(k);
	return want != 0;
}
