/* SPDX-License-Identifier: MIT */
/*
 * Requests to a keeper and its answers: what goes through, what is refused,
 * and random packets that may do no harm.  WIRE_SEED=n repeats.
 */
#include "base/assert.h"
#include "wire/control.h"
#include "wire/message.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct tmem_control_request make(void)
{
	return (struct tmem_control_request){
		.type = TMEM_CONTROL_SET,
		.version = TMEM_CONTROL_VERSION,
		.pid = 17,
		.kind = TMEM_AMOUNT_PERCENT,
		.value = 60,
	};
}

static int decode(const struct tmem_control_request *r)
{
	struct tmem_control_request out;

	return tmem_control_decode(r, sizeof(*r), &out);
}

static void requests_are_checked(void)
{
	struct tmem_control_request r = make(), out;
	struct tmem_tree_message m;

	TMEM_ASSERT(tmem_control_decode(&r, sizeof(r), &out) == 0);
	TMEM_ASSERT(memcmp(&r, &out, sizeof(r)) == 0);
	TMEM_ASSERT(tmem_control_decode(&r, sizeof(r) - 1, &out) == -ENOMSG);
	r.value = 101;
	TMEM_ASSERT(decode(&r) == -EBADMSG);
	r.kind = TMEM_AMOUNT_BYTES;
	TMEM_ASSERT(decode(&r) == 0);
	r.value = (uint64_t)INT64_MAX + 1;
	TMEM_ASSERT(decode(&r) == -EBADMSG);
	r.kind = TMEM_AMOUNT_AUTO;
	TMEM_ASSERT(decode(&r) == 0);
	r.kind = TMEM_AMOUNT_NONE;
	TMEM_ASSERT(decode(&r) == -EBADMSG);
	r.type = TMEM_CONTROL_SHOW;
	TMEM_ASSERT(decode(&r) == 0);
	r.version++;
	TMEM_ASSERT(decode(&r) == -EBADMSG);
	r = make();
	r.pid = 0;
	TMEM_ASSERT(decode(&r) == -EBADMSG);
	r = make();
	r.type = TMEM_TREE_HELLO;
	TMEM_ASSERT(decode(&r) == -EBADMSG);
	/* What a pager says is none, and the other way round. */
	tmem_tree_message_init(&m, TMEM_TREE_HELLO);
	TMEM_ASSERT(tmem_control_decode(&m, sizeof(m), &out) == -ENOMSG);
	r = make();
	TMEM_ASSERT(tmem_tree_message_from_pager(&r, sizeof(r), &m) ==
		    -EBADMSG);
}

static void answers_are_checked(void)
{
	static struct tmem_control_status s, out;

	s.type = TMEM_CONTROL_SHOW;
	s.version = TMEM_CONTROL_VERSION;
	s.limit_bytes = 1234;
	memset(s.name, '\x1b', sizeof(s.name));
	TMEM_ASSERT(tmem_control_decode_status(&s, sizeof(s), TMEM_CONTROL_SHOW,
					       &out) == 0);
	TMEM_ASSERT(out.limit_bytes == 1234);
	TMEM_ASSERT(strlen(out.name) == sizeof(s.name) - 1);
	TMEM_ASSERT(strspn(out.name, "?") == sizeof(s.name) - 1);
	TMEM_ASSERT(tmem_control_decode_status(&s, sizeof(s), TMEM_CONTROL_SET,
					       &out) == -EBADMSG);
	TMEM_ASSERT(tmem_control_decode_status(&s, sizeof(s) - 1,
					       TMEM_CONTROL_SHOW,
					       &out) == -EBADMSG);
	s.result = 1;
	TMEM_ASSERT(tmem_control_decode_status(&s, sizeof(s), TMEM_CONTROL_SHOW,
					       &out) == -EBADMSG);
}

static void random_packets_do_no_harm(unsigned seed)
{
	static struct tmem_control_status s;
	unsigned char buf[sizeof(struct tmem_control_request) + 8];
	struct tmem_control_request r;
	size_t i, len;
	int n;

	printf("WIRE_SEED=%u\n", seed);
	srand(seed);
	for (n = 0; n < 300000; n++) {
		r = make();
		memcpy(buf, &r, sizeof(r));
		len = rand() % 4 ? sizeof(r) : (size_t)rand() % sizeof(buf);
		for (i = (size_t)rand() % 4; i > 0; i--)
			buf[(size_t)rand() % sizeof(r)] = (unsigned char)rand();
		if (tmem_control_decode(buf, len, &r) == 0 &&
		    r.type == TMEM_CONTROL_SET)
			TMEM_ASSERT(r.pid > 0 && r.kind >= TMEM_AMOUNT_BYTES &&
				    r.kind <= TMEM_AMOUNT_AUTO);
		tmem_control_decode_status(buf, len, TMEM_CONTROL_SET, &s);
	}
}

int main(void)
{
	const char *seed = getenv("WIRE_SEED");

	requests_are_checked();
	answers_are_checked();
	random_packets_do_no_harm(seed ? (unsigned)atoi(seed)
				       : (unsigned)time(NULL));
	return 0;
}
