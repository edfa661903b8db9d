/* SPDX-License-Identifier: MIT */
/*
 * The pager's life: started when the library is loaded, or in the child of a
 * fork; ended with the program or when the program runs another.
 */
#ifndef TMEM_PAGER_START_H
#define TMEM_PAGER_START_H

#include "pager.h"

/* The pager of this process if it serves, else NULL (a raw fork's child). */
struct tmem_pager *tmem_start_serving(void);

/*
 * Still the program we were started for, in the memory that is ours?  Its
 * first thread may have ended before the others, and has no memory then.
 */
bool tmem_start_program_lives(struct tmem_pager *pager);

/* In the child of a fork that the gate was asked for. */
void tmem_start_in_child(struct tmem_pager *pager);

#endif
