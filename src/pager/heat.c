/* SPDX-License-Identifier: MIT */
/* See heat.h. */
#include "heat.h"

enum {
	AGE_BITS = HEAT_AGE_BITS,
	USUAL_SHIFT = 16, /* of heat_usual, for fractions of a tick */
	USUAL_MAX = HEAT_AGE_MASK / 2
};

static struct tmem_leaf *leaf_of(const struct tmem_pager *pager,
				 uint32_t handle)
{
	return tmem_table_leaf(&pager->table, handle >> LEAF_SHIFT);
}

static void set_age(struct tmem_leaf *leaf, uint32_t i, unsigned heat,
		    unsigned age)
{
	leaf->age[i] = (uint16_t)(heat << AGE_BITS | age);
}

/* To be passed by `rounds` times: H1. */
static void spare(struct tmem_leaf *leaf, uint32_t i, unsigned heat,
		  unsigned rounds)
{
	uint64_t bit = 1ull << i % 64;

	set_age(leaf, i, heat, rounds);
	leaf->young[i / 64] &= ~bit;
	if (rounds)
		leaf->young[i / 64] |= bit;
}

void tmem_heat_init(struct tmem_pager *pager)
{
	pager->heat_usual = (uint32_t)HEAT_ROUND << USUAL_SHIFT;
}

/*
 * Is that sooner than usual?  The bar falls by three steps or rises by two, so
 * that two returns of five are below it.
 */
static bool is_soon(struct tmem_pager *pager, unsigned out)
{
	uint32_t step = (pager->heat_usual >> 11) + 1;

	if (out < pager->heat_usual >> USUAL_SHIFT) {
		pager->heat_usual -= 3 * step;
		return true;
	}
	if (pager->heat_usual >> USUAL_SHIFT < USUAL_MAX)
		pager->heat_usual += 2 * step;
	return false;
}

void tmem_heat_came_locked(struct tmem_pager *pager, uint32_t handle)
{
	struct tmem_leaf *leaf = leaf_of(pager, handle);
	uint32_t i = handle % LEAF_PAGES;
	unsigned heat = leaf->age[i] >> AGE_BITS;
	unsigned out = (pager->heat_tick - leaf->age[i]) & HEAT_AGE_MASK;

	if (!tmem_tree_has(pager->tree, TMEM_HEAT))
		heat = 0;
	else if (is_soon(pager, out))
		heat += heat < HEAT_MAX;
	else
		heat -= heat > 0;
	spare(leaf, i, heat, (1u << heat) - 1);
	leaf->came = (uint16_t)pager->heat_tick;
}

void tmem_heat_arrived_locked(struct tmem_pager *pager, uint32_t handle)
{
	struct tmem_leaf *leaf = leaf_of(pager, handle);
	uint32_t i = handle % LEAF_PAGES;

	spare(leaf, i, leaf->age[i] >> AGE_BITS, 0);
	leaf->came = (uint16_t)pager->heat_tick;
}

void tmem_heat_spare_locked(struct tmem_pager *pager, uint32_t handle)
{
	struct tmem_leaf *leaf = leaf_of(pager, handle);
	uint32_t i = handle % LEAF_PAGES;

	spare(leaf, i, leaf->age[i] >> AGE_BITS, 1);
}

void tmem_heat_left_locked(struct tmem_pager *pager, uint32_t handle)
{
	struct tmem_leaf *leaf = leaf_of(pager, handle);
	uint32_t i = handle % LEAF_PAGES;

	if (++pager->heat_left * HEAT_ROUND >= pager->table.nr_resident) {
		pager->heat_tick++;
		pager->heat_left = 0;
	}
	set_age(leaf, i, leaf->age[i] >> AGE_BITS,
		pager->heat_tick & HEAT_AGE_MASK);
}

uint64_t tmem_heat_visit(struct tmem_leaf *leaf)
{
	uint64_t young = leaf->young[0], left;

	for (left = young; left; left &= left - 1) {
		uint32_t i = (uint32_t)__builtin_ctzll(left);

		/* H1: the count is in the low bits, and not 0. */
		if ((--leaf->age[i] & HEAT_AGE_MASK) == 0)
			leaf->young[0] &= ~(1ull << i);
	}
	return ~young;
}
