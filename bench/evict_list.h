/* SPDX-License-Identifier: MIT */
/*
 * Doubly linked lists of pages for evict_bench.  All lists of a cache share one
 * array of nodes; page k is node k + 1, and 0 ends a list.
 */
#ifndef EVICT_LIST_H
#define EVICT_LIST_H

#include <stdint.h>

struct evict_node {
	uint32_t newer;
	uint32_t older;
	uint8_t list; /* the cache's own number of it; 0: in none */
	uint8_t hits;
};

struct evict_list {
	uint32_t head; /* newest */
	uint32_t tail;
	uint32_t nr;
};

static inline void evict_push(struct evict_node *nodes, struct evict_list *list,
			      uint32_t n)
{
	nodes[n].newer = 0;
	nodes[n].older = list->head;
	if (list->head)
		nodes[list->head].newer = n;
	else
		list->tail = n;
	list->head = n;
	list->nr++;
}

static inline void evict_unlink(struct evict_node *nodes,
				struct evict_list *list, uint32_t n)
{
	uint32_t newer = nodes[n].newer, older = nodes[n].older;

	if (newer)
		nodes[newer].older = older;
	else
		list->head = older;
	if (older)
		nodes[older].newer = newer;
	else
		list->tail = newer;
	list->nr--;
}

#endif
