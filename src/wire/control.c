/* SPDX-License-Identifier: MIT */
/*
 * Structs in host order, checked once.  The figures of a status are taken as
 * they come: they are shown, and nothing is computed from them that could go
 * wrong.
 */
#include "wire/control.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

static bool valid_amount(const struct tmem_control_request *r)
{
	switch (r->kind) {
	case TMEM_AMOUNT_BYTES:
		return r->value <= INT64_MAX;
	case TMEM_AMOUNT_PERCENT:
		return r->value >= 1 && r->value <= 100;
	case TMEM_AMOUNT_AUTO:
		return true;
	}
	return false;
}

int tmem_control_decode(const void *bytes, size_t len,
			struct tmem_control_request *ret_request)
{
	struct tmem_control_request r;

	if (len != sizeof(r))
		return -ENOMSG;
	memcpy(&r, bytes, sizeof(r));
	if (r.version != TMEM_CONTROL_VERSION)
		return -EBADMSG;
	if (r.type != TMEM_CONTROL_SHOW &&
	    (r.type != TMEM_CONTROL_SET || r.pid <= 0 || !valid_amount(&r)))
		return -EBADMSG;
	*ret_request = r;
	return 0;
}

int tmem_control_decode_status(const void *bytes, size_t len, uint32_t type,
			       struct tmem_control_status *ret_status)
{
	struct tmem_control_status *s = ret_status;
	uint32_t head[3];
	int i;

	if (len != sizeof(*s))
		return -EBADMSG;
	memcpy(head, bytes, sizeof(head));
	if (head[0] != type || head[1] != TMEM_CONTROL_VERSION ||
	    (int32_t)head[2] > 0)
		return -EBADMSG;
	memcpy(s, bytes, sizeof(*s));
	s->name[sizeof(s->name) - 1] = '\0';
	for (i = 0; s->name[i]; i++)
		if (s->name[i] < ' ' || s->name[i] > '~')
			s->name[i] = '?';
	return 0;
}
