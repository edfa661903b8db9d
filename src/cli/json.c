/* SPDX-License-Identifier: MIT */
/* See json.h. */
#include "cli/json.h"

static uint64_t get(const _Atomic uint64_t *value)
{
	return atomic_load_explicit(value, memory_order_relaxed);
}

void tmem_json_set(json_t *object, const char *key, uint64_t value)
{
	json_object_set_new(object, key, json_integer((json_int_t)value));
}

json_t *tmem_json_counters(const struct tmem_tree_counters *counters)
{
	json_t *o = json_object();

#define COUNTER(name, unit, text) tmem_json_set(o, #name, get(&counters->name));
#include "wire/counters.def"
#undef COUNTER
	return o;
}

static uint64_t minus(const _Atomic uint64_t *now, const _Atomic uint64_t *old)
{
	uint64_t a = get(now), b = get(old);

	return a > b ? a - b : 0;
}

json_t *tmem_json_differences(const struct tmem_tree_counters *now,
			      const struct tmem_tree_counters *before)
{
	json_t *o = json_object();

#define COUNTER(name, unit, text) \
	tmem_json_set(o, #name, minus(&now->name, &before->name));
#include "wire/counters.def"
#undef COUNTER
	json_object_del(o, "stall_max_ns");
	return o;
}
