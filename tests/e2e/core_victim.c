/* SPDX-License-Identifier: MIT */
/*
 * A program whose memory is known, to be looked at after its death.
 *
 * Usage: core_victim MIB END; END is abort, segv or pause.  Writes one line
 * when its memory is as it should be: where, how much, and its pid.
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
	WORDS = 512,	/* of a page */
	NR_NOISE = 100, /* of these at its end, that don't compress */
	NR_NODES = 50000
};

struct node {
	struct node *next;
	uint64_t number;
	char name[48];
};

/* What a debugger is asked for. */
uint64_t *array;
uint64_t nr_words;
struct node *first;

static void make_list(void)
{
	unsigned i;

	for (i = 0; i < NR_NODES; i++) {
		struct node *n = calloc(1, sizeof(*n));

		if (!n)
			exit(2);
		n->next = first;
		n->number = i;
		snprintf(n->name, sizeof(n->name), "node number %u", i);
		first = n;
	}
}

/* cli_core.py knows this, too. */
static uint64_t word(uint64_t i)
{
	if (i % WORDS < WORDS - NR_NOISE)
		return i / WORDS * 3 + 1;
	return i * 0x9e3779b97f4a7c15u;
}

int main(int argc, char **argv)
{
	uint64_t i;

	if (argc != 3)
		return 2;
	make_list();
	nr_words = (strtoul(argv[1], NULL, 0) << 20) / sizeof(*array);
	array = mmap(NULL, nr_words * sizeof(*array), PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (array == MAP_FAILED)
		return 2;
	for (i = 0; i < nr_words; i++)
		array[i] = word(i);
	printf("%#lx %#lx %#x\n", (unsigned long)array,
	       (unsigned long)(nr_words * sizeof(*array)), (unsigned)getpid());
	fflush(stdout);
	if (!strcmp(argv[2], "segv"))
		raise(SIGSEGV);
	while (!strcmp(argv[2], "pause"))
		pause();
	abort();
}
