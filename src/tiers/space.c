/* SPDX-License-Identifier: MIT */
/* See space.h. */
#include "space.h"

#include <errno.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/assert.h"
#include "base/sys.h"

#define NR_SEGMENTS_MAX (1ull << 32)

size_t tmem_space_bytes(const struct tmem_space *space)
{
	return (size_t)(space->nr_segments + TMEM_TIER_BLOCK - 1) &
	       ~(size_t)(TMEM_TIER_BLOCK - 1);
}

/* Longer, if it may be: a limit strikes the write that is beyond it. */
static int set_length(int fd, uint64_t bytes)
{
	struct rlimit limit = { RLIM_INFINITY, RLIM_INFINITY };

	/* Past the limit the kernel would send SIGXFSZ. */
	tmem_sys(SYS_prlimit64, 0, RLIMIT_FSIZE, NULL, &limit);
	if (limit.rlim_cur < bytes)
		return 0;
	return (int)tmem_sys(SYS_ftruncate, fd, bytes);
}

/* The bytes that the file has, and has room for segments in. */
static int measure(struct tmem_space *space, uint64_t bytes,
		   uint64_t *ret_has_bytes)
{
	struct stat st = { 0 };
	uint64_t size = 0;
	long r = tmem_sys(SYS_fstat, space->fd, &st);

	if (r < 0)
		return (int)r;
	if (S_ISBLK(st.st_mode)) {
		r = tmem_sys(SYS_ioctl, space->fd, BLKGETSIZE64, &size);
		if (r < 0)
			return (int)r;
		space->is_device = true;
		*ret_has_bytes = size;
		return size < bytes ? -EINVAL : 0;
	}
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	*ret_has_bytes = (uint64_t)st.st_size;
	if ((uint64_t)st.st_size >= bytes)
		return 0;
	return set_length(space->fd, bytes);
}

int tmem_space_open(struct tmem_space *space,
		    const struct tmem_tier_options *options)
{
	uint64_t nr = options->max_bytes / TMEM_SEGMENT_BYTES, has = 0, i;
	int r;

	memset(space, 0, sizeof(*space));
	if (nr == 0 || nr > NR_SEGMENTS_MAX)
		return -EINVAL;
	space->fd = options->fd;
	space->nr_segments = nr;
	r = measure(space, nr * TMEM_SEGMENT_BYTES, &has);
	if (r < 0)
		return r;
	space->state = tmem_sys_map_anon(tmem_space_bytes(space),
					 PROT_READ | PROT_WRITE);
	if (!space->state)
		return -ENOMEM;
	for (i = 0; options->keep && i < nr && i * TMEM_SEGMENT_BYTES < has;
	     i++) {
		space->state[i] = TMEM_SPACE_THERE;
		space->counters.held_segments++;
	}
	return 0;
}

void tmem_space_close(struct tmem_space *space)
{
	tmem_sys_unmap((void *)space->state, tmem_space_bytes(space));
}

static bool is_aligned(const struct tmem_tier_request *q)
{
	return ((uintptr_t)q->buffer | q->offset | q->bytes) %
		       TMEM_TIER_BLOCK ==
	       0;
}

/* What is wrong with either; the deadline too. */
static int check_request(const struct tmem_space *space,
			 const struct tmem_tier_request *q)
{
	TMEM_ASSERT(q->state != TMEM_TIER_PENDING &&
		    q->state != TMEM_TIER_HELD);
	if (q->segment >= space->nr_segments || q->bytes == 0 ||
	    q->bytes > TMEM_SEGMENT_BYTES ||
	    q->offset > TMEM_SEGMENT_BYTES - q->bytes)
		return -EINVAL;
	if (q->deadline_ns != 0 && q->deadline_ns <= tmem_sys_now_ns())
		return -ETIMEDOUT;
	return 0;
}

int tmem_space_check_read(struct tmem_space *space,
			  const struct tmem_tier_request *q)
{
	int r = check_request(space, q);

	if (r < 0)
		return r;
	if (q->bytes > TMEM_TIER_SMALL && !is_aligned(q))
		return -EINVAL;
	return space->state[q->segment] == TMEM_SPACE_THERE ? 0 : -ENODATA;
}

int tmem_space_claim(struct tmem_space *space,
		     const struct tmem_tier_request *q)
{
	uint8_t state = TMEM_SPACE_FREE;
	int r = check_request(space, q);

	if (r < 0)
		return r;
	if (q->offset != 0 || !is_aligned(q))
		return -EINVAL;
	if (!atomic_compare_exchange_strong(&space->state[q->segment], &state,
					    TMEM_SPACE_WRITING))
		return state == TMEM_SPACE_THERE ? -EEXIST : -EBUSY;
	space->counters.held_segments++;
	return 0;
}

void tmem_space_written(struct tmem_space *space, uint32_t segment,
			uint32_t bytes)
{
	TMEM_ASSERT(space->state[segment] == TMEM_SPACE_WRITING);
	space->counters.writes++;
	space->counters.written_bytes += bytes;
	space->state[segment] = TMEM_SPACE_THERE;
}

/* True if the system has the space back. */
static bool punch(struct tmem_space *space, uint32_t segment)
{
	uint64_t range[2] = { tmem_space_at(segment), TMEM_SEGMENT_BYTES };
	long r;

	if (space->no_punch)
		return false;
	if (space->is_device)
		r = tmem_sys(SYS_ioctl, space->fd, BLKDISCARD, range);
	else
		r = tmem_sys(SYS_fallocate, space->fd,
			     FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			     range[0], range[1]);
	if (r == -EOPNOTSUPP || r == -ENOTTY)
		space->no_punch = true;
	return r == 0;
}

void tmem_space_unwritten(struct tmem_space *space, uint32_t segment)
{
	TMEM_ASSERT(space->state[segment] == TMEM_SPACE_WRITING);
	punch(space, segment);
	space->counters.held_segments--;
	space->state[segment] = TMEM_SPACE_FREE;
}

int tmem_space_drop(struct tmem_space *space, uint32_t segment)
{
	uint8_t state = TMEM_SPACE_THERE;

	if (segment >= space->nr_segments)
		return -EINVAL;
	if (!atomic_compare_exchange_strong(&space->state[segment], &state,
					    TMEM_SPACE_DROPPING))
		return state == TMEM_SPACE_FREE ? -ENODATA : -EBUSY;
	if (!punch(space, segment))
		space->counters.kept_space++;
	space->counters.drops++;
	space->counters.held_segments--;
	space->state[segment] = TMEM_SPACE_FREE;
	return 0;
}

int tmem_space_error(long r)
{
	return r == -EFBIG || r == -EDQUOT ? -ENOSPC : (int)r;
}

void tmem_space_answer(struct tmem_space *space,
		       struct tmem_tier_request *request, int result,
		       enum tmem_tier_state state)
{
	struct tmem_space_counters *c = &space->counters;

	if (result == -ENOSPC)
		c->full++;
	else if (result == -ETIMEDOUT)
		c->timeouts++;
	else if (result != 0)
		c->errors++;
	request->result = result;
	request->state = state;
}

void tmem_space_get_stats(struct tmem_space *space,
			  struct tmem_tier_stats *ret_stats)
{
	const struct tmem_space_counters *c = &space->counters;

	*ret_stats = (struct tmem_tier_stats){
		.nr_segments = space->nr_segments,
		.held_segments = c->held_segments,
		.writes = c->writes,
		.written_bytes = c->written_bytes,
		.reads = c->reads,
		.read_bytes = c->read_bytes,
		.read_ios = c->read_ios,
		.read_io_bytes = c->read_io_bytes,
		.drops = c->drops,
		.kept_space = c->kept_space,
		.full = c->full,
		.timeouts = c->timeouts,
		.errors = c->errors,
		.memory_bytes = tmem_space_bytes(space),
	};
}
