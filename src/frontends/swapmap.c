/* SPDX-License-Identifier: MIT */
/*
 * The slot map: which pages of a swap file are in use, and by whom.
 *
 * A memfd, sealed to its size:
 *
 *	header | a bit per chunk (full) | a word per slot (refs) |
 *	a bit per slot for user 0 | ... for user 1 | ...
 *
 * Each process maps the part before the bitmaps, and its own bitmap.  All of
 * it is sparse.  There are no locks, since a process may be killed at any
 * instruction; each step leaves what the next process can understand.
 *
 * The word of a slot is one of
 *	0			free
 *	n			n users refer to it, and it is written
 *	WRITING | 1		one user does; its write is in flight
 *	BUSY | user		`user` is taking or freeing it
 *	BUSY | NOBODY		its space is being given back (trim)
 *	QUARANTINE		its writer was killed: the disk may yet write
 *
 * Allocate: 0 -> BUSY|user, set own bit, -> WRITING|1.  Free the last
 * reference: 1 -> BUSY|user, clear own bit, -> 0.  Free another: clear own
 * bit, n -> n-1.  So whoever reaps a dead user frees its BUSY slots, then
 * drops what its bitmap says; a slot in WRITING goes to quarantine, because a
 * direct write that the dead process had begun may reach the disk after its
 * end, over the page of the slot's next owner.  Only trim, whose punching
 * waits for such writes, takes it out.
 *
 * Slots are given out in a row within a chunk, so that writes are sequential.
 * The next chunk is a used one with free slots while less than three quarters
 * below the high-water mark are in use, else one above it: the file stays
 * near what is used at the peak.
 *
 * The header's page has the key that the file's pages are sealed with, drawn
 * when the map is made, and the counter that their nonces come from.  All
 * processes of a tree have both: what one gets of the counter no other gets,
 * whatever was forked or killed when.  No mapping of it is dumped; the header
 * is locked in RAM, if we are allowed.
 *
 * Invariants (M1 and M2 while no user is in an operation):
 *  M1 A slot's references are as many as users' bits for it, or more: a user
 *     killed between two steps of freeing one of several leaves one behind.
 *  M2 used_pages is the number of slots that are not free or being trimmed,
 *     or more: a user killed beside its change of the two leaves one behind.
 *  M3 No slot at or above high_chunks is anything but free.
 */
#include "frontends/swapmap.h"

#include <errno.h>
#include <linux/falloc.h>
#include <linux/fcntl.h>
#include <linux/memfd.h>
#include <stdbool.h>
#include <string.h>

#include "base/assert.h"
#include "base/seal.h"
#include "base/sys.h"
#include "tmem/swapfile.h"

#define MAGIC 0x70616d70617773ull /* "swapmap" */

enum {
	VERSION = 2,
	KEY_OFFSET = 2048,		  /* in the header's page */
	BLOCK_SLOTS = TMEM_PAGE_SIZE * 8, /* their bits fill a page */
	CHUNK = TMEM_SWAPMAP_CHUNK,
	NOBODY = TMEM_SWAPMAP_NOBODY,
	BUSY = 0x8000,
	WRITING = 0x4000,
	COUNT = 0x3fff,
	QUARANTINE = BUSY | WRITING
};

/* One page; what all processes write is kept apart from what none does. */
struct tmem_swapmap_header {
	uint64_t magic;
	uint32_t version;
	uint32_t max_users;
	uint64_t capacity;
	_Atomic uint64_t limit_pages;
	uint64_t pad_[4];
	_Atomic uint64_t used_pages;
	_Atomic uint64_t high_chunks; /* chunks ever allocated from */
	_Atomic uint64_t cursor;      /* where the next search starts */
	_Atomic uint64_t numbers;     /* drawn so far */
};

_Static_assert(offsetof(struct tmem_swapmap_header, used_pages) == 64,
	       "header layout");
_Static_assert((int)TMEM_SWAPFILE_MAX_USERS < (int)NOBODY, "user numbers fit");

static uint64_t round_page(uint64_t bytes)
{
	return (bytes + TMEM_PAGE_SIZE - 1) & ~(uint64_t)(TMEM_PAGE_SIZE - 1);
}

static uint64_t nr_chunks(uint64_t capacity)
{
	return (capacity + CHUNK - 1) / CHUNK;
}

static uint64_t refs_offset(uint64_t capacity)
{
	return TMEM_PAGE_SIZE + round_page((nr_chunks(capacity) + 7) / 8);
}

static uint64_t bits_offset(uint64_t capacity)
{
	return refs_offset(capacity) + round_page(capacity * 2);
}

static uint64_t bits_stride(uint64_t capacity)
{
	return round_page((capacity + 7) / 8);
}

static uint64_t total_bytes(uint64_t capacity, unsigned max_users)
{
	return bits_offset(capacity) + max_users * bits_stride(capacity);
}

/* Over a reservation: see tmem_sys_map_within(). */
static void *map_shared(int fd, uint64_t offset, size_t bytes)
{
	void *start = tmem_sys_map_anon(bytes, PROT_NONE);
	long r;

	if (!start)
		return NULL;
	r = tmem_sys(SYS_mmap, start, bytes, PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_FIXED, fd, offset);
	if (r < 0 && r > -4096) {
		tmem_sys_unmap(start, bytes);
		return NULL;
	}
	tmem_sys_madvise(start, bytes, MADV_NOHUGEPAGE);
	tmem_sys_madvise(start, bytes, MADV_DONTDUMP);
	return start;
}

int tmem_swapmap_set_key(int fd, const struct tmem_seal_key *key)
{
	long r = tmem_sys(SYS_pwrite64, fd, key, sizeof(*key), KEY_OFFSET);

	if (r < 0)
		return (int)r;
	return r == (long)sizeof(*key) ? 0 : -EIO;
}

static int draw_key(int fd)
{
	struct tmem_seal_key key;
	int r = tmem_seal_draw(&key);

	if (r == 0)
		r = tmem_swapmap_set_key(fd, &key);
	tmem_seal_wipe(&key, sizeof(key));
	return r;
}

void tmem_swapmap_get_key(const struct tmem_swapmap *map,
			  struct tmem_seal_key *ret_key)
{
	memcpy(ret_key, (const char *)map->header + KEY_OFFSET,
	       sizeof(*ret_key));
}

uint64_t tmem_swapmap_draw_numbers(struct tmem_swapmap *map, unsigned nr)
{
	return atomic_fetch_add(&map->header->numbers, nr);
}

int tmem_swapmap_create(uint64_t max_pages, unsigned max_users)
{
	struct tmem_swapmap_header header = { 0 };
	long fd, r;

	if (max_pages == 0 || max_pages >= INT32_MAX || max_users == 0 ||
	    max_users > TMEM_SWAPFILE_MAX_USERS)
		return -EINVAL;
	fd = tmem_sys(SYS_memfd_create, "tmem-swapmap",
		      MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return (int)fd;
	header.magic = MAGIC;
	header.version = VERSION;
	header.max_users = max_users;
	header.capacity = max_pages;
	header.limit_pages = max_pages;
	r = tmem_sys(SYS_ftruncate, fd, total_bytes(max_pages, max_users));
	if (r == 0)
		r = tmem_sys(SYS_pwrite64, fd, &header, sizeof(header), 0);
	if (r == (long)sizeof(header))
		r = draw_key((int)fd);
	if (r == 0)
		r = tmem_sys(SYS_fcntl, fd, F_ADD_SEALS,
			     F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	if (r != 0) {
		tmem_sys_close((int)fd);
		return r < 0 ? (int)r : -EIO;
	}
	return (int)fd;
}

/* 0 if the descriptor is a slot map that is as long as it says. */
static int read_header(int fd, struct tmem_swapmap_header *ret_header)
{
	struct tmem_swapmap_header header = { 0 };
	long r = tmem_sys(SYS_pread64, fd, &header, sizeof(header), 0);

	if (r < 0)
		return (int)r;
	if (r != (long)sizeof(header) || header.magic != MAGIC ||
	    header.version != VERSION || header.max_users == 0 ||
	    header.max_users > TMEM_SWAPFILE_MAX_USERS ||
	    header.capacity == 0 || header.capacity >= INT32_MAX)
		return -EINVAL;
	r = tmem_sys(SYS_lseek, fd, 0, 2 /* SEEK_END */);
	if (r != (long)total_bytes(header.capacity, header.max_users))
		return r < 0 ? (int)r : -EINVAL;
	memcpy(ret_header, &header, sizeof(header));
	return 0;
}

int tmem_swapmap_usage(int map_fd, uint64_t *ret_used_pages,
		       uint64_t *ret_limit_pages)
{
	struct tmem_swapmap_header header;
	int r = read_header(map_fd, &header);

	if (r < 0)
		return r;
	*ret_used_pages = header.used_pages;
	*ret_limit_pages = header.limit_pages;
	return 0;
}

static _Atomic uint64_t *map_bits(const struct tmem_swapmap *map, int fd,
				  unsigned user)
{
	if (user >= map->header->max_users)
		return NULL;
	return map_shared(fd,
			  bits_offset(map->capacity) +
				  user * bits_stride(map->capacity),
			  bits_stride(map->capacity));
}

int tmem_swapmap_open(struct tmem_swapmap *map, int fd, unsigned user)
{
	struct tmem_swapmap_header header;
	struct tmem_swapmap m = { 0 };
	char *base;
	int r = read_header(fd, &header);

	if (r < 0)
		return r;
	if (user >= header.max_users && user != NOBODY)
		return -EINVAL;
	m.capacity = header.capacity;
	m.user = user;
	m.map_bytes = bits_offset(m.capacity);
	base = map_shared(fd, 0, m.map_bytes);
	if (!base)
		return -ENOMEM;
	tmem_sys(SYS_mlock, base, TMEM_PAGE_SIZE);
	m.header = (void *)base;
	m.full = (void *)(base + TMEM_PAGE_SIZE);
	m.refs = (void *)(base + refs_offset(m.capacity));
	if (user != NOBODY) {
		m.bits_bytes = bits_stride(m.capacity);
		m.bits = map_bits(&m, fd, user);
		if (!m.bits) {
			tmem_sys_unmap(base, m.map_bytes);
			return -ENOMEM;
		}
	}
	*map = m;
	return 0;
}

void tmem_swapmap_close(struct tmem_swapmap *map)
{
	if (map->bits)
		tmem_sys_unmap(map->bits, map->bits_bytes);
	tmem_sys_unmap(map->header, map->map_bytes);
	memset(map, 0, sizeof(*map));
}

int tmem_swapmap_become(struct tmem_swapmap *map, int fd, unsigned user)
{
	_Atomic uint64_t *bits;

	if (user >= map->header->max_users)
		return -EINVAL;
	bits = map_bits(map, fd, user);
	if (!bits)
		return -ENOMEM;
	tmem_sys_unmap(map->bits, map->bits_bytes);
	tmem_sys(SYS_mlock, map->header, TMEM_PAGE_SIZE);
	map->bits = bits;
	map->user = user;
	/* The parent goes on in its chunk: begin another. */
	map->next = map->chunk_end = 0;
	return 0;
}

bool tmem_swapmap_is_roomy(const struct tmem_swapmap *map)
{
	return map->header->used_pages < map->header->limit_pages / 2;
}

int tmem_swapmap_set_limit(int map_fd, uint64_t limit_pages)
{
	struct tmem_swapmap map;
	int r = tmem_swapmap_open(&map, map_fd, NOBODY);

	if (r < 0)
		return r;
	if (limit_pages > map.capacity)
		r = -EINVAL;
	else
		map.header->limit_pages = limit_pages;
	tmem_swapmap_close(&map);
	return r;
}

/* Slots below the high-water mark. */
static uint64_t high_slots(const struct tmem_swapmap *map)
{
	uint64_t slots = map->header->high_chunks * CHUNK;

	return slots < map->capacity ? slots : map->capacity;
}

static void chunk_not_full(struct tmem_swapmap *map, uint64_t slot)
{
	uint64_t chunk = slot / CHUNK, bit = 1ull << (chunk % 64);

	if (map->full[chunk / 64] & bit)
		atomic_fetch_and(&map->full[chunk / 64], ~bit);
}

static uint64_t chunk_limit(const struct tmem_swapmap *map, uint64_t start)
{
	uint64_t end = (start / CHUNK + 1) * CHUNK;

	return end < map->capacity ? end : map->capacity;
}

static bool find_free(const struct tmem_swapmap *map, uint64_t from,
		      uint64_t to, uint64_t *ret_slot)
{
	for (uint64_t slot = from; slot < to; slot++) {
		if (map->refs[slot] == 0) {
			*ret_slot = slot;
			return true;
		}
	}
	return false;
}

/*
 * Nothing was free to the end of the chunk.  A slot that became free before
 * the bit was set is found by the second look; one after it clears the bit.
 */
static void chunk_is_full(struct tmem_swapmap *map, uint64_t start)
{
	uint64_t chunk = start / CHUNK, slot;

	atomic_fetch_or(&map->full[chunk / 64], 1ull << (chunk % 64));
	if (find_free(map, chunk * CHUNK, chunk_limit(map, start), &slot))
		chunk_not_full(map, start);
}

static void go_to(struct tmem_swapmap *map, uint64_t slot)
{
	map->next = slot;
	map->chunk_end = chunk_limit(map, slot);
}

/* A chunk below the high-water mark that is not known to be full. */
static bool find_chunk(struct tmem_swapmap *map)
{
	uint64_t high = map->header->high_chunks;
	uint64_t start, i = 0;

	if (high == 0)
		return false;
	start = map->header->cursor++ % high;
	while (i < high) {
		uint64_t chunk = (start + i) % high;
		uint64_t open = ~map->full[chunk / 64] >> (chunk % 64);
		uint64_t left = 64 - chunk % 64;

		if (high - chunk < left)
			left = high - chunk;
		if (left < 64)
			open &= (1ull << left) - 1;
		if (open) {
			go_to(map, (chunk + (unsigned)__builtin_ctzll(open)) *
					   CHUNK);
			return true;
		}
		i += left;
	}
	return false;
}

static bool extend(struct tmem_swapmap *map)
{
	uint64_t high = map->header->high_chunks;

	do {
		if (high >= nr_chunks(map->capacity))
			return false;
	} while (!atomic_compare_exchange_weak(&map->header->high_chunks, &high,
					       high + 1));
	go_to(map, high * CHUNK);
	return true;
}

static bool next_chunk(struct tmem_swapmap *map)
{
	uint64_t used = map->header->used_pages, slot;

	if (used * 4 < high_slots(map) * 3) {
		if (find_chunk(map) || extend(map))
			return true;
	} else if (extend(map) || find_chunk(map)) {
		return true;
	}
	/* A killed process may have left a chunk marked full that is not. */
	if (!find_free(map, 0, map->capacity, &slot))
		return false;
	go_to(map, slot);
	return true;
}

static void set_bit(_Atomic uint64_t *bits, uint64_t slot)
{
	atomic_fetch_or(&bits[slot / 64], 1ull << (slot % 64));
}

static void clear_bit(_Atomic uint64_t *bits, uint64_t slot)
{
	atomic_fetch_and(&bits[slot / 64], ~(1ull << (slot % 64)));
}

static bool take(struct tmem_swapmap *map, uint64_t *ret_slot)
{
	uint64_t slot = map->next;

	while (find_free(map, slot, map->chunk_end, &slot)) {
		uint16_t free_word = 0;

		map->next = slot + 1;
		if (atomic_compare_exchange_strong(
			    &map->refs[slot], &free_word,
			    (uint16_t)(BUSY | map->user))) {
			*ret_slot = slot;
			return true;
		}
		slot++;
	}
	if (map->chunk_end != 0)
		chunk_is_full(map, map->chunk_end - 1);
	map->next = map->chunk_end;
	return false;
}

int tmem_swapmap_alloc(struct tmem_swapmap *map, uint32_t *ret_slot)
{
	uint64_t slot;

	if (map->header->used_pages++ >= map->header->limit_pages) {
		map->header->used_pages--;
		return -ENOSPC;
	}
	while (!take(map, &slot)) {
		if (!next_chunk(map)) {
			map->header->used_pages--;
			return -ENOSPC;
		}
	}
	set_bit(map->bits, slot);
	map->refs[slot] = WRITING | 1;
	*ret_slot = (uint32_t)slot;
	return 0;
}

void tmem_swapmap_written(struct tmem_swapmap *map, uint32_t slot)
{
	map->refs[slot] = 1;
}

static void set_free(struct tmem_swapmap *map, uint64_t slot)
{
	map->refs[slot] = 0;
	chunk_not_full(map, slot);
	map->header->used_pages--;
}

void tmem_swapmap_drop(struct tmem_swapmap *map, uint32_t slot)
{
	uint16_t word = map->refs[slot];
	bool last;

	do {
		TMEM_ASSERT(word != 0 && word <= COUNT);
		last = word == 1;
		if (!last)
			clear_bit(map->bits, slot);
	} while (!atomic_compare_exchange_weak(
		&map->refs[slot], &word,
		last ? (uint16_t)(BUSY | map->user) : (uint16_t)(word - 1)));
	if (!last)
		return;
	clear_bit(map->bits, slot);
	set_free(map, slot);
}

void tmem_swapmap_drop_all(struct tmem_swapmap *map)
{
	uint64_t words = (high_slots(map) + 63) / 64;

	for (uint64_t w = 0; w < words; w++) {
		uint64_t bits = map->bits[w];

		for (; bits; bits &= bits - 1) {
			uint64_t slot =
				w * 64 + (unsigned)__builtin_ctzll(bits);

			if (map->refs[slot] == (WRITING | 1)) {
				map->refs[slot] = QUARANTINE;
				clear_bit(map->bits, slot);
			} else {
				tmem_swapmap_drop(map, (uint32_t)slot);
			}
		}
	}
}

int tmem_swapmap_share(struct tmem_swapmap *map, int fd, unsigned child)
{
	uint64_t words = (high_slots(map) + 63) / 64;
	_Atomic uint64_t *theirs;

	if (child >= map->header->max_users || child == map->user)
		return -EINVAL;
	theirs = map_bits(map, fd, child);
	if (!theirs)
		return -ENOMEM;
	for (uint64_t w = 0; w < words; w++) {
		uint64_t bits = map->bits[w];

		for (; bits; bits &= bits - 1) {
			uint64_t slot =
				w * 64 + (unsigned)__builtin_ctzll(bits);

			map->refs[slot]++;
			set_bit(theirs, slot);
		}
	}
	tmem_sys_unmap(theirs, map->bits_bytes);
	return 0;
}

int tmem_swapmap_has(const struct tmem_swapmap *map, uint32_t slot)
{
	uint16_t word = map->refs[slot];

	return (map->bits[slot / 64] >> (slot % 64) & 1) && word != 0 &&
	       (word <= COUNT || word == (WRITING | 1));
}

uint64_t tmem_swapmap_count_own(const struct tmem_swapmap *map)
{
	uint64_t words = (high_slots(map) + 63) / 64, n = 0;

	for (uint64_t w = 0; w < words; w++)
		n += (unsigned)__builtin_popcountll(map->bits[w]);
	return n;
}

int tmem_swapmap_reap(int map_fd, unsigned user)
{
	struct tmem_swapmap map;
	int r = tmem_swapmap_open(&map, map_fd, user);
	uint64_t high;

	if (r < 0)
		return r;
	if (user == NOBODY) {
		tmem_swapmap_close(&map);
		return -EINVAL;
	}
	high = high_slots(&map);
	for (uint64_t slot = 0; slot < high; slot++) {
		if (map.refs[slot] == (BUSY | user)) {
			clear_bit(map.bits, slot);
			set_free(&map, slot);
		}
	}
	tmem_swapmap_drop_all(&map);
	r = (int)tmem_sys(SYS_fallocate, map_fd,
			  FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			  bits_offset(map.capacity) +
				  user * bits_stride(map.capacity),
			  map.bits_bytes);
	tmem_swapmap_close(&map);
	return r;
}

/* Ends a claim of trim: the space is gone, or nothing has changed. */
static void release_run(struct tmem_swapmap *map, uint64_t first, uint64_t nr,
			bool was_quarantined, bool punched)
{
	for (uint64_t slot = first; slot < first + nr; slot++) {
		if (!was_quarantined)
			map->refs[slot] = 0;
		else if (!punched)
			map->refs[slot] = QUARANTINE;
		else
			set_free(map, slot);
		if (!was_quarantined)
			chunk_not_full(map, slot);
	}
}

/* Claims slots in a row that hold `word`, punches them.  Pages or -errno. */
static int64_t trim_run(struct tmem_swapmap *map, int file_fd, uint64_t first,
			uint16_t word)
{
	uint64_t end = chunk_limit(map, first), nr = 0;
	long r;

	while (first + nr < end) {
		uint16_t expect = word;

		if (!atomic_compare_exchange_strong(&map->refs[first + nr],
						    &expect,
						    (uint16_t)(BUSY | NOBODY)))
			break;
		nr++;
	}
	if (nr == 0)
		return 0;
	r = tmem_sys(SYS_fallocate, file_fd,
		     FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		     first * TMEM_PAGE_SIZE, nr * TMEM_PAGE_SIZE);
	release_run(map, first, nr, word == QUARANTINE, r == 0);
	return r < 0 ? r : (int64_t)nr;
}

int64_t tmem_swapmap_trim(int map_fd, int file_fd)
{
	struct tmem_swapmap map;
	int64_t total = 0, n;
	uint64_t slot, high;
	int r = tmem_swapmap_open(&map, map_fd, NOBODY);

	if (r < 0)
		return r;
	high = high_slots(&map);
	for (slot = 0; slot<high; slot += n> 0 ? (uint64_t)n : 1) {
		uint16_t word = map.refs[slot];

		n = 0;
		if (word == 0 || word == QUARANTINE)
			n = trim_run(&map, file_fd, slot, word);
		if (n < 0) {
			total = n;
			break;
		}
		total += n;
	}
	tmem_swapmap_close(&map);
	return total;
}

/* Adds up, for slots from `first` on, how many users' bits there are. */
static int count_bits(const struct tmem_swapmap *map, int fd, uint64_t first,
		      uint16_t *counts)
{
	uint8_t block[BLOCK_SLOTS / 8] = { 0 };

	memset(counts, 0, BLOCK_SLOTS * sizeof(*counts));
	for (unsigned user = 0; user < map->header->max_users; user++) {
		long r = tmem_sys(SYS_pread64, fd, block, sizeof(block),
				  bits_offset(map->capacity) +
					  user * bits_stride(map->capacity) +
					  first / 8);

		if (r != (long)sizeof(block))
			return r < 0 ? (int)r : -EIO;
		for (unsigned i = 0; i < BLOCK_SLOTS; i++)
			counts[i] += block[i / 8] >> (i % 8) & 1;
	}
	return 0;
}

/* M1 for the slots of one block; adds to the two sums. */
static void check_block(const struct tmem_swapmap *map, uint64_t first,
			const uint16_t *counts, uint64_t *used, int64_t *leaked)
{
	for (uint64_t i = 0; i < BLOCK_SLOTS; i++) {
		uint16_t word, refs;

		if (first + i >= map->capacity)
			break;
		word = map->refs[first + i];
		refs = word & BUSY ? 1 : word & COUNT;
		TMEM_INVARIANT("M1", refs >= counts[i]);
		TMEM_INVARIANT("M3", word == 0 || first + i < high_slots(map));
		*used += word != 0 && word != (BUSY | NOBODY);
		*leaked += refs - counts[i];
	}
}

int64_t tmem_swapmap_check(int map_fd)
{
	const size_t bytes = BLOCK_SLOTS * sizeof(uint16_t);
	struct tmem_swapmap map;
	uint64_t used = 0;
	int64_t leaked = 0;
	uint16_t *counts;
	int r = tmem_swapmap_open(&map, map_fd, NOBODY);

	if (r < 0)
		return r;
	counts = tmem_sys_map_anon(bytes, PROT_READ | PROT_WRITE);
	if (!counts) {
		tmem_swapmap_close(&map);
		return -ENOMEM;
	}
	for (uint64_t slot = 0; slot < high_slots(&map) && r == 0;
	     slot += BLOCK_SLOTS) {
		r = count_bits(&map, map_fd, slot, counts);
		if (r == 0)
			check_block(&map, slot, counts, &used, &leaked);
	}
	TMEM_INVARIANT("M2", r < 0 || map.header->used_pages >= used);
	tmem_sys_unmap(counts, bytes);
	tmem_swapmap_close(&map);
	return r < 0 ? r : leaked;
}
