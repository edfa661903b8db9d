/* SPDX-License-Identifier: MIT */
/*
 * Messages of the tree: what goes through unchanged, what is refused, and a
 * million random packets that may do neither harm.  WIRE_SEED=n repeats.
 */
#include "base/assert.h"
#include "wire/message.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct tmem_tree_message make(enum tmem_tree_type type)
{
	struct tmem_tree_message m;

	tmem_tree_message_init(&m, type);
	m.slot = type == TMEM_TREE_HELLO || type == TMEM_TREE_NOT_PAGED
			 ? TMEM_TREE_NO_SLOT
			 : 3;
	m.pid = 17;
	if (type == TMEM_TREE_NOT_PAGED)
		m.reason = TMEM_NOT_PAGED_STATIC;
	if (type == TMEM_TREE_WELCOME)
		m.fds = TMEM_TREE_FD_BUDGET;
	strcpy(m.comm, "name");
	return m;
}

static bool passes(const struct tmem_tree_message *m, bool from_pager)
{
	struct tmem_tree_message out;
	int r = from_pager ? tmem_tree_message_from_pager(m, sizeof(*m), &out)
			   : tmem_tree_message_from_keeper(m, sizeof(*m), &out);

	TMEM_ASSERT(r == 0 || r == -EBADMSG);
	return r == 0;
}

static void each_type_goes_one_way(void)
{
	static const bool from_pager[] = {
		[TMEM_TREE_HELLO] = true,     [TMEM_TREE_WELCOME] = false,
		[TMEM_TREE_UFFD] = true,      [TMEM_TREE_UFFD_OK] = false,
		[TMEM_TREE_NOT_PAGED] = true, [TMEM_TREE_SWAP_FULL] = true,
		[TMEM_TREE_WANT] = true,
	};
	struct tmem_tree_message m, out;
	int type;

	for (type = TMEM_TREE_HELLO; type <= TMEM_TREE_WANT; type++) {
		m = make((enum tmem_tree_type)type);
		TMEM_ASSERT(passes(&m, true) == from_pager[type]);
		TMEM_ASSERT(passes(&m, false) == !from_pager[type]);
	}
	m = make(TMEM_TREE_HELLO);
	TMEM_ASSERT(!tmem_tree_message_from_pager(&m, sizeof(m), &out));
	TMEM_ASSERT(!memcmp(&m, &out, sizeof(m)));
}

static void fields_out_of_range(void)
{
	struct tmem_tree_message m;

#define REFUSED(type, change)                                                \
	(m = make(type), TMEM_ASSERT(passes(&m, true) || passes(&m, false)), \
	 m.change, TMEM_ASSERT(!passes(&m, true) && !passes(&m, false)))
	REFUSED(TMEM_TREE_HELLO, version = 2);
	REFUSED(TMEM_TREE_HELLO, type = 0);
	REFUSED(TMEM_TREE_HELLO, type = TMEM_TREE_WANT + 1);
	REFUSED(TMEM_TREE_HELLO, slot = -2);
	REFUSED(TMEM_TREE_HELLO, slot = TMEM_TREE_SLOTS);
	REFUSED(TMEM_TREE_HELLO, pid = 0);
	REFUSED(TMEM_TREE_HELLO, pid = -1);
	REFUSED(TMEM_TREE_HELLO, forked = 1); /* which slot? */
	REFUSED(TMEM_TREE_UFFD, slot = TMEM_TREE_NO_SLOT);
	REFUSED(TMEM_TREE_SWAP_FULL, slot = TMEM_TREE_NO_SLOT);
	REFUSED(TMEM_TREE_NOT_PAGED, reason = 0);
	REFUSED(TMEM_TREE_NOT_PAGED, reason = TMEM_NOT_PAGED_FAILED + 1);
	REFUSED(TMEM_TREE_WELCOME, fds = 0);
	REFUSED(TMEM_TREE_WELCOME, fds = 1 << 5 | 1);
	REFUSED(TMEM_TREE_WELCOME, result = 1);
	REFUSED(TMEM_TREE_WELCOME, result = -1); /* but descriptors */
	REFUSED(TMEM_TREE_UFFD_OK, result = 1);
#undef REFUSED
}

static void names_cannot_command_a_terminal(void)
{
	struct tmem_tree_message m = make(TMEM_TREE_NOT_PAGED), out;

	memset(m.comm, 'x', sizeof(m.comm));
	m.comm[0] = '\033';
	m.comm[1] = '\n';
	m.comm[2] = (char)0x9b;
	TMEM_ASSERT(!tmem_tree_message_from_pager(&m, sizeof(m), &out));
	TMEM_ASSERT(!strcmp(out.comm, "???xxxxxxxxxxxx"));
}

static void random_packets(unsigned seed)
{
	unsigned char buf[2 * sizeof(struct tmem_tree_message)];
	struct tmem_tree_message m, out;
	size_t len, i;
	int round;

	srandom(seed);
	for (round = 0; round < 1000000; round++) {
		m = make((enum tmem_tree_type)(random() % 9));
		memset(buf, 0, sizeof(buf));
		memcpy(buf, &m, sizeof(m));
		for (i = (size_t)random() % 4; i > 0; i--)
			buf[random() % (long)sizeof(m)] =
				(unsigned char)random();
		len = random() % 8 ? sizeof(m) : (size_t)random() % sizeof(buf);
		memset(&out, 0x5a, sizeof(out));
		if (tmem_tree_message_from_pager(buf, len, &out) == 0) {
			TMEM_ASSERT(len == sizeof(m));
			TMEM_ASSERT(out.slot >= TMEM_TREE_NO_SLOT &&
				    out.slot < TMEM_TREE_SLOTS);
			TMEM_ASSERT(strlen(out.comm) < TMEM_TREE_COMM);
			TMEM_ASSERT(tmem_not_paged_text(out.reason));
		} else {
			/* Nothing is written. */
			TMEM_ASSERT(out.type == 0x5a5a5a5a);
		}
		tmem_tree_message_from_keeper(buf, len, &out);
	}
}

int main(void)
{
	const char *text = getenv("WIRE_SEED");
	unsigned seed =
		text ? (unsigned)strtoul(text, NULL, 10) : (unsigned)time(NULL);

	printf("WIRE_SEED=%u\n", seed);
	each_type_goes_one_way();
	fields_out_of_range();
	names_cannot_command_a_terminal();
	random_packets(seed);
	return 0;
}
