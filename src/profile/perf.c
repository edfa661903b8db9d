/* SPDX-License-Identifier: MIT */
/*
 * One event and one ring for each CPU.  The events are the CPUs', not the
 * processes': these would have to be switched with each switch of threads, of
 * which a fault takes several (a fifth of a pager's CPU time).
 *
 * Every fault is an event (period 1), and a BPF program of two dozen
 * instructions throws dice whether it becomes a sample: is its process in one
 * map, and a random number not larger than the word in the other?
 *
 * BPF knows processes by the numbers of the outermost PID namespace.  From
 * within another we can't name them: then samples of all come, and those of
 * others are dropped by who reads.
 */
#include "profile/perf.h"

#include <errno.h>
#include <limits.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
	RING_BYTES = 512 << 10, /* of each CPU, on small machines */
	RING_BYTES_LEAST = 128 << 10,
	RING_BYTES_ALL = 8 << 20,
	RECORD_BYTES = 64 << 10,
	/* By bit, in the kernel's order. */
	REGS_LOW = 9,	/* ax bx cx dx si di bp sp ip */
	REGS_HIGH = 16, /* r8 to r15 */
	PAGE = 4096,
	INSNS_MAX = 32,
	PIDS_MAX = 4096
};

/* The inode of the outermost PID namespace. */
#define OUTERMOST 0xEFFFFFFCu

struct ring {
	int fd;
	struct perf_event_mmap_page *head;
	const uint8_t *data;
};

struct tmem_perf {
	unsigned nr_rings;
	size_t ring_bytes;
	int part_fd; /* maps of the BPF program */
	int pids_fd; /* -1: it takes all */
	uint8_t record[RECORD_BYTES];
	struct ring rings[];
};

#define REGS_MASK (((1ull << REGS_LOW) - 1) | 0xffull << REGS_HIGH)

#define SAMPLE_TYPE                                              \
	(PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_ADDR | \
	 PERF_SAMPLE_REGS_USER | PERF_SAMPLE_STACK_USER)

/* What is at the start of a sample of this type. */
struct sample_start {
	struct perf_event_header header;
	uint32_t pid, tid;
	uint64_t time;
	uint64_t address;
	uint64_t abi;
};

static int bpf(int command, union bpf_attr *attr)
{
	long r = syscall(SYS_bpf, command, attr, sizeof(*attr));

	return r < 0 ? -errno : (int)r;
}

static int make_map(uint32_t type, uint32_t max)
{
	union bpf_attr attr = { .map_type = type,
				.key_size = sizeof(uint32_t),
				.value_size = sizeof(uint32_t),
				.max_entries = max };

	return bpf(BPF_MAP_CREATE, &attr);
}

static void set(int map_fd, uint32_t key, uint32_t value)
{
	union bpf_attr attr = { .map_fd = (uint32_t)map_fd,
				.key = (uintptr_t)&key,
				.value = (uintptr_t)&value };

	bpf(BPF_MAP_UPDATE_ELEM, &attr);
}

#define INSN(op, to, from, offset, number)                        \
	{                                                         \
		.code = (op), .dst_reg = (to), .src_reg = (from), \
		.off = (offset), .imm = (number)                  \
	}

/* The value in a map for the word at r10 - 4, its address in r0. */
#define LOOK_UP(map_fd)                                                  \
	INSN(BPF_ALU64 | BPF_MOV | BPF_X, 2, 10, 0, 0),                  \
		INSN(BPF_ALU64 | BPF_ADD | BPF_K, 2, 0, 0, -4),          \
		INSN(BPF_LD | BPF_IMM | BPF_DW, 1, BPF_PSEUDO_MAP_FD, 0, \
		     (map_fd)),                                          \
		INSN(0, 0, 0, 0, 0),                                     \
		INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_map_lookup_elem)

/* Is the process one of ours?  Else no sample. */
static unsigned write_filter(const struct tmem_perf *perf,
			     struct bpf_insn *ret_program)
{
	const struct bpf_insn filter[] = {
		INSN(BPF_JMP | BPF_CALL, 0, 0, 0,
		     BPF_FUNC_get_current_pid_tgid),
		INSN(BPF_ALU64 | BPF_RSH | BPF_K, 0, 0, 0, 32),
		INSN(BPF_STX | BPF_MEM | BPF_W, 10, 0, -4, 0),
		LOOK_UP(perf->pids_fd),
		INSN(BPF_JMP | BPF_JNE | BPF_K, 0, 0, 2, 0),
		INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	};

	memcpy(ret_program, filter, sizeof(filter));
	return sizeof(filter) / sizeof(*filter);
}

/* A random word at most as large as the map's: a sample. */
static unsigned write_dice(const struct tmem_perf *perf,
			   struct bpf_insn *ret_program)
{
	const struct bpf_insn dice[] = {
		INSN(BPF_ST | BPF_MEM | BPF_W, 10, 0, -4, 0),
		LOOK_UP(perf->part_fd),
		INSN(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 6, 0),
		INSN(BPF_LDX | BPF_MEM | BPF_W, 6, 0, 0, 0),
		INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_get_prandom_u32),
		INSN(BPF_ALU | BPF_MOV | BPF_X, 1, 0, 0, 0),
		INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0),
		INSN(BPF_JMP | BPF_JGT | BPF_X, 1, 6, 1, 0),
		INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 1),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	};

	memcpy(ret_program, dice, sizeof(dice));
	return sizeof(dice) / sizeof(*dice);
}

static int load_program(const struct tmem_perf *perf)
{
	struct bpf_insn program[INSNS_MAX];
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_PERF_EVENT,
		.insns = (uintptr_t)program,
		.license = (uintptr_t) "Dual MIT/GPL",
	};
	unsigned nr = 0;

	if (perf->pids_fd >= 0)
		nr = write_filter(perf, program);
	nr += write_dice(perf, program + nr);
	attr.insn_cnt = nr;
	return bpf(BPF_PROG_LOAD, &attr);
}

static int open_event(const struct tmem_perf *perf, int program_fd, int cpu)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_PAGE_FAULTS,
		.sample_type = SAMPLE_TYPE,
		.sample_period = 1,
		.sample_regs_user = REGS_MASK,
		.sample_stack_user = TMEM_PERF_STACK_BYTES,
		.use_clockid = 1,
		.clockid = CLOCK_MONOTONIC,
		.watermark = 1,
		.wakeup_watermark = (uint32_t)perf->ring_bytes / 2,
	};
	int fd = (int)syscall(SYS_perf_event_open, &attr, -1, cpu, -1,
			      PERF_FLAG_FD_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (ioctl(fd, PERF_EVENT_IOC_SET_BPF, program_fd) < 0) {
		close(fd);
		return -EPERM;
	}
	return fd;
}

/* All CPUs that are on, or -errno. */
static int open_events(struct tmem_perf *perf, unsigned nr_cpus)
{
	int program_fd = load_program(perf), fd = 0;
	unsigned cpu;

	if (program_fd < 0)
		return program_fd;
	for (cpu = 0; cpu < nr_cpus; cpu++) {
		fd = open_event(perf, program_fd, (int)cpu);
		if (fd >= 0)
			perf->rings[perf->nr_rings++].fd = fd;
		else if (fd != -ENODEV)
			break;
	}
	close(program_fd); /* the events have it */
	if (fd < 0 && fd != -ENODEV)
		return fd;
	return perf->nr_rings ? 0 : -ENODEV;
}

void tmem_perf_set_part(struct tmem_perf *perf, double part)
{
	set(perf->part_fd, 0,
	    part < 1 ? (uint32_t)(part * UINT_MAX) : UINT_MAX);
}

void tmem_perf_watch(struct tmem_perf *perf, pid_t pid, bool watch)
{
	uint32_t key = (uint32_t)pid;
	union bpf_attr attr = { .map_fd = (uint32_t)perf->pids_fd,
				.key = (uintptr_t)&key };

	if (perf->pids_fd < 0)
		return;
	if (watch)
		set(perf->pids_fd, key, 1);
	else
		bpf(BPF_MAP_DELETE_ELEM, &attr);
}

static int make_maps(struct tmem_perf *perf)
{
	struct stat st;

	perf->part_fd = make_map(BPF_MAP_TYPE_ARRAY, 1);
	if (perf->part_fd < 0)
		return perf->part_fd;
	if (stat("/proc/self/ns/pid", &st) < 0 || st.st_ino != OUTERMOST)
		return 0;
	perf->pids_fd = make_map(BPF_MAP_TYPE_HASH, PIDS_MAX);
	return perf->pids_fd < 0 ? perf->pids_fd : 0;
}

int tmem_perf_open(double part, struct tmem_perf **ret_perf)
{
	long nr_cpus = sysconf(_SC_NPROCESSORS_CONF);
	struct tmem_perf *perf;
	int r;

	if (nr_cpus < 1)
		return -ENODEV;
	perf = calloc(1,
		      sizeof(*perf) + (size_t)nr_cpus * sizeof(*perf->rings));
	if (!perf)
		return -ENOMEM;
	perf->ring_bytes = RING_BYTES;
	while (perf->ring_bytes > RING_BYTES_LEAST &&
	       perf->ring_bytes * (size_t)nr_cpus > RING_BYTES_ALL)
		perf->ring_bytes /= 2;
	perf->part_fd = perf->pids_fd = -1;
	r = make_maps(perf);
	if (r == 0)
		r = open_events(perf, (unsigned)nr_cpus);
	/* Is there memory for the rings?  They are the reader's. */
	if (r == 0)
		r = tmem_perf_map(perf);
	if (r < 0) {
		tmem_perf_close(perf);
		return r;
	}
	tmem_perf_set_part(perf, part);
	*ret_perf = perf;
	return 0;
}

static void unmap(struct tmem_perf *perf)
{
	unsigned i;

	for (i = 0; i < perf->nr_rings; i++) {
		if (perf->rings[i].head)
			munmap(perf->rings[i].head, PAGE + perf->ring_bytes);
		perf->rings[i].head = NULL;
	}
}

void tmem_perf_close(struct tmem_perf *perf)
{
	unsigned i;

	if (!perf)
		return;
	unmap(perf);
	for (i = 0; i < perf->nr_rings; i++)
		close(perf->rings[i].fd);
	if (perf->part_fd >= 0)
		close(perf->part_fd);
	if (perf->pids_fd >= 0)
		close(perf->pids_fd);
	free(perf);
}

int tmem_perf_map(struct tmem_perf *perf)
{
	unsigned i;
	void *at;

	for (i = 0; i < perf->nr_rings; i++) {
		/* A child has none of its parent's. */
		at = mmap(NULL, PAGE + perf->ring_bytes, PROT_READ | PROT_WRITE,
			  MAP_SHARED, perf->rings[i].fd, 0);
		if (at == MAP_FAILED)
			return -errno;
		perf->rings[i].head = at;
		perf->rings[i].data = (uint8_t *)at + PAGE;
	}
	return 0;
}

unsigned tmem_perf_fds(const struct tmem_perf *perf, int *ret_fds, unsigned max)
{
	unsigned i;

	for (i = 0; i < perf->nr_rings && i < max; i++)
		ret_fds[i] = perf->rings[i].fd;
	return i;
}

unsigned tmem_perf_other_fds(const struct tmem_perf *perf, int ret_fds[2])
{
	ret_fds[0] = perf->part_fd;
	ret_fds[1] = perf->pids_fd;
	return perf->pids_fd < 0 ? 1 : 2;
}

/* From the kernel's order to DWARF's. */
static void take_regs(const uint64_t *k, uint64_t *ret_regs)
{
	static const uint8_t from[] = { 0, 3, 2, 1, 4, 5, 6, 7 };
	unsigned i;

	for (i = 0; i < 8; i++)
		ret_regs[i] = k[from[i]];
	for (i = 0; i < 8; i++)
		ret_regs[8 + i] = k[REGS_LOW + i];
	ret_regs[TMEM_PERF_RIP] = k[8];
}

/* False: there is nothing to be made of it. */
static bool decode(const struct tmem_perf *perf, struct tmem_perf_sample *ret)
{
	const struct sample_start *s = (const void *)perf->record;
	const uint8_t *at = perf->record + sizeof(*s);
	struct tmem_perf_sample out = {
		.pid = (pid_t)s->pid,
		.time_ns = s->time,
		.address = s->address,
		.in_kernel = (s->header.misc & PERF_RECORD_MISC_CPUMODE_MASK) ==
			     PERF_RECORD_MISC_KERNEL,
	};
	uint64_t size = 0, used = 0;

	if (s->abi != PERF_SAMPLE_REGS_ABI_64 ||
	    s->header.size < sizeof(*s) + (REGS_LOW + 8 + 1) * sizeof(uint64_t))
		return false;
	take_regs((const uint64_t *)at, out.regs);
	at += (REGS_LOW + 8) * sizeof(uint64_t);
	memcpy(&size, at, sizeof(size));
	at += sizeof(size);
	if (size) {
		memcpy(&used, at + size, sizeof(used));
		out.stack = at;
		out.stack_bytes = used < size ? used : size;
	}
	*ret = out;
	return true;
}

/* A record's bytes in one piece; false: none is there. */
static bool take_record(struct tmem_perf *perf, const struct ring *ring,
			uint64_t head, uint64_t *tail)
{
	struct perf_event_header h;
	size_t at = *tail % perf->ring_bytes, first;

	if (head - *tail < sizeof(h))
		return false;
	/* Records are aligned to 8 bytes, so a header is never in two. */
	memcpy(&h, ring->data + at, sizeof(h));
	if (h.size < sizeof(h) || h.size > head - *tail)
		return false;
	first = perf->ring_bytes - at;
	if (first > h.size)
		first = h.size;
	memcpy(perf->record, ring->data + at, first);
	memcpy(perf->record + first, ring->data, h.size - first);
	*tail += h.size;
	return true;
}

static uint64_t
read_ring(struct tmem_perf *perf, const struct ring *ring,
	  void (*fn)(void *arg, const struct tmem_perf_sample *), void *arg)
{
	uint64_t head =
		__atomic_load_n(&ring->head->data_head, __ATOMIC_ACQUIRE);
	uint64_t tail = ring->head->data_tail, lost;
	const struct perf_event_header *h = (const void *)perf->record;
	struct tmem_perf_sample sample;
	uint64_t nr = 0;

	while (tail != head && take_record(perf, ring, head, &tail)) {
		if (h->type == PERF_RECORD_LOST) { /* header, id, how many */
			memcpy(&lost, perf->record + 16, sizeof(lost));
			nr += lost;
		}
		if (h->type == PERF_RECORD_SAMPLE) {
			nr++;
			if (decode(perf, &sample))
				fn(arg, &sample);
		}
		__atomic_store_n(&ring->head->data_tail, tail,
				 __ATOMIC_RELEASE);
	}
	return nr;
}

uint64_t tmem_perf_read(struct tmem_perf *perf,
			void (*fn)(void *arg, const struct tmem_perf_sample *),
			void *arg)
{
	uint64_t nr = 0;
	unsigned i;

	for (i = 0; i < perf->nr_rings; i++)
		nr += read_ring(perf, &perf->rings[i], fn, arg);
	return nr;
}
