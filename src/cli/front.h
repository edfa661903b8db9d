/* SPDX-License-Identifier: MIT */
/*
 * Between the front process, which has the terminal and the PID that the
 * caller knows, and the keeper: packets on a socket pair.
 */
#ifndef TMEM_CLI_FRONT_H
#define TMEM_CLI_FRONT_H

#include <signal.h>
#include <stdint.h>

enum tmem_front_type {
	TMEM_FRONT_READY = 1, /* keeper: serving (with --exec) */
	TMEM_FRONT_STOPPED,   /* keeper: the program stopped; value: signal */
	TMEM_FRONT_EXIT,      /* keeper: all said; value: wait status */
	TMEM_FRONT_SIGNAL     /* front: deliver; value: signal */
};

struct tmem_front_message {
	uint32_t type;
	int32_t value;
	int32_t sender; /* SIGNAL: who sent it to us, or 0 */
};

/* The signals that a front process passes on. */
void tmem_front_signals(sigset_t *ret_set);
/*
 * Closes what was inherited, but for standard error: it is not ours, and
 * somebody may wait for the other end of a pipe to close.  Everything that we
 * opened is close-on-exec.
 */
void tmem_front_let_go(void);
/* Waits with the program; returns its exit status, or dies of its signal. */
int tmem_front_main(int keeper_fd, const sigset_t *original_mask);

#endif
