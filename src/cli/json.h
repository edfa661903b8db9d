/* SPDX-License-Identifier: MIT */
/* What the report, tmem top and --stats write as JSON alike. */
#ifndef TMEM_CLI_JSON_H
#define TMEM_CLI_JSON_H

#include "wire/tree.h"

#include <jansson.h>

void tmem_json_set(json_t *object, const char *key, uint64_t value);
/* Every counter of wire/counters.def by its name. */
json_t *tmem_json_counters(const struct tmem_tree_counters *counters);
/* What was added since; without those that are no sums. */
json_t *tmem_json_differences(const struct tmem_tree_counters *now,
			      const struct tmem_tree_counters *before);

#endif
