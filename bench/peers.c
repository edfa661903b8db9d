/* SPDX-License-Identifier: MIT */
/*
 * peers [CORPUS] [--pages N] [--rounds N] [--json]
 *
 * The page store in process beside memcached and redis over Unix sockets, with
 * 4 KiB values: pages of the memory of real programs.  What it costs to keep
 * pages in somebody else's process, uncompressed.
 *
 * Both servers are started as they come, without files, and ended; one client
 * thread has one connection.  It sets all keys in order, each to a page drawn
 * from all of the corpus, and gets them in random order: one at a time, and
 * pipelined, 16 requests and then their answers.  The store does the same with
 * vectors of 1 and of 16.  Rounds measure all of them one right after the
 * other; figures are medians, ratios medians of the rounds' ratios.
 *
 * Memory: what a server's anonymous memory has grown by when all keys were set
 * once, beside all that the store holds.
 *
 * Answers have a known length, as keys have, so a client only has to read so
 * many bytes and look at how each answer begins.
 */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <tmem/stats.h>
#include <tmem/store.h>

#include "bench.h"

enum {
	PAGE = TMEM_PAGE_SIZE,
	DEPTH = 16,
	STEP = 7919,
	MAX_ROUNDS = 101,
	ANSWER_MAX = PAGE + 64,
	START_SECONDS = 20
};

/* How a server is asked; a key is always "k" and seven digits. */
struct protocol {
	const char *name;
	const char *set; /* then the page, then \r\n */
	const char *set_answer;
	const char *get;
	const char *get_answer; /* then the page, then get_end */
	const char *get_end;
	void (*exec)(const char *socket);
};

enum who {
	STORE,
	MEMCACHED,
	REDIS,
	NR_WHO
};

struct server {
	const struct protocol *protocol;
	pid_t pid;
	int fd;
	char socket[108];
	char *answers; /* DEPTH of them */
	double empty_bytes;
};

struct bench {
	struct bench_corpus corpus;
	unsigned shift[NR_WHO];
	struct server servers[NR_WHO]; /* but for STORE */
	struct tmem_store *store;
	struct tmem_backend backend;
	tmem_pool_id pool;
	char *buffer; /* DEPTH pages */
	char folder[64];
};

/* Servers. */

static void exec_memcached(const char *socket)
{
	execlp("memcached", "memcached", "-s", socket, "-m", "16384", "-u",
	       "root", (char *)NULL);
}

static void exec_redis(const char *socket)
{
	execlp("redis-server", "redis-server", "--port", "0", "--unixsocket",
	       socket, "--save", "", "--appendonly", "no", "--logfile",
	       "/dev/null", (char *)NULL);
}

static const struct protocol protocols[NR_WHO] = {
	[MEMCACHED] = {
		.name = "memcached",
		.set = "set k%07u 0 0 4096\r\n",
		.set_answer = "STORED\r\n",
		.get = "get k%07u\r\n",
		.get_answer = "VALUE k%07u 0 4096\r\n",
		.get_end = "\r\nEND\r\n",
		.exec = exec_memcached,
	},
	[REDIS] = {
		.name = "redis",
		.set = "*3\r\n$3\r\nSET\r\n$8\r\nk%07u\r\n$4096\r\n",
		.set_answer = "+OK\r\n",
		.get = "*2\r\n$3\r\nGET\r\n$8\r\nk%07u\r\n",
		.get_answer = "$4096\r\n",
		.get_end = "\r\n",
		.exec = exec_redis,
	},
};

static void stop_servers(struct bench *b)
{
	unsigned i;

	for (i = 0; i < NR_WHO; i++) {
		if (b->servers[i].pid <= 0)
			continue;
		kill(b->servers[i].pid, SIGTERM);
		waitpid(b->servers[i].pid, NULL, 0);
		unlink(b->servers[i].socket);
	}
	rmdir(b->folder);
}

static _Noreturn void fail(struct bench *b, const char *what)
{
	fprintf(stderr, "peers: %s\n", what);
	stop_servers(b);
	exit(1);
}

static double anonymous_bytes(struct bench *b, const struct server *s)
{
	char path[64], line[256];
	double kib = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", s->pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		if (!strncmp(line, "RssAnon:", 8))
			kib = strtod(line + 8, NULL);
	}
	if (f)
		fclose(f);
	if (kib < 0)
		fail(b, "a server is gone");
	return kib * 1024;
}

/* Until it listens. */
static void connect_to(struct bench *b, struct server *s)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timespec pause = { .tv_nsec = 10000000 };
	double end = bench_now(CLOCK_MONOTONIC) + START_SECONDS;

	memcpy(address.sun_path, s->socket, sizeof(s->socket));
	s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	while (connect(s->fd, (struct sockaddr *)&address, sizeof(address))) {
		if (waitpid(s->pid, NULL, WNOHANG) == s->pid) {
			s->pid = 0;
			fail(b, "a server did not start: is it installed?");
		}
		if (bench_now(CLOCK_MONOTONIC) > end)
			fail(b, "a server does not listen");
		nanosleep(&pause, NULL);
	}
}

static void start_server(struct bench *b, enum who who)
{
	struct server *s = &b->servers[who];

	s->protocol = &protocols[who];
	s->answers = bench_map((size_t)DEPTH * ANSWER_MAX);
	snprintf(s->socket, sizeof(s->socket), "%s/%s", b->folder,
		 s->protocol->name);
	s->pid = fork();
	if (s->pid < 0)
		bench_die("fork");
	if (s->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		s->protocol->exec(s->socket);
		_exit(127);
	}
	connect_to(b, s);
	s->empty_bytes = anonymous_bytes(b, s);
}

/* Asking. */

static char *source(const struct bench *b, enum who who, unsigned i)
{
	unsigned page = (i + b->shift[who]) % b->corpus.nr;

	return b->corpus.pages + (size_t)b->corpus.order[page] * PAGE;
}

static void send_all(struct bench *b, const struct server *s, struct iovec *iov,
		     unsigned nr)
{
	struct msghdr message = { .msg_iov = iov, .msg_iovlen = nr };

	while (message.msg_iovlen) {
		ssize_t n = sendmsg(s->fd, &message, MSG_NOSIGNAL);

		if (n < 0)
			fail(b, "a server hung up");
		while (message.msg_iovlen &&
		       (size_t)n >= message.msg_iov->iov_len) {
			n -= (ssize_t)message.msg_iov->iov_len;
			message.msg_iov++;
			message.msg_iovlen--;
		}
		if (!message.msg_iovlen)
			break;
		message.msg_iov->iov_base =
			(char *)message.msg_iov->iov_base + n;
		message.msg_iov->iov_len -= (size_t)n;
	}
}

static void receive_all(struct bench *b, const struct server *s, size_t bytes)
{
	size_t at = 0;

	while (at < bytes) {
		ssize_t n = recv(s->fd, s->answers + at, bytes - at, 0);

		if (n <= 0)
			fail(b, "a server hung up");
		at += (size_t)n;
	}
}

static void server_set(struct bench *b, enum who who, unsigned i, unsigned nr)
{
	struct server *s = &b->servers[who];
	const char *answer = s->protocol->set_answer;
	static char crlf[] = "\r\n";
	size_t length = strlen(answer);
	struct iovec iov[3 * DEPTH], *next = iov;
	char heads[DEPTH][64];
	unsigned j;

	for (j = 0; j < nr; j++) {
		int n = snprintf(heads[j], sizeof(heads[j]), s->protocol->set,
				 i + j);

		*next++ = (struct iovec){ heads[j], (size_t)n };
		*next++ = (struct iovec){ source(b, who, i + j), PAGE };
		*next++ = (struct iovec){ crlf, 2 };
	}
	send_all(b, s, iov, 3 * nr);
	receive_all(b, s, nr * length);
	for (j = 0; j < nr; j++) {
		if (memcmp(s->answers + j * length, answer, length) != 0)
			fail(b, "a server did not take a page");
	}
}

/* Pages are copied to the buffer, as a user of them would have them. */
static void server_get(struct bench *b, enum who who, unsigned i, unsigned nr)
{
	struct server *s = &b->servers[who];
	const struct protocol *p = s->protocol;
	char head[64], *at = s->answers;
	size_t length = 0, end = strlen(p->get_end);
	char ask[DEPTH * 64];
	struct iovec iov = { ask, 0 };
	unsigned j;

	for (j = 0; j < nr; j++)
		iov.iov_len += (size_t)snprintf(ask + iov.iov_len, 64, p->get,
						b->corpus.order[i + j]);
	length = (size_t)snprintf(head, sizeof(head), p->get_answer, 0u);
	send_all(b, s, &iov, 1);
	receive_all(b, s, nr * (length + PAGE + end));
	for (j = 0; j < nr; j++, at += length + PAGE + end) {
		snprintf(head, sizeof(head), p->get_answer,
			 b->corpus.order[i + j]);
		if (memcmp(at, head, length) != 0 ||
		    memcmp(at + length + PAGE, p->get_end, end) != 0)
			fail(b, "a server does not have a page");
		memcpy(b->buffer + (size_t)j * PAGE, at + length, PAGE);
	}
}

static void store_do(struct bench *b, unsigned i, unsigned nr, bool get)
{
	struct tmem_io io[DEPTH];
	unsigned j;

	for (j = 0; j < nr; j++) {
		unsigned key = get ? b->corpus.order[i + j] : i + j;

		io[j].object = (struct tmem_object_id){ { key & 15, 7, 0 } };
		io[j].index = key >> 4;
		io[j].page = get ? b->buffer + (size_t)j * PAGE
				 : source(b, STORE, key);
	}
	if (get)
		b->backend.ops->load(b->backend.self, b->pool, io, nr);
	else
		b->backend.ops->store(b->backend.self, b->pool, io, nr);
	for (j = 0; j < nr; j++) {
		if (io[j].result != 0)
			fail(b, "the store does not have a page");
	}
}

static void ask(struct bench *b, enum who who, unsigned i, unsigned nr,
		bool get)
{
	if (who == STORE)
		store_do(b, i, nr, get);
	else if (get)
		server_get(b, who, i, nr);
	else
		server_set(b, who, i, nr);
}

/* Pages a second. */
static double measure(struct bench *b, enum who who, unsigned depth, bool get)
{
	double start = bench_now(CLOCK_MONOTONIC);
	unsigned i, n;

	if (!get)
		b->shift[who] += STEP;
	for (i = 0; i < b->corpus.nr; i += n) {
		n = b->corpus.nr - i < depth ? b->corpus.nr - i : depth;
		ask(b, who, i, n, get);
	}
	return b->corpus.nr / (bench_now(CLOCK_MONOTONIC) - start);
}

static void verify(struct bench *b)
{
	unsigned i, who;

	for (who = 0; who < NR_WHO; who++) {
		for (i = 0; i < b->corpus.nr; i++) {
			ask(b, (enum who)who, i, 1, true);
			if (memcmp(b->buffer,
				   source(b, (enum who)who, b->corpus.order[i]),
				   PAGE) != 0)
				fail(b, "a page is wrong");
		}
	}
}

/* Figures: [get][pipelined][who]. */

typedef double figures[2][2][NR_WHO];

/* Of the figures, or of the store's by theirs. */
static double median(figures *rounds, unsigned nr, const unsigned at[3],
		     bool by_store)
{
	double values[MAX_ROUNDS];
	unsigned i;

	for (i = 0; i < nr; i++) {
		const double *f = rounds[i][at[0]][at[1]];

		values[i] = by_store ? f[STORE] / f[at[2]] : f[at[2]];
	}
	return bench_median(values, nr);
}

static const char *who_name(unsigned who)
{
	return who == STORE ? "store" : protocols[who].name;
}

static void print_text(figures *rounds, unsigned nr)
{
	unsigned at[3];

	printf("pages a second         store memcached            redis\n");
	for (at[0] = 0; at[0] < 2; at[0]++) {
		for (at[1] = 0; at[1] < 2; at[1]++) {
			printf("%s, %-13s", at[0] ? "get" : "set",
			       at[1] ? "16 at a time" : "one by one");
			for (at[2] = 0; at[2] < NR_WHO; at[2]++) {
				printf(" %9.0f", median(rounds, nr, at, false));
				if (at[2] != STORE)
					printf(" %5.1fx",
					       median(rounds, nr, at, true));
			}
			printf("\n");
		}
	}
}

static void print_json(figures *rounds, unsigned nr)
{
	unsigned at[3];

	for (at[0] = 0; at[0] < 2; at[0]++)
		for (at[1] = 0; at[1] < 2; at[1]++)
			for (at[2] = 0; at[2] < NR_WHO; at[2]++)
				printf(", \"%s_%s_%u_per_s\": %.0f",
				       who_name(at[2]), at[0] ? "get" : "set",
				       at[1] ? DEPTH : 1,
				       median(rounds, nr, at, false));
}

static void print(const struct bench *b, figures *rounds, unsigned nr,
		  const double bytes[NR_WHO], bool json)
{
	double gib = (double)b->corpus.nr * PAGE / (1 << 30);
	unsigned who;

	printf(json ? "{\"bench\": \"peers\", \"pages\": %u, \"rounds\": %u"
		    : "%u pages of 4 KiB, %u rounds; medians\n",
	       b->corpus.nr, nr);
	if (json)
		print_json(rounds, nr);
	else
		print_text(rounds, nr);
	for (who = 0; who < NR_WHO; who++)
		printf(json ? ", \"%s_mib_per_gib\": %.1f, \"%s_ratio\": %.3f"
			    : "RAM per GiB stored: %s %.1f MiB, %s%.2fx\n",
		       who_name(who), bytes[who] / gib / (1 << 20),
		       json ? who_name(who) : "to the store's ",
		       bytes[who] / bytes[STORE]);
	if (json)
		printf("}\n");
}

static void start(struct bench *b)
{
	struct tmem_store_options options = { 0 };

	b->buffer = bench_map((size_t)DEPTH * PAGE);
	/*
	 * Never near full: the policy for that is not what is measured.  Nor is
	 * it how fast a page is that is there already.
	 */
	options.limit_bytes = (uint64_t)b->corpus.nr * PAGE * 4 + (64u << 20);
	options.no_dedup = 1;
	if (tmem_store_open(&options, &b->store) < 0)
		bench_die("tmem_store_open");
	b->backend = tmem_store_backend(b->store);
	b->backend.ops->pool_create(b->backend.self, NULL, &b->pool);
	snprintf(b->folder, sizeof(b->folder), "/tmp/tmem-peers-XXXXXX");
	if (!mkdtemp(b->folder))
		bench_die(b->folder);
	start_server(b, MEMCACHED);
	start_server(b, REDIS);
}

static void fill(struct bench *b, double ret_bytes[NR_WHO])
{
	struct tmem_stats stats;
	unsigned who;

	for (who = 0; who < NR_WHO; who++) {
		measure(b, (enum who)who, DEPTH, false);
		if (who != STORE)
			ret_bytes[who] = anonymous_bytes(b, &b->servers[who]) -
					 b->servers[who].empty_bytes;
	}
	b->backend.ops->stats(b->backend.self, &stats);
	ret_bytes[STORE] = (double)stats.held_bytes;
}

struct options {
	const char *corpus;
	unsigned pages, rounds;
	bool json;
};

static void parse(int argc, char **argv, struct options *o)
{
	const struct bench_option options[] = {
		{ "CORPUS", .text = &o->corpus },
		{ "--pages N", .number = &o->pages },
		{ "--rounds N", .number = &o->rounds, .min = 1,
		  .max = MAX_ROUNDS },
		{ "--json", .flag = &o->json },
	};

	BENCH_TAKE_OPTIONS(argc, argv, options);
}

int main(int argc, char **argv)
{
	static figures rounds[MAX_ROUNDS];
	static struct bench b;
	struct options o = { .pages = 20000, .rounds = 7 };
	double bytes[NR_WHO] = { 0 };
	unsigned i, get, pipelined, who;

	parse(argc, argv, &o);
	bench_read_corpus(&b.corpus, o.corpus, o.pages);
	start(&b);
	fill(&b, bytes);
	for (i = 0; i < o.rounds; i++)
		for (get = 0; get < 2; get++)
			for (pipelined = 0; pipelined < 2; pipelined++)
				for (who = 0; who < NR_WHO; who++)
					rounds[i][get][pipelined][who] =
						measure(&b, (enum who)who,
							pipelined ? DEPTH : 1,
							get);
	verify(&b);
	stop_servers(&b);
	tmem_store_close(b.store);
	print(&b, rounds, o.rounds, bytes, o.json);
	return 0;
}
