/* SPDX-License-Identifier: MIT */
/* See match.h. */
#include "profile/match.h"

#include "base/hash.h"

/*
 * The pager's clock is the processor's counter, adjusted now and then, and its
 * handler may have had to wait for a CPU.
 */
#define EARLY_NS 1000000ull
#define LATE_NS	 1000000000ull
#define AGAIN_NS 10000000ull

static uint64_t hash_of(int slot, uint64_t vpn)
{
	return tmem_hash_more(tmem_hash_word((uint64_t)slot), vpn);
}

static uint32_t *head_of(struct tmem_match *match, int slot, uint64_t vpn)
{
	return &match->heads[hash_of(slot, vpn) % MATCH_WAITING];
}

static void forget(struct tmem_match *match, uint32_t place)
{
	const struct tmem_match_sample *s = &match->samples[place];
	uint32_t *at = head_of(match, s->slot, s->vpn);

	while (*at && *at != place + 1)
		at = &match->nexts[*at - 1];
	if (*at)
		*at = match->nexts[place];
}

void tmem_match_put(struct tmem_match *match,
		    const struct tmem_match_sample *sample)
{
	uint32_t place = (uint32_t)(match->nr % MATCH_WAITING), *head;

	if (match->nr >= MATCH_WAITING && !match->samples[place].taken)
		forget(match, place);
	match->nr++;
	match->samples[place] = *sample;
	match->samples[place].taken = false;
	head = head_of(match, sample->slot, sample->vpn);
	match->nexts[place] = *head;
	*head = place + 1;
}

static bool fits(const struct tmem_match_sample *sample,
		 const struct tmem_stall *stall)
{
	return sample->slot == stall->slot && sample->vpn == stall->vpn &&
	       stall->start_ns + EARLY_NS >= sample->time_ns &&
	       stall->start_ns < sample->time_ns + LATE_NS;
}

static bool take(struct tmem_match *match, const struct tmem_stall *stall,
		 struct tmem_match_found *ret)
{
	uint32_t at = *head_of(match, stall->slot, stall->vpn), best = 0;
	struct tmem_match_sample *s;

	for (; at; at = match->nexts[at - 1])
		if (fits(&match->samples[at - 1], stall))
			best = at; /* the oldest is the last */
	if (!best)
		return false;
	forget(match, best - 1);
	s = &match->samples[best - 1];
	s->taken = true;
	*ret = (struct tmem_match_found){ s->stack, false };
	return true;
}

struct tmem_match_found tmem_match_stall(struct tmem_match *match,
					 const struct tmem_stall *stall)
{
	uint64_t hash = hash_of(stall->slot, stall->vpn);
	struct tmem_match_answered *a = &match->answered[hash % MATCH_ANSWERED];
	struct tmem_match_found found = { TMEM_INTERN_NONE, false };

	if (!take(match, stall, &found) && a->slot == stall->slot &&
	    a->vpn == stall->vpn && stall->start_ns < a->end_ns + AGAIN_NS)
		found = (struct tmem_match_found){ a->stack, true };
	*a = (struct tmem_match_answered){
		.vpn = stall->vpn,
		.end_ns = stall->start_ns + stall->ns,
		.slot = stall->slot,
		.stack = found.stack,
	};
	return found;
}
